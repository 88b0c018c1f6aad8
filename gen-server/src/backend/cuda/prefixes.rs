//! Which decoding sequences begin with the same blocks of the cache, so that these are read once for all of them
//! ("cascade attention"), and whether that pays.

use cuda::{Heads, SharedPrefixes};
use model::gpu::StepSequence;

/// So many keys that need not be read again pay for what it costs. Llama-3.2-3B has 4 KiB of keys and values a token
/// and layer: 64 MiB, 16 us at 4 TB/s, where the two kernels more, and sums that go through memory, should take about
/// 5 us. By arithmetic: not measured.
const LEAST_SAVED_TOKENS: usize = 1 << 14;

/// What is asked of a prefix that is to be shared.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sharing {
    pub(super) block_size: usize,
    /// In keys that are not read again.
    pub(super) least_saved_tokens: usize,
}

impl Sharing {
    /// Where it pays.
    pub(super) fn auto(block_size: usize) -> Self {
        Self {
            block_size,
            least_saved_tokens: LEAST_SAVED_TOKENS,
        }
    }

    /// Wherever two sequences begin alike.
    pub(super) fn always(block_size: usize) -> Self {
        Self {
            block_size,
            least_saved_tokens: 1,
        }
    }
}

/// Finds prefixes; reused from step to step.
#[derive(Debug, Default)]
pub(super) struct Finder {
    /// Sequences, those with like tables side by side.
    order: Vec<usize>,
    groups: Vec<Group>,
    shared: SharedPrefixes,
    starts: Vec<u32>,
}

/// Sequences that begin with the same blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Group {
    /// Which of the order.
    first: usize,
    end: usize,
    num_blocks: usize,
}

/// Full blocks of each sequence, which are all that it can share.
#[derive(Clone, Copy)]
struct Tables<'a> {
    sequences: &'a [StepSequence],
    /// One after the other.
    blocks: &'a [u32],
    block_size: usize,
}

impl Tables<'_> {
    fn of(&self, sequence: usize) -> &[u32] {
        let StepSequence {
            context_len,
            table_start,
            table_len,
            ..
        } = self.sequences[sequence];
        let num_full = (context_len as usize / self.block_size).min(table_len as usize);
        &self.blocks[table_start as usize..][..num_full]
    }
}

impl Finder {
    /// What `sequences`, all of which decode, have in common; `None` where sharing it does not pay.
    pub(super) fn find(
        &mut self,
        sequences: &[StepSequence],
        blocks: &[u32],
        (heads, sharing): (Heads, Sharing),
    ) -> cuda::Result<Option<&SharedPrefixes>> {
        let tables = Tables {
            sequences,
            blocks,
            block_size: sharing.block_size,
        };
        self.order.clear();
        self.order.extend(0..sequences.len());
        self.order
            .sort_unstable_by(|a, b| tables.of(*a).cmp(tables.of(*b)));
        self.groups.clear();
        let per_read = cuda::prefix_tile_tokens(heads);
        let range = (0, self.order.len());
        let saved = group(&self.order, tables, range, per_read, &mut self.groups);
        if saved * sharing.block_size < sharing.least_saved_tokens {
            return Ok(None);
        }
        self.starts.clear();
        self.starts.extend(0..=sequences.len() as u32);
        self.shared.clear(sequences.len());
        for group in &self.groups {
            let sequences = &self.order[group.first..group.end];
            let prefix_len = group.num_blocks * sharing.block_size;
            self.shared
                .share(sequences, prefix_len, &self.starts, heads)?;
        }
        Ok(Some(&self.shared))
    }
}

