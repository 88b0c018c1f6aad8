//! Several samples per question: pass@k and majority vote.

use crate::number::Number;

/// Chance that at least one of `k` samples is right, estimated without bias from `num_right` of
/// `num_samples`: 1 - C(n-c, k) / C(n, k) (Chen et al. 2021). `None` for `k` beyond the samples.
///
/// # Panics
/// Where `num_right > num_samples`.
pub fn pass_at_k(num_samples: u64, num_right: u64, k: u64) -> Option<f64> {
    assert!(
        num_right <= num_samples,
        "{num_right} right of {num_samples}"
    );
    if k == 0 || k > num_samples {
        return None;
    }
    let num_wrong = num_samples - num_right;
    if k > num_wrong {
        return Some(1.0);
    }
    // C(n-c, k) / C(n, k) as a product of k factors below 1: nothing overflows.
    let all_wrong: f64 = (0..k)
        .map(|i| (num_wrong - i) as f64 / (num_samples - i) as f64)
        .product();
    Some(1.0 - all_wrong)
}

/// The most frequent answer. Samples without an answer have no vote; of answers with equally many
/// votes the one seen first wins. `None` where no sample has an answer.
///
/// The tie rule matters (3.9 points on GSM8K with four samples): print it beside every maj@k.
pub fn majority(answers: &[Option<Number>]) -> Option<Number> {
    tally(answers)
        .into_iter()
        .reduce(|best, next| if next.1 > best.1 { next } else { best })
        .map(|best| best.0)
}

/// Chance that a majority vote is right when ties are broken at random.
pub fn majority_chance(answers: &[Option<Number>], gold: Number) -> f64 {
    let votes = tally(answers);
    let most = votes.iter().map(|vote| vote.1).max().unwrap_or(0);
    let tied: Vec<Number> = votes
        .into_iter()
        .filter(|vote| vote.1 == most)
        .map(|vote| vote.0)
        .collect();
    if tied.contains(&gold) {
        1.0 / tied.len() as f64
    } else {
        0.0
    }
}

/// How many answers share the most votes: more than one is a tie, none where no sample has an answer.
pub fn num_leading(answers: &[Option<Number>]) -> usize {
    let votes = tally(answers);
    let most = votes.iter().map(|vote| vote.1).max();
    votes.iter().filter(|vote| Some(vote.1) == most).count()
}

/// Votes per answer, in the order in which answers were first seen.
pub(crate) fn tally(answers: &[Option<Number>]) -> Vec<(Number, usize)> {
    let mut votes: Vec<(Number, usize)> = Vec::new();
    for answer in answers.iter().flatten() {
        match votes.iter_mut().find(|vote| vote.0 == *answer) {
            Some(vote) => vote.1 += 1,
            None => votes.push((*answer, 1)),
        }
    }
    votes
}
