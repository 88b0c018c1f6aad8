//! Changes to the logits themselves: biases, stop tokens that may not come yet, penalties.

use std::collections::BTreeMap;

use super::Draw;
use crate::request::Sampling;

impl Sampling {
    /// Whether earlier tokens change the logits.
    #[expect(clippy::float_cmp, reason = "exactly 1 is what changes nothing")]
    pub(crate) fn has_penalties(&self) -> bool {
        self.repetition_penalty != 1.0
            || self.frequency_penalty != 0.0
            || self.presence_penalty != 0.0
    }
}

impl Draw<'_> {
    /// Whether a stop token may come yet.
    pub(crate) fn may_stop(&self) -> bool {
        let num_answer_tokens = self.position as usize - self.num_prompt_tokens;
        num_answer_tokens >= self.stopping.min_tokens as usize
    }

    /// Whether the logits are changed at all before the draw.
    pub(crate) fn changes_logits(&self) -> bool {
        !self.sampling.logit_bias.is_empty() || !self.may_stop() || self.sampling.has_penalties()
    }

    /// Puts every token before the draw into `num_in_answer` (cleared first), with how often the answer has it.
    pub(crate) fn count_seen(&self, num_in_answer: &mut BTreeMap<u32, u32>) {
        assert_eq!(
            self.history.len() as u64,
            self.position,
            "a penalty looks at every earlier token"
        );
        let (prompt, answer) = self.history.split_at(self.num_prompt_tokens);
        num_in_answer.clear();
        for &token in prompt {
            num_in_answer.entry(token).or_insert(0);
        }
        for &token in answer {
            *num_in_answer.entry(token).or_insert(0) += 1;
        }
    }
}

/// Writes the changed logits to `adjusted`; false, and nothing is written, where nothing changes.
/// `num_in_answer` is scratch.
pub(super) fn adjust(
    logits: &[f32],
    draw: &Draw<'_>,
    adjusted: &mut Vec<f32>,
    num_in_answer: &mut BTreeMap<u32, u32>,
) -> bool {
    if !draw.changes_logits() {
        return false;
    }
    let Draw {
        sampling, stopping, ..
    } = *draw;
    adjusted.clear();
    adjusted.extend_from_slice(logits);
    for &(token, bias) in &sampling.logit_bias {
        adjusted[token as usize] += bias;
    }
    if !draw.may_stop() {
        for &token in &stopping.token_ids {
            adjusted[token as usize] = f32::NEG_INFINITY;
        }
    }
    if sampling.has_penalties() {
        penalise(draw, adjusted, num_in_answer);
    }
    true
}

/// The repetition penalty looks at prompt and answer and counts once (CTRL, arXiv 1909.05858); the
/// other two look at the answer alone, as OpenAI defined them.
fn penalise(draw: &Draw<'_>, logits: &mut [f32], num_in_answer: &mut BTreeMap<u32, u32>) {
    draw.count_seen(num_in_answer);
    let sampling = draw.sampling;
    for (&token, &count) in num_in_answer.iter() {
        let logit = &mut logits[token as usize];
        *logit = if *logit > 0.0 {
            *logit / sampling.repetition_penalty
        } else {
            *logit * sampling.repetition_penalty
        };
        if count > 0 {
            *logit -= sampling.frequency_penalty * count as f32 + sampling.presence_penalty;
        }
    }
}
