//! How likely tokens were under the model's own distribution. Sums run over the row in one order, so
//! that a row's figures have the same bits in every batch.

use crate::request::TokenLogprobs;

/// Log probability and rank of `token`, and the `num_candidates` most likely tokens. `logits` \[V\] are
/// sound (see [`super::argmax`]).
pub(super) fn of(logits: &[f32], token: u32, num_candidates: usize) -> TokenLogprobs {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits
        .iter()
        .map(|logit| f64::from(logit - largest).exp())
        .sum();
    let log_sum = sum.ln();
    let logprob = |token: u32| (f64::from(logits[token as usize] - largest) - log_sum) as f32;
    let own = logits[token as usize];
    let num_better = logits.iter().filter(|logit| **logit > own).count();
    TokenLogprobs {
        logprob: logprob(token),
        rank: num_better as u32 + 1,
        candidates: most_likely(logits, num_candidates)
            .into_iter()
            .map(|token| (token, logprob(token)))
            .collect(),
    }
}

/// The tokens with the largest logits, largest first; the first of equals first.
fn most_likely(logits: &[f32], num_wanted: usize) -> Vec<u32> {
    let num_wanted = num_wanted.min(logits.len());
    if num_wanted == 0 {
        return Vec::new();
    }
    let by_logit = |left: &u32, right: &u32| {
        logits[*right as usize]
            .total_cmp(&logits[*left as usize])
            .then(left.cmp(right))
    };
    let mut tokens: Vec<u32> = (0..logits.len() as u32).collect();
    if num_wanted < tokens.len() {
        tokens.select_nth_unstable_by(num_wanted - 1, by_logit);
        tokens.truncate(num_wanted);
    }
    tokens.sort_unstable_by(by_logit);
    tokens
}
