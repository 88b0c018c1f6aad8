//! The engine's step as the kernels want it: sequences that decode first, then those with chunks of prefill.

use cuda::Heads;
use model::gpu::{Step, StepSequence};

use super::prefixes::{Finder, Sharing};
use crate::engine::batch::StepBatch;

/// A step in that order. Reused from step to step.
#[derive(Debug, Default)]
pub(super) struct Ordered {
    token_ids: Vec<u32>,
    positions: Vec<u32>,
    slots: Vec<u32>,
    sequences: Vec<StepSequence>,
    rows: Vec<u32>,
    carried: Vec<(u32, u32)>,
    tiles: Vec<u32>,
    /// Of each token of the engine's step, its place here.
    places: Vec<u32>,
    finder: Finder,
}

impl Ordered {
    /// `word_of`: where the GPU keeps what a row of the step before came to.
    pub(super) fn fill(&mut self, batch: &StepBatch, heads: Heads, word_of: impl Fn(u32) -> u32) {
        for list in [&mut self.token_ids, &mut self.positions, &mut self.slots] {
            list.clear();
        }
        self.sequences.clear();
        self.places.clear();
        self.places.resize(batch.token_ids.len(), 0);
        for decodes in [true, false] {
            let mut start = 0;
            for sequence in &batch.sequences {
                let tokens = start..start + sequence.query_len as usize;
                start = tokens.end;
                if (sequence.query_len == 1) != decodes {
                    continue;
                }
                let first = self.token_ids.len() as u32;
                for (place, at) in self.places[tokens.clone()].iter_mut().zip(first..) {
                    *place = at;
                }
                self.token_ids
                    .extend_from_slice(&batch.token_ids[tokens.clone()]);
                self.positions
                    .extend_from_slice(&batch.positions[tokens.clone()]);
                self.slots.extend_from_slice(&batch.slots[tokens]);
                self.sequences.push(StepSequence {
                    query_len: sequence.query_len,
                    context_len: sequence.context_len,
                    table_start: sequence.block_table_start,
                    table_len: sequence.block_table_len,
                });
            }
        }
        let place = |token: u32| self.places[token as usize];
        self.rows.clear();
        self.rows
            .extend(batch.rows.iter().map(|row| place(row.row)));
        self.carried.clear();
        let carried = batch.carried.iter();
        self.carried
            .extend(carried.map(|carried| (place(carried.token), word_of(carried.row))));
        let lens = self
            .sequences
            .iter()
            .map(|sequence| sequence.query_len as usize);
        let chunks: Vec<usize> = lens.filter(|len| *len != 1).collect();
        self.tiles = cuda::prefill_work(&chunks, heads);
    }

    /// The step that was filled in, with prefixes shared where `sharing` says so.
    pub(super) fn step<'a>(
        &'a mut self,
        batch: &'a StepBatch,
        (heads, sharing): (Heads, Option<Sharing>),
    ) -> cuda::Result<Step<'a>> {
        let decodes = self.sequences.iter().take_while(|it| it.query_len == 1);
        let decodes = &self.sequences[..decodes.count()];
        let prefixes = match sharing {
            Some(sharing) => self
                .finder
                .find(decodes, &batch.block_tables, (heads, sharing))?,
            None => None,
        };
        Ok(Step {
            token_ids: &self.token_ids,
            positions: &self.positions,
            slots: &self.slots,
            sequences: &self.sequences,
            block_tables: &batch.block_tables,
            rows: &self.rows,
            carried: &self.carried,
            tiles: &self.tiles,
            prefixes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::batch::{BatchSequence, Carried, LogitsRow, Purpose};

    /// A chunk of two between two decodes.
    #[test]
    fn decodes_come_first() {
        let sequence = |query_len, block_table_start| BatchSequence {
            query_len,
            context_len: 9,
            block_table_start,
            block_table_len: 1,
        };
        let row = |row, drawing| LogitsRow {
            row,
            drawing,
            position: 9,
            purpose: Purpose::Draw,
        };
        let mut batch = StepBatch::default();
        batch.token_ids = vec![10, 20, 21, 0];
        batch.positions = vec![8, 7, 8, 8];
        batch.slots = vec![1, 2, 3, 4];
        batch.sequences = vec![sequence(1, 0), sequence(2, 1), sequence(1, 2)];
        batch.block_tables = vec![5, 6, 7];
        batch.rows = vec![row(0, 0), row(2, 1), row(3, 2)];
        batch.carried = vec![Carried { token: 3, row: 1 }];
        let heads = Heads {
            num_heads: 6,
            num_groups: 2,
            head_dim: 64,
        };
        let mut ordered = Ordered::default();
        for _ in 0..2 {
            ordered.fill(&batch, heads, |row| 10 + row);
            let step = ordered.step(&batch, (heads, None)).unwrap();
            assert_eq!(step.token_ids, [10, 0, 20, 21]);
            assert_eq!(step.slots, [1, 4, 2, 3]);
            assert_eq!(step.rows, [0, 3, 1]);
            assert_eq!(step.carried, [(1, 11)]);
            assert_eq!(step.tiles, [0, 0]);
            let starts: Vec<u32> = step.sequences.iter().map(|it| it.table_start).collect();
            assert_eq!(starts, [0, 2, 1]);
            assert_eq!(step.shape(1).num_decodes, 2);
        }
    }
}
