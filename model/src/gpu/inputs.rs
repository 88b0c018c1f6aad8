//! What a step brings to the GPU: one array of numbers, copied at once, in sections whose places follow from
//! the step's sizes. A graph is recorded for one set of sizes; a step with fewer tokens is padded to them.

use std::ops::Range;

use cuda::{CudaSlice, CudaView, Device, SharedPrefixes};

use crate::error::Result;

/// How many of everything a step's buffers are laid out for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StepShape {
    /// T.
    pub num_tokens: usize,
    /// S. The first of them decode, the others have chunks of prefill.
    pub num_sequences: usize,
    /// How many of the sequences decode: one token each.
    pub num_decodes: usize,
    /// R.
    pub num_rows: usize,
    /// Blocks in each sequence's table.
    pub table_len: usize,
    /// Pieces that attention over the chunks of prefill is cut into.
    pub num_tiles: usize,
    /// Pieces of attention to prefixes that decodes have in common; 0: each reads all of its own keys.
    pub num_prefix_tiles: usize,
}

/// A step to be computed, without padding.
#[derive(Debug, Clone, Copy, Default)]
pub struct Step<'a> {
    /// `[T]`
    pub token_ids: &'a [u32],
    /// `[T]`
    pub positions: &'a [u32],
    /// `[T]`
    pub slots: &'a [u32],
    /// Those that decode come first.
    pub sequences: &'a [StepSequence],
    /// The block tables, one after the other.
    pub block_tables: &'a [u32],
    /// `[R]`
    pub rows: &'a [u32],
    /// (token, word): `token_ids[token]` is this word of what the step before came to.
    pub carried: &'a [(u32, u32)],
    /// What attention over the chunks is cut into: [`cuda::prefill_work`] of those that do not decode.
    pub tiles: &'a [u32],
    /// What those that decode have in common, to be read once.
    pub prefixes: Option<&'a SharedPrefixes>,
}

/// One sequence of a [`Step`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepSequence {
    pub query_len: u32,
    /// Tokens in the cache after the step.
    pub context_len: u32,
    /// Its part of the block tables.
    pub table_start: u32,
    pub table_len: u32,
}

/// Marks a token whose key and value go nowhere, and a carried token that is none.
pub const NOWHERE: u32 = u32::MAX;

/// The parts of the array, on the GPU.
#[derive(Debug)]
pub struct Inputs<'a> {
    pub(super) shape: StepShape,
    pub(super) token_ids: CudaView<'a, u32>,
    pub(super) positions: CudaView<'a, u32>,
    pub(super) slots: CudaView<'a, u32>,
    pub(super) query_starts: CudaView<'a, u32>,
    pub(super) context_lens: CudaView<'a, u32>,
    pub(super) rows: CudaView<'a, u32>,
    pub(super) block_tables: CudaView<'a, u32>,
    pub(super) tiles: CudaView<'a, u32>,
    /// As in [`SharedPrefixes`]; all empty where nothing is shared.
    pub(super) prefix_lens: CudaView<'a, u32>,
    pub(super) prefix_work: CudaView<'a, u32>,
    pub(super) prefix_members: CudaView<'a, u32>,
}

/// Where each part lies in the array.
#[derive(Debug, Clone)]
struct Sections {
    token_ids: Range<usize>,
    positions: Range<usize>,
    slots: Range<usize>,
    /// S + 1
    query_starts: Range<usize>,
    context_lens: Range<usize>,
    rows: Range<usize>,
    /// 2 T: pairs.
    carried: Range<usize>,
    /// 2 `num_tiles`: pairs of a sequence, counted from the first that does not decode, and a tile.
    tiles: Range<usize>,
    /// S · `table_len`
    block_tables: Range<usize>,
    /// One for each sequence that decodes, where prefixes are shared.
    prefix_lens: Range<usize>,
    /// 4 `num_prefix_tiles`
    prefix_work: Range<usize>,
    /// As many as `prefix_lens`.
    prefix_members: Range<usize>,
    len: usize,
}

