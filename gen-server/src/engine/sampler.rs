//! From a row of logits to a token. The random numbers are a function of (seed, position) alone, so
//! that batching, chunking, preemption and speculation do not change what is drawn.
//!
//! The order of operations is vLLM's: biases and forbidden stop tokens, penalties, then greedy; or
//! temperature, min-p, top-k, top-p, and the draw.

mod adjust;
mod logprobs;

#[cfg(test)]
mod tests;

use super::{
    batch::{LogitsRow, Purpose, StepBatch},
    runner::Sampled,
};
use crate::request::{Sampling, Stopping};

/// How many of the most likely tokens are sorted first when top-p asks for the smallest set; most
/// sets are smaller, and sorting a vocabulary of 128,256 takes about 10 ms.
const FIRST_NUCLEUS: usize = 256;

/// Memory that sampling reuses from row to row.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    candidates: Vec<Candidate>,
    /// The row after biases and penalties.
    adjusted: Vec<f32>,
    /// By token: how often the answer has it.
    num_in_answer: std::collections::BTreeMap<u32, u32>,
}

#[derive(Debug, Clone, Copy)]
struct Candidate {
    token: u32,
    /// exp((logit − max) / temperature): a probability before the division by the sum.
    weight: f64,
}

/// Everything that decides which token follows, beside the logits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Draw<'a> {
    pub sampling: &'a Sampling,
    pub stopping: &'a Stopping,
    /// Place of the token in its sequence.
    pub position: u64,
    pub num_prompt_tokens: usize,
    /// Prompt and answer before `position`; may be empty where no penalty is set.
    pub history: &'a [u32],
}

impl<'a> Draw<'a> {
    /// What decides for `row` of `batch`.
    pub(crate) fn of(batch: &'a StepBatch, row: &LogitsRow) -> Self {
        let drawing = &batch.drawings[row.drawing as usize];
        Self {
            sampling: &drawing.sampling,
            stopping: &drawing.stopping,
            position: row.position,
            num_prompt_tokens: drawing.num_prompt_tokens,
            history: batch.history(row),
        }
    }
}

/// What `row` of `batch`, with its `logits` \[V\], comes to. `None` if a logit is not a number or +∞,
/// or all are −∞.
pub(crate) fn outcome(
    logits: &[f32],
    batch: &StepBatch,
    row: &LogitsRow,
    scratch: &mut Scratch,
) -> Option<Sampled> {
    let drawing = &batch.drawings[row.drawing as usize];
    let (token, num_candidates) = match row.purpose {
        Purpose::Score(token) => {
            argmax(logits)?; // every logit is sound
            (token, Some(drawing.num_candidates.unwrap_or(0)))
        }
        Purpose::Draw => {
            let token = sample(logits, &Draw::of(batch, row), scratch)?;
            (token, drawing.num_candidates)
        }
    };
    let logprobs = num_candidates.map(|k| logprobs::of(logits, token, k as usize));
    Some(Sampled { token, logprobs })
}

/// Draws a token from `logits` \[V\]; `None` if none can be drawn because a logit is not a number or
/// +∞, or all are −∞.
pub(crate) fn sample(logits: &[f32], draw: &Draw<'_>, scratch: &mut Scratch) -> Option<u32> {
    let mut most_likely = argmax(logits)?;
    let mut adjusted = std::mem::take(&mut scratch.adjusted);
    let is_adjusted = adjust::adjust(logits, draw, &mut adjusted, &mut scratch.num_in_answer);
    let logits = if is_adjusted { &adjusted } else { logits };
    if is_adjusted {
        most_likely = argmax(logits)?;
    }
    let token = sample_adjusted(logits, most_likely, draw, &mut scratch.candidates);
    scratch.adjusted = adjusted;
    Some(token)
}

