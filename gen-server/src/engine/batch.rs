//! A schedule, flattened into arrays once per step; everything after is tensors.

use super::{
    scheduler::{Chunk, Limits},
    sequence::Sequence,
};
use crate::request::Sampling;

/// The tokens of one step, packed: chunk after chunk, without padding. T tokens, S sequences.
#[derive(Debug, Default)]
pub(crate) struct StepBatch {
    /// `[T]`
    pub token_ids: Vec<u32>,
    /// `[T]` place of the token in its sequence.
    pub positions: Vec<u32>,
    /// `[T]` where in the KV cache the token's keys and values go: block × block size + offset.
    pub slots: Vec<u32>,
    /// `[S]`
    pub sequences: Vec<BatchSequence>,
    /// The block tables, one after the other.
    pub block_tables: Vec<u32>,
    /// The rows to draw a token from, in the order of the sequences.
    pub samples: Vec<SampleRow>,
}

/// One sequence's share of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BatchSequence {
    /// Tokens computed now.
    pub query_len: u32,
    /// Tokens in the KV cache after the step, these included.
    pub context_len: u32,
    /// Its part of `block_tables`.
    pub block_table_start: u32,
    pub block_table_len: u32,
}

/// One token to be drawn.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct SampleRow {
    /// Which of the T tokens predicts it.
    pub row: u32,
    pub sampling: Sampling,
    /// Place of the new token in its sequence: the counter of the random numbers.
    pub position: u64,
}

impl StepBatch {
    /// Replaces the content by what `chunks` of `running` say.
    pub(crate) fn fill(&mut self, chunks: &[Chunk], running: &[Sequence], limits: &Limits) {
        self.clear();
        for chunk in chunks {
            self.push(&running[chunk.index], chunk.num_tokens, limits.block_size);
        }
    }

    fn clear(&mut self) {
        self.token_ids.clear();
        self.positions.clear();
        self.slots.clear();
        self.sequences.clear();
        self.block_tables.clear();
        self.samples.clear();
    }

    fn push(&mut self, sequence: &Sequence, num_tokens: usize, block_size: usize) {
        let first = sequence.num_computed_tokens;
        let end = first + num_tokens;
        self.token_ids
            .extend_from_slice(sequence.next_tokens(num_tokens));
        for position in first..end {
            let block = sequence.block_table[position / block_size];
            self.positions.push(position as u32);
            self.slots
                .push(block.0 * block_size as u32 + (position % block_size) as u32);
        }
        let num_blocks = end.div_ceil(block_size);
        self.sequences.push(BatchSequence {
            query_len: num_tokens as u32,
            context_len: end as u32,
            block_table_start: self.block_tables.len() as u32,
            block_table_len: num_blocks as u32,
        });
        self.block_tables.extend(
            sequence.block_table[..num_blocks]
                .iter()
                .map(|block| block.0),
        );
        if end == sequence.num_tokens() {
            self.samples.push(SampleRow {
                row: self.token_ids.len() as u32 - 1,
                sampling: sequence.sampling,
                position: end as u64,
            });
        }
    }

    /// The block table of one of `sequences`.
    pub(crate) fn block_table(&self, sequence: &BatchSequence) -> &[u32] {
        let start = sequence.block_table_start as usize;
        &self.block_tables[start..start + sequence.block_table_len as usize]
    }
}