impl StepShape {
    /// Sections begin at multiples of 16 bytes.
    fn sections(&self) -> Sections {
        let mut len = 0_usize;
        let num_sharing = match self.num_prefix_tiles {
            0 => 0,
            _ => self.num_decodes,
        };
        let mut take = |count: usize| {
            let start = len.next_multiple_of(4);
            len = start + count;
            start..len
        };
        Sections {
            token_ids: take(self.num_tokens),
            positions: take(self.num_tokens),
            slots: take(self.num_tokens),
            query_starts: take(self.num_sequences + 1),
            context_lens: take(self.num_sequences),
            rows: take(self.num_rows),
            carried: take(2 * self.num_tokens),
            tiles: take(2 * self.num_tiles),
            block_tables: take(self.num_sequences * self.table_len),
            prefix_lens: take(num_sharing),
            prefix_work: take(4 * self.num_prefix_tiles),
            prefix_members: take(num_sharing),
            len,
        }
    }

    /// Numbers in the array.
    pub fn len(&self) -> usize {
        self.sections().len
    }

    /// Puts carried tokens into their places in the array, and says where its parts are. `sampled`: what the step
    /// before came to.
    pub fn inputs<'a>(
        &self,
        device: &Device,
        array: &'a mut CudaSlice<u32>,
        sampled: &CudaView<'_, u32>,
    ) -> Result<Inputs<'a>> {
        let sections = self.sections();
        let (mut front, back) = array.split_at_mut(sections.carried.start);
        let pairs = back.slice(..sections.carried.len());
        let mut token_ids = front.slice_mut(sections.token_ids.clone());
        cuda::carry_tokens(device, sampled, &pairs, &mut token_ids)?;
        let part = |range: Range<usize>| array.slice(range);
        Ok(Inputs {
            shape: *self,
            token_ids: part(sections.token_ids),
            positions: part(sections.positions),
            slots: part(sections.slots),
            query_starts: part(sections.query_starts),
            context_lens: part(sections.context_lens),
            rows: part(sections.rows),
            block_tables: part(sections.block_tables),
            tiles: part(sections.tiles),
            prefix_lens: part(sections.prefix_lens),
            prefix_work: part(sections.prefix_work),
            prefix_members: part(sections.prefix_members),
        })
    }

    pub fn is_empty(&self) -> bool {
        self.num_tokens == 0
    }
}

