//! From an order of examples to micro-batches. An optimizer step's examples (its window) are packed
//! into as few micro-batches as a token budget allows; in a micro-batch every example is a segment
//! of its own with positions from 0, so packing changes nothing but speed.

use std::ops::Range;

use crate::config::Window;
use crate::dataset::{Example, Examples};

/// What goes through the network at once. All lists but the last three have one entry per input
/// token.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MicroBatch {
    pub token_ids: Vec<u32>,
    pub positions: Vec<u32>,
    /// Bounds of the segments in the token list: 0, end of the first, end of the second, ...
    pub segment_bounds: Vec<u32>,
    /// Rows whose output predicts a label, rising.
    pub label_rows: Vec<u32>,
    /// The label of each of those rows.
    pub targets: Vec<u32>,
}

impl MicroBatch {
    pub fn num_tokens(&self) -> usize {
        self.token_ids.len()
    }

    pub fn num_labels(&self) -> usize {
        self.targets.len()
    }

    /// Queries and the keys each of them sees: in a segment of n tokens 1 + 2 + ... + n.
    pub fn num_attention_pairs(&self) -> u64 {
        let positions = self.positions.iter();
        positions.map(|&position| u64::from(position) + 1).sum()
    }

    fn push(&mut self, example: Example<'_>) {
        let start = self.token_ids.len();
        let inputs = example.num_inputs();
        if self.segment_bounds.is_empty() {
            self.segment_bounds.push(0);
        }
        self.token_ids.extend_from_slice(&example.ids[..inputs]);
        self.positions.extend(0..inputs as u32);
        self.segment_bounds.push((start + inputs) as u32);
        for labels in example.labels {
            // The one shift by one: the row of token i predicts token i + 1.
            let rows = start as u32 + labels.start - 1..start as u32 + labels.end - 1;
            self.label_rows.extend(rows);
            let range = labels.start as usize..labels.end as usize;
            self.targets.extend_from_slice(&example.ids[range]);
        }
    }
}

/// Cuts an epoch's order into windows, each of which makes one optimizer step. The last one may be
/// smaller.
pub fn windows(order: &[u32], examples: &Examples, window: Window) -> Vec<Range<usize>> {
    let mut ranges = Vec::new();
    let mut start = 0;
    let mut tokens = 0;
    for (index, &example) in order.iter().enumerate() {
        tokens += examples.get(example as usize).num_inputs();
        let full = match window {
            Window::Examples(count) => index + 1 - start >= count,
            Window::Tokens(count) => tokens >= count,
        };
        if full || index + 1 == order.len() {
            ranges.push(start..index + 1);
            start = index + 1;
            tokens = 0;
        }
    }
    ranges
}

/// Packs the chosen examples into micro-batches of at most `max_tokens` input tokens by best-fit
/// decreasing (an example longer than that gets a micro-batch of its own). Deterministic: ties go
/// to the earlier example and the earlier micro-batch.
pub fn pack(chosen: &[u32], examples: &Examples, max_tokens: usize) -> Vec<MicroBatch> {
    let mut by_length: Vec<u32> = chosen.to_vec();
    by_length.sort_by_key(|&index| std::cmp::Reverse(examples.get(index as usize).num_inputs()));
    let mut batches: Vec<MicroBatch> = Vec::new();
    for index in by_length {
        let example = examples.get(index as usize);
        let fits =
            |batch: &&mut MicroBatch| batch.num_tokens() + example.num_inputs() <= max_tokens;
        let fullest = batches
            .iter_mut()
            .filter(fits)
            .min_by_key(|batch| max_tokens - batch.num_tokens());
        if let Some(batch) = fullest {
            batch.push(example);
        } else {
            let mut batch = MicroBatch::default();
            batch.push(example);
            batches.push(batch);
        }
    }
    batches
}

#[cfg(test)]
mod tests;