fn sample_adjusted(
    logits: &[f32],
    greedy: u32,
    draw: &Draw<'_>,
    candidates: &mut Vec<Candidate>,
) -> u32 {
    let sampling = draw.sampling;
    if sampling.temperature == 0.0 || sampling.top_k == 1 {
        return greedy;
    }
    let largest = logits[greedy as usize];
    weigh(logits, largest, sampling.temperature, candidates);
    if sampling.min_p > 0.0 {
        // The most likely token weighs 1.
        candidates.retain(|candidate| candidate.weight >= f64::from(sampling.min_p));
    }
    keep_top_k(candidates, sampling.top_k as usize);
    keep_top_p(candidates, f64::from(sampling.top_p));
    // One order whatever the selections did: the draw depends on the set alone.
    candidates.sort_unstable_by_key(|candidate| candidate.token);
    self::draw(candidates, uniform(sampling.seed, draw.position)).unwrap_or(greedy)
}

/// The most likely token, the first of equals; `None` if a logit is NaN or +∞, or all are −∞.
pub(crate) fn argmax(logits: &[f32]) -> Option<u32> {
    // Two passes, since the first has no branches and vectorises.
    let mut largest = f32::NEG_INFINITY;
    let mut any_bad = false;
    for &logit in logits {
        largest = if logit > largest { logit } else { largest };
        any_bad |= logit.is_nan();
    }
    if any_bad || !largest.is_finite() {
        return None;
    }
    logits
        .iter()
        .position(|&logit| logit >= largest)
        .map(|index| index as u32)
}

fn weigh(logits: &[f32], largest: f32, temperature: f32, candidates: &mut Vec<Candidate>) {
    candidates.clear();
    candidates.extend(logits.iter().enumerate().map(|(token, &logit)| Candidate {
        token: token as u32,
        weight: (f64::from(logit - largest) / f64::from(temperature)).exp(),
    }));
}

/// Most likely first; the first of equals first.
fn by_weight(left: &Candidate, right: &Candidate) -> std::cmp::Ordering {
    right
        .weight
        .total_cmp(&left.weight)
        .then(left.token.cmp(&right.token))
}

fn keep_top_k(candidates: &mut Vec<Candidate>, top_k: usize) {
    if top_k > 0 && top_k < candidates.len() {
        candidates.select_nth_unstable_by(top_k - 1, by_weight);
        candidates.truncate(top_k);
    }
}

/// Keeps the smallest set of most likely tokens whose probability reaches `top_p`; never none.
fn keep_top_p(candidates: &mut Vec<Candidate>, top_p: f64) {
    if top_p >= 1.0 {
        return;
    }
    let total: f64 = candidates.iter().map(|candidate| candidate.weight).sum();
    let mut num_sorted = FIRST_NUCLEUS.min(candidates.len());
    loop {
        if num_sorted < candidates.len() {
            candidates.select_nth_unstable_by(num_sorted - 1, by_weight);
        }
        candidates[..num_sorted].sort_unstable_by(by_weight);
        let mut reached = 0.0;
        for index in 0..num_sorted {
            reached += candidates[index].weight;
            if reached >= top_p * total {
                candidates.truncate(index + 1);
                return;
            }
        }
        if num_sorted == candidates.len() {
            return; // rounding kept the sum below top_p: all of them
        }
        num_sorted = (num_sorted * 16).min(candidates.len());
    }
}

/// The candidate at `point` in [0, 1) of the summed weights.
fn draw(candidates: &[Candidate], point: f64) -> Option<u32> {
    let total: f64 = candidates.iter().map(|candidate| candidate.weight).sum();
    let mut left = point * total;
    for candidate in candidates {
        left -= candidate.weight;
        if left < 0.0 {
            return Some(candidate.token);
        }
    }
    // Rounding can leave a rest of one unit in the last place.
    candidates
        .iter()
        .rev()
        .find(|candidate| candidate.weight > 0.0)
        .map(|last| last.token)
}

/// A number in [0, 1) that depends on nothing but its arguments: 53 bits of two rounds of
/// SplitMix64's finaliser (Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators").
fn uniform(seed: u64, position: u64) -> f64 {
    let bits = mix(mix(seed).wrapping_add(position.wrapping_mul(0x9E37_79B9_7F4A_7C15)));
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

/// SplitMix64's output function, after one step of its counter.
pub(crate) fn mix(value: u64) -> u64 {
    let mut bits = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
}
