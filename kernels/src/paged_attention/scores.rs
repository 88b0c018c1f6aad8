//! The scores of a task: queries by keys, sixteen keys at a time.
#![expect(unsafe_code, reason = "loops over lines through pointers")]
#![expect(
    non_snake_case,
    reason = "dimensions have the names of the shape letters"
)]

use super::task::{Call, Rows};
use crate::step::{Line, Output, Place, RowGroup, Step, prefetch};

/// Sixteens of keys that are computed at once where there are few rows.
const FEW_ROWS_SIXTEENS: usize = 4;

impl Call<'_> {
    /// The scores of some rows at all keys that the longest sees. Beyond a row's own keys they mean
    /// nothing.
    ///
    /// # Safety
    /// As [`Call::attend`].
    #[inline(always)]
    pub(super) unsafe fn scores<K: Step>(
        &self,
        key: K,
        rows: &mut Rows<'_>,
        (row, count): (usize, usize),
    ) {
        // SAFETY: the caller's promise is passed on.
        unsafe {
            match count {
                1 => self.score_rows::<K, 1, FEW_ROWS_SIXTEENS>(key, rows, row),
                2 => self.score_rows::<K, 2, FEW_ROWS_SIXTEENS>(key, rows, row),
                3 => self.score_rows::<K, 3, FEW_ROWS_SIXTEENS>(key, rows, row),
                4 => self.score_rows::<K, 4, FEW_ROWS_SIXTEENS>(key, rows, row),
                5 => self.score_rows::<K, 5, 2>(key, rows, row),
                6 => self.score_rows::<K, 6, 2>(key, rows, row),
                7 => self.score_rows::<K, 7, 2>(key, rows, row),
                8 => self.score_rows::<K, 8, 2>(key, rows, row),
                9 => self.score_rows::<K, 9, 2>(key, rows, row),
                10 => self.score_rows::<K, 10, 2>(key, rows, row),
                11 => self.score_rows::<K, 11, 2>(key, rows, row),
                _ => self.score_rows::<K, 12, 2>(key, rows, row),
            }
        }
    }

    /// R rows, L times sixteen keys at a time.
    ///
    /// # Safety
    /// As [`Call::attend`].
    #[inline(always)]
    unsafe fn score_rows<K: Step, const R: usize, const L: usize>(
        &self,
        key: K,
        rows: &mut Rows<'_>,
        row: usize,
    ) {
        let B = self.plan.shape.block_size;
        let (num_words, per_block) = (self.lines.key, B.div_ceil(16));
        let longest = rows.longest();
        let num_sixteens = longest / B * per_block + (longest % B).div_ceil(16);
        let q: [*const u32; R] =
            std::array::from_fn(|r| rows.q[(row + r) * num_words..][..num_words].as_ptr());
        for first in (0..num_sixteens).step_by(L) {
            // Where keys end within a step, the last ones are computed again.
            let sixteens: [usize; L] = std::array::from_fn(|l| (first + l).min(num_sixteens - 1));
            let lines: [*const Line; L] = sixteens.map(|i| self.keys(rows, i).as_ptr());
            // With few rows memory is what is waited for: ask for the next keys, and for the values
            // of these, which are needed when all scores are there.
            if L == FEW_ROWS_SIXTEENS {
                for (l, i) in sixteens.into_iter().enumerate() {
                    self.prefetch_values(rows, i);
                    self.prefetch_keys(rows, (first + L + l).min(num_sixteens - 1));
                }
            }
            // SAFETY: words are below `num_words`, for which the slices above were checked.
            let chains = unsafe {
                let mut chains = [[key.start(RowGroup::default()); L]; R];
                for word in 0..num_words {
                    let w: [K::W; L] = std::array::from_fn(
                        #[inline(always)]
                        |l| key.line(lines[l].add(word)),
                    );
                    for r in 0..R {
                        let x = key.word(q[r].add(word));
                        for l in 0..L {
                            chains[r][l] = key.step(chains[r][l], w[l], x);
                        }
                    }
                }
                chains
            };
            for (r, chains) in chains.iter().enumerate() {
                for (chain, i) in chains.iter().zip(sixteens) {
                    // Positions rise, so what a block that is not full writes beyond its end is
                    // overwritten by the next, or lies beyond the keys that are seen.
                    let position = i / per_block * B + i % per_block * 16;
                    let start = (row + r) * rows.stride + position;
                    let place = Place {
                        y: rows.scores[start..start + 16].as_mut_ptr(),
                        len: 16,
                        output: Output::Overwrite,
                    };
                    // SAFETY: sixteen scores; keys have no groups.
                    unsafe {
                        let none = (std::ptr::null(), RowGroup::default());
                        key.put(key.close(key.zero(), *chain, none), &place);
                    }
                }
            }
        }
    }

    /// The lines of the `index`-th sixteen keys of a sequence.
    #[inline(always)]
    fn keys(&self, rows: &Rows<'_>, index: usize) -> &[Line] {
        let per_block = self.plan.shape.block_size.div_ceil(16);
        let block = rows.sequence.blocks[index / per_block] as usize;
        let tile = block * self.plan.shape.num_kv_heads + rows.task.kv_head;
        let start = tile * self.lines.keys + index % per_block * self.lines.key;
        &self.k[start..start + self.lines.key]
    }

    #[inline(always)]
    fn prefetch_keys(&self, rows: &Rows<'_>, index: usize) {
        self.keys(rows, index).iter().for_each(prefetch);
    }

    /// The values that belong to the `index`-th sixteen keys.
    #[inline(always)]
    fn prefetch_values(&self, rows: &Rows<'_>, index: usize) {
        let B = self.plan.shape.block_size;
        let per_block = B.div_ceil(16);
        let block = rows.sequence.blocks[index / per_block] as usize;
        let tile = block * self.plan.shape.num_kv_heads + rows.task.kv_head;
        let first = index % per_block * 16;
        let lines = first * self.lines.value..B.min(first + 16) * self.lines.value;
        let values = &self.v[tile * self.lines.values..][..self.lines.values];
        values[lines].iter().for_each(prefetch);
    }
}