/// Finds groups among `order[first..end]`, whose tables are sorted: either all of them by what they have in common,
/// or smaller ones that have more in common, whichever saves more. Returns how many blocks need not be read again
/// if one reading serves `per_read` sequences.
fn group(
    order: &[usize],
    tables: Tables<'_>,
    (first, end): (usize, usize),
    per_read: usize,
    groups: &mut Vec<Group>,
) -> usize {
    let count = end - first;
    if count < 2 {
        return 0;
    }
    let (low, high) = (tables.of(order[first]), tables.of(order[end - 1]));
    let num_blocks = low.iter().zip(high).take_while(|(a, b)| a == b).count();
    let own = (count - count.div_ceil(per_read)) * num_blocks;
    let before = groups.len();
    let mut smaller = 0;
    let mut at = first;
    while at < end {
        let next = tables.of(order[at]).get(num_blocks);
        let alike = order[at..end].iter();
        let alike = alike.take_while(|it| tables.of(**it).get(num_blocks) == next);
        let until = at + alike.count();
        // All alike: these are equal tables, and there is nothing smaller.
        if next.is_some() {
            smaller += group(order, tables, (at, until), per_read, groups);
        }
        at = until;
    }
    if own < smaller.max(1) {
        return smaller;
    }
    groups.truncate(before);
    groups.push(Group {
        first,
        end,
        num_blocks,
    });
    own
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADS: Heads = Heads {
        num_heads: 3,
        num_groups: 1,
        head_dim: 64,
    };

    /// Groups (sequences, tokens) of sequences with these tables, whose last block is not full.
    fn found(tables: &[&[u32]], least_saved_tokens: usize) -> Vec<(Vec<u32>, u32)> {
        let mut start = 0;
        let sequences: Vec<StepSequence> = tables
            .iter()
            .map(|table| {
                start += table.len() as u32;
                StepSequence {
                    query_len: 1,
                    context_len: 16 * table.len() as u32 - 3,
                    table_start: start - table.len() as u32,
                    table_len: table.len() as u32,
                }
            })
            .collect();
        let sharing = Sharing {
            block_size: 16,
            least_saved_tokens,
        };
        let blocks = tables.concat();
        let mut finder = Finder::default();
        let mut find = || {
            let shared = finder.find(&sequences, &blocks, (HEADS, sharing));
            shared.unwrap().map_or_else(Vec::new, groups_of)
        };
        let first = find();
        assert_eq!(find(), first, "what was found before is gone");
        first
    }

    fn groups_of(shared: &SharedPrefixes) -> Vec<(Vec<u32>, u32)> {
        let tiles = shared.work.chunks(4).map(|tile| {
            let members = tile[0] as usize..(tile[0] + tile[1]) as usize;
            let mut members = shared.members[members].to_vec();
            members.sort_unstable();
            for member in &members {
                assert_eq!(shared.prefix_len[*member as usize], tile[3]);
            }
            (members, tile[3])
        });
        tiles.collect()
    }

    #[test]
    fn the_longest_common_beginning_is_shared() {
        let tables: [&[u32]; 4] = [&[7, 8, 1], &[5, 6], &[7, 8, 2], &[7, 8, 3, 4]];
        assert_eq!(found(&tables, 1), [(vec![0, 2, 3], 32)]);
    }

    #[test]
    fn the_block_that_is_not_full_is_no_part_of_it() {
        assert_eq!(found(&[&[7, 8], &[7, 8]], 1), [(vec![0, 1], 16)]);
        assert!(found(&[&[7], &[7]], 1).is_empty());
    }

    /// Two of five have two blocks more in common: all save 4 readings of one block, the two save one reading of 3
    /// blocks.
    #[test]
    fn what_saves_more_is_chosen() {
        let all: [&[u32]; 5] = [
            &[7, 1, 2, 3],
            &[7, 1, 2, 4],
            &[7, 5, 9],
            &[7, 6, 9],
            &[7, 8, 9],
        ];
        assert_eq!(found(&all, 1), [(vec![0, 1, 2, 3, 4], 16)]);
        // Of the first four: 3 either way, and all are taken. Of the first three: 2 against 3.
        assert_eq!(found(&all[..4], 1), [(vec![0, 1, 2, 3], 16)]);
        assert_eq!(found(&all[..3], 1), [(vec![0, 1], 48)]);
    }

    #[test]
    fn groups_stand_side_by_side() {
        let tables: [&[u32]; 4] = [&[7, 8, 1], &[5, 6, 2], &[7, 8, 3], &[5, 6, 4]];
        assert_eq!(found(&tables, 1), [(vec![1, 3], 32), (vec![0, 2], 32)]);
    }

    #[test]
    fn little_is_not_worth_it() {
        let tables: [&[u32]; 2] = [&[7, 8, 1], &[7, 8, 2]];
        assert_eq!(found(&tables, 32).len(), 1);
        assert!(found(&tables, 33).is_empty());
        assert!(found(&[&[1, 2], &[3, 4]], 1).is_empty());
        assert!(found(&[], 1).is_empty());
    }

    /// 21 tokens are read for at once: 45 sequences read three times what they share.
    #[test]
    fn many_sequences_are_several_readings() {
        let tables: Vec<[u32; 2]> = (0..45).map(|own| [7, 100 + own]).collect();
        let tables: Vec<&[u32]> = tables.iter().map(|table| &table[..]).collect();
        let groups = found(&tables, 42 * 16);
        let sizes: Vec<usize> = groups.iter().map(|(members, _)| members.len()).collect();
        assert_eq!(sizes, [21, 21, 3]);
        assert!(found(&tables, 42 * 16 + 1).is_empty());
    }
}
