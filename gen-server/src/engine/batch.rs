//! A schedule, flattened into arrays once per step; everything after is tensors.

use std::{ops::Range, sync::Arc};

use super::sequence::Sequence;
use crate::request::{Sampling, Stopping};

/// The tokens of one step, packed: chunk after chunk, without padding. T tokens, S sequences, R rows
/// of logits.
#[derive(Debug, Default, Clone)]
pub(crate) struct StepBatch {
    /// `[T]`; 0 where the token is carried.
    pub token_ids: Vec<u32>,
    /// Tokens that the step before this one is still drawing, in the order of the tokens.
    pub carried: Vec<Carried>,
    /// `[T]` place of the token in its sequence.
    pub positions: Vec<u32>,
    /// `[T]` where in the KV cache the token's keys and values go: block × block size + offset.
    pub slots: Vec<u32>,
    /// `[S]`
    pub sequences: Vec<BatchSequence>,
    /// The block tables, one after the other.
    pub block_tables: Vec<u32>,
    /// `[R]` the rows whose logits are wanted, in the order of the sequences.
    pub rows: Vec<LogitsRow>,
    /// How their tokens are drawn, for the sequences that have rows.
    pub drawings: Vec<Drawing>,
    /// Tokens that penalties look at, sequence after sequence.
    history: Vec<u32>,
}

/// A token that is not known yet: `token_ids[token]` is what row `row` of the step before this one
/// comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Carried {
    pub token: u32,
    pub row: u32,
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

/// One row of logits and what it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LogitsRow {
    /// Which of the T tokens it belongs to.
    pub row: u32,
    /// Which of `drawings` it follows.
    pub drawing: u32,
    /// Place in its sequence of the token that it predicts: the counter of the random numbers.
    pub position: u64,
    pub purpose: Purpose,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To draw a token.
    Draw,
    /// To tell how likely this token was.
    Score(u32),
}

/// How tokens of one sequence are drawn.
#[derive(Debug, Clone)]
pub(crate) struct Drawing {
    pub sampling: Arc<Sampling>,
    pub stopping: Arc<Stopping>,
    /// `Some(k)`: with log probabilities, and those of the k most likely tokens.
    pub num_candidates: Option<u32>,
    pub num_prompt_tokens: usize,
    /// Its part of the batch's history; empty where no penalty looks at it.
    pub history: Range<usize>,
}

impl StepBatch {
    pub(crate) fn clear(&mut self) {
        self.token_ids.clear();
        self.carried.clear();
        self.positions.clear();
        self.slots.clear();
        self.sequences.clear();
        self.block_tables.clear();
        self.rows.clear();
        self.drawings.clear();
        self.history.clear();
    }

    /// Appends the scheduled part of `sequence`.
    pub(crate) fn push(&mut self, sequence: &Sequence, block_size: usize) {
        let first = sequence.next_place();
        let end = first + sequence.num_scheduled_tokens;
        let first_row = self.token_ids.len();
        self.token_ids
            .extend_from_slice(sequence.scheduled_known_tokens());
        if let Some(row) = sequence.scheduled_carry() {
            let token = self.token_ids.len() as u32;
            self.carried.push(Carried { token, row });
            self.token_ids.push(0);
        }
        self.token_ids.extend_from_slice(&sequence.drafts);
        assert_eq!(
            self.token_ids.len() - first_row,
            sequence.num_scheduled_tokens,
            "{}: every scheduled token is known, carried or guessed",
            sequence.id
        );
        for position in first..end {
            let block = sequence.block_table[position / block_size];
            self.positions.push(position as u32);
            self.slots
                .push(block.0 * block_size as u32 + (position % block_size) as u32);
        }
        let num_blocks = end.div_ceil(block_size);
        self.sequences.push(BatchSequence {
            query_len: sequence.num_scheduled_tokens as u32,
            context_len: end as u32,
            block_table_start: self.block_tables.len() as u32,
            block_table_len: num_blocks as u32,
        });
        let blocks = sequence.block_table[..num_blocks].iter();
        self.block_tables.extend(blocks.map(|block| block.0));
        self.push_rows(sequence, first_row);
    }

    /// A row for every computed token from the first on whose logits are wanted.
    fn push_rows(&mut self, sequence: &Sequence, first_row: usize) {
        let first = sequence.next_place();
        let places = sequence.logits_places(sequence.num_scheduled_tokens);
        if places.is_empty() {
            return;
        }
        for place in places {
            let purpose = if sequence.is_score() {
                Purpose::Score(sequence.tokens()[place + 1])
            } else {
                Purpose::Draw
            };
            self.rows.push(LogitsRow {
                row: (first_row + place - first) as u32,
                drawing: self.drawings.len() as u32,
                position: place as u64 + 1,
                purpose,
            });
        }
        let start = self.history.len();
        if sequence.sampling.has_penalties() {
            assert!(
                sequence.knows_its_tokens(),
                "{}: penalties look at every token",
                sequence.id
            );
            self.history.extend_from_slice(sequence.tokens());
            self.history.extend_from_slice(&sequence.drafts);
        }
        self.drawings.push(Drawing {
            sampling: Arc::clone(&sequence.sampling),
            stopping: Arc::clone(&sequence.stopping),
            num_candidates: sequence.num_candidates,
            num_prompt_tokens: sequence.num_prompt_tokens,
            history: start..self.history.len(),
        });
    }

    /// The block table of one of `sequences`.
    pub(crate) fn block_table(&self, sequence: &BatchSequence) -> &[u32] {
        let start = sequence.block_table_start as usize;
        &self.block_tables[start..start + sequence.block_table_len as usize]
    }

    /// The tokens before the one that `row` predicts; empty where no penalty looks at them.
    pub(crate) fn history(&self, row: &LogitsRow) -> &[u32] {
        let tokens = &self.history[self.drawings[row.drawing as usize].history.clone()];
        &tokens[..tokens.len().min(row.position as usize)]
    }
}