impl Step<'_> {
    /// The sizes of this step itself, with tables of `table_len` blocks.
    pub fn shape(&self, table_len: usize) -> StepShape {
        let is_decode = |sequence: &&StepSequence| sequence.query_len == 1;
        StepShape {
            num_tokens: self.token_ids.len(),
            num_sequences: self.sequences.len(),
            num_decodes: self.sequences.iter().take_while(is_decode).count(),
            num_rows: self.rows.len(),
            table_len,
            num_tiles: self.tiles.len() / 2,
            num_prefix_tiles: self.prefixes.map_or(0, |shared| shared.work.len() / 4),
        }
    }

    /// The longest of the tables.
    pub fn longest_table(&self) -> usize {
        let lens = self.sequences.iter().map(|sequence| sequence.table_len);
        lens.max().unwrap_or(0) as usize
    }

    /// Writes the step as one array for `shape`, which has room for it. Padding is sequences of one token that
    /// have no context, and rows that repeat the first.
    pub fn fill(&self, shape: StepShape, array: &mut [u32]) {
        let sections = shape.sections();
        let padded = |array: &mut [u32], range: &Range<usize>, values: &[u32], padding: u32| {
            let (used, rest) = array[range.clone()].split_at_mut(values.len());
            used.copy_from_slice(values);
            rest.fill(padding);
        };
        padded(array, &sections.token_ids, self.token_ids, 0);
        padded(array, &sections.positions, self.positions, 0);
        padded(array, &sections.slots, self.slots, NOWHERE);
        padded(array, &sections.rows, self.rows, 0);
        let carried = self.carried.iter().flat_map(|&(token, row)| [token, row]);
        let mut carried = carried.chain(std::iter::repeat(NOWHERE));
        array[sections.carried].fill_with(|| carried.next().unwrap_or(NOWHERE));

        padded(array, &sections.tiles, self.tiles, NOWHERE);
        if let Some(shared) = self.prefixes {
            padded(array, &sections.prefix_lens, &shared.prefix_len, 0);
            padded(array, &sections.prefix_work, &shared.work, 0);
            padded(array, &sections.prefix_members, &shared.members, 0);
        } else {
            array[sections.prefix_lens].fill(0);
            array[sections.prefix_work].fill(0);
        }

        let mut start = 0;
        let starts = &mut array[sections.query_starts];
        for (index, at) in starts.iter_mut().enumerate() {
            *at = start;
            start += self
                .sequences
                .get(index)
                .map_or(1, |sequence| sequence.query_len);
        }
        let contexts = &mut array[sections.context_lens];
        contexts.fill(0);
        for (at, sequence) in contexts.iter_mut().zip(self.sequences) {
            *at = sequence.context_len;
        }
        if shape.table_len == 0 {
            return;
        }
        let tables = array[sections.block_tables].chunks_exact_mut(shape.table_len);
        for (to, sequence) in tables.zip(self.sequences) {
            let first = sequence.table_start as usize;
            let table = &self.block_tables[first..first + sequence.table_len as usize];
            to[..table.len()].copy_from_slice(table);
            to[table.len()..].fill(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two decodes and a chunk of three, padded to four sequences and seven tokens.
    #[test]
    fn a_step_is_padded_to_its_shape() {
        let sequence = |query_len, context_len, table_start, table_len| StepSequence {
            query_len,
            context_len,
            table_start,
            table_len,
        };
        let step = Step {
            token_ids: &[7, 8, 1, 2, 3],
            positions: &[4, 9, 0, 1, 2],
            slots: &[20, 41, 60, 61, 62],
            sequences: &[
                sequence(1, 5, 0, 1),
                sequence(1, 10, 1, 2),
                sequence(3, 3, 3, 1),
            ],
            block_tables: &[5, 9, 10, 15],
            rows: &[0, 1, 4],
            carried: &[(1, 0)],
            tiles: &[0, 1, 0, 0],
            prefixes: None,
        };
        let own = step.shape(step.longest_table());
        assert_eq!((own.num_decodes, own.table_len, own.num_rows), (2, 2, 3));
        assert_eq!(own.num_tiles, 2);
        let shape = StepShape {
            num_tokens: 7,
            num_sequences: 4,
            num_rows: 4,
            ..own
        };
        let mut array = vec![99; shape.len()];
        step.fill(shape, &mut array);
        let sections = shape.sections();
        assert_eq!(array[sections.token_ids], [7, 8, 1, 2, 3, 0, 0]);
        let slots = [20, 41, 60, 61, 62, NOWHERE, NOWHERE];
        assert_eq!(array[sections.slots], slots);
        assert_eq!(array[sections.query_starts], [0, 1, 2, 5, 6]);
        assert_eq!(array[sections.context_lens], [5, 10, 3, 0]);
        let tables = sections.block_tables;
        let used = tables.start..tables.start + 6;
        assert_eq!(array[used], [5, 0, 9, 10, 15, 0]);
        assert_eq!(array[sections.rows], [0, 1, 4, 0]);
        assert_eq!(array[sections.tiles], [0, 1, 0, 0]);
        assert_eq!(array[sections.carried][..4], [1, 0, NOWHERE, NOWHERE]);
        assert!(sections.prefix_lens.is_empty() && sections.prefix_work.is_empty());
    }

    /// Three decodes, two of which share 16 tokens, in the places of a graph for four with two tiles.
    #[test]
    fn shared_prefixes_are_padded() {
        let heads = cuda::Heads {
            num_heads: 3,
            num_groups: 1,
            head_dim: 64,
        };
        let mut prefixes = SharedPrefixes::new(3);
        prefixes.share(&[0, 2], 16, &[0, 1, 2, 3], heads).unwrap();
        let sequence = StepSequence {
            query_len: 1,
            context_len: 20,
            table_start: 0,
            table_len: 0,
        };
        let step = Step {
            token_ids: &[1, 2, 3],
            positions: &[19; 3],
            slots: &[1, 2, 3],
            sequences: &[sequence; 3],
            prefixes: Some(&prefixes),
            ..Step::default()
        };
        assert_eq!(step.shape(0).num_prefix_tiles, 1);
        let shape = StepShape {
            num_sequences: 4,
            num_decodes: 4,
            num_prefix_tiles: 2,
            ..step.shape(0)
        };
        let mut array = vec![99; shape.len()];
        step.fill(shape, &mut array);
        let sections = shape.sections();
        assert_eq!(array[sections.prefix_lens], [16, 0, 16, 0]);
        assert_eq!(array[sections.prefix_work], [0, 2, 0, 16, 0, 0, 0, 0]);
        assert_eq!(array[sections.prefix_members][..2], [0, 2]);
    }
}
