//! What a micro-batch brings to the GPU: one array of numbers, copied at once, in parts.

use std::ops::Range;

use cuda::{CudaSlice, CudaView, Device, document_starts};

use crate::error::Result;
use crate::pack::MicroBatch;

/// A micro-batch in the GPU's memory.
#[derive(Debug)]
pub(super) struct Inputs {
    numbers: CudaSlice<u32>,
    parts: Vec<Range<usize>>,
    /// T.
    pub(super) num_tokens: usize,
    /// L: rows with a label.
    pub(super) num_labels: usize,
}

/// A part of the array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// `[T]`
    TokenIds,
    /// `[T]`
    Positions,
    /// `[T]`: where each token's example begins.
    SegmentOf,
    /// `[N + 1]`: where examples begin and the last ends.
    SegmentBounds,
    /// `[L]`
    LabelRows,
    /// `[L]`
    Targets,
    /// `[T]`: the tokens, those of the same id together.
    ByIdOrder,
    /// `[ids + 1]`: where in that order each id's tokens begin, and the last end.
    ByIdStarts,
}

impl Inputs {
    pub(super) fn new(device: &Device, batch: &MicroBatch) -> Result<Self> {
        let by_id = ById::new(&batch.token_ids);
        let segment_of = document_starts(&batch.segment_bounds);
        let lists: [&[u32]; 8] = [
            &batch.token_ids,
            &batch.positions,
            &segment_of,
            &batch.segment_bounds,
            &batch.label_rows,
            &batch.targets,
            &by_id.order,
            &by_id.starts,
        ];
        let mut numbers = Vec::new();
        let mut parts = Vec::new();
        for list in lists {
            // Vectors of 16 bytes.
            numbers.resize(numbers.len().next_multiple_of(4), 0);
            let start = numbers.len();
            numbers.extend_from_slice(list);
            parts.push(start..numbers.len());
        }
        Ok(Self {
            numbers: device.upload(&numbers)?,
            parts,
            num_tokens: batch.num_tokens(),
            num_labels: batch.num_labels(),
        })
    }

    pub(super) fn part(&self, part: Part) -> CudaView<'_, u32> {
        self.numbers.slice(self.parts[part as usize].clone())
    }

    /// The labels `range` of a part that has one number for each label.
    pub(super) fn labels(&self, part: Part, range: Range<usize>) -> CudaView<'_, u32> {
        let start = self.parts[part as usize].start;
        self.numbers.slice(start + range.start..start + range.end)
    }
}

/// Tokens grouped by their id, so that each row of the embedding's gradient is summed by one hand in a
/// fixed order.
#[derive(Debug, PartialEq, Eq)]
struct ById {
    order: Vec<u32>,
    starts: Vec<u32>,
}

impl ById {
    fn new(token_ids: &[u32]) -> Self {
        let id = |token: &u32| token_ids[*token as usize];
        let mut order: Vec<u32> = (0..token_ids.len() as u32).collect();
        // Stable: the tokens of an id stay in their order.
        order.sort_by_key(id);
        let mut starts: Vec<u32> = Vec::new();
        for (at, token) in order.iter().enumerate() {
            if at == 0 || id(token) != id(&order[at - 1]) {
                starts.push(at as u32);
            }
        }
        starts.push(order.len() as u32);
        Self { order, starts }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each id's tokens in their order, ids rising.
    #[test]
    fn tokens_are_grouped_by_id() {
        let by_id = ById::new(&[7, 2, 7, 5, 2]);
        assert_eq!(by_id.order, [1, 4, 3, 0, 2]);
        assert_eq!(by_id.starts, [0, 2, 3, 5]);
    }
}
