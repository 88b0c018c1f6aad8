//! The outputs of a task: values, weighted by the exponentials of the scores and summed up.
#![expect(unsafe_code, reason = "loops over lines through pointers")]
#![expect(
    non_snake_case,
    reason = "dimensions have the names of the shape letters"
)]

use super::task::{Call, Rows};
use crate::step::Mix;

impl Call<'_> {
    /// The outputs of some rows, at most `count`; returns how many.
    ///
    /// # Safety
    /// As [`Call::attend`].
    #[inline(always)]
    pub(super) unsafe fn mix_rows<V: Mix>(
        &self,
        value: V,
        rows: &Rows<'_>,
        (row, count): (usize, usize),
    ) -> usize {
        // SAFETY: the caller's promise is passed on.
        unsafe {
            match count {
                1 => self.mix_lines::<V, 1>(value, rows, row),
                2 => self.mix_lines::<V, 2>(value, rows, row),
                3 => self.mix_lines::<V, 3>(value, rows, row),
                4 | 5 => self.mix_lines::<V, 4>(value, rows, row),
                _ => self.mix_lines::<V, 6>(value, rows, row),
            }
        }
    }

    /// # Safety
    /// As [`Call::attend`].
    #[inline(always)]
    unsafe fn mix_lines<V: Mix, const R: usize>(
        &self,
        value: V,
        rows: &Rows<'_>,
        row: usize,
    ) -> usize {
        let num_lines = self.lines.value;
        let mut line = 0;
        while line < num_lines {
            // SAFETY: the caller's promise is passed on.
            unsafe {
                line += match num_lines - line {
                    1 => self.mix::<V, R, 1>(value, rows, (row, line)),
                    2 | 3 => self.mix::<V, R, 2>(value, rows, (row, line)),
                    _ if V::VALUES > 16 => self.mix::<V, R, 2>(value, rows, (row, line)),
                    _ => self.mix::<V, R, 4>(value, rows, (row, line)),
                }
            }
        }
        R
    }

    /// L lines of the outputs of R rows. Returns L.
    ///
    /// # Safety
    /// As [`Call::attend`].
    #[inline(always)]
    unsafe fn mix<V: Mix, const R: usize, const L: usize>(
        &self,
        value: V,
        rows: &Rows<'_>,
        (row, line): (usize, usize),
    ) -> usize {
        let B = self.plan.shape.block_size;
        let weights: [&[f32]; R] =
            std::array::from_fn(|r| &rows.scores[(row + r) * rows.stride..][..rows.seen(row + r)]);
        // The lines of a block's slots from `line` on.
        let block_lines = |index: usize| {
            let block = rows.sequence.blocks[index] as usize;
            let tile = block * self.plan.shape.num_kv_heads + rows.task.kv_head;
            self.v[tile * self.lines.values..][..self.lines.values]
                .as_ptr()
                .wrapping_add(line)
        };
        let common = weights[0].len(); // what all rows see: the first sees least
        // SAFETY: slots are below B and positions below the lengths of `weights`.
        unsafe {
            let mut sums = [[value.zero(); L]; R];
            for first in (0..common).step_by(B) {
                let lines = block_lines(first / B);
                for position in first..common.min(first + B) {
                    let slot = lines.add((position - first) * self.lines.value);
                    let v: [V::V; L] = std::array::from_fn(
                        #[inline(always)]
                        |l| value.values(slot.add(l)),
                    );
                    for r in 0..R {
                        let weight = value.weight(weights[r].as_ptr().add(position));
                        for l in 0..L {
                            sums[r][l] = value.mix(sums[r][l], v[l], weight);
                        }
                    }
                }
            }
            for r in 0..R {
                for position in common..weights[r].len() {
                    let slot = block_lines(position / B).add(position % B * self.lines.value);
                    let weight = value.weight(weights[r].as_ptr().add(position));
                    for (l, sums) in sums[r].iter_mut().enumerate() {
                        *sums = value.mix(*sums, value.values(slot.add(l)), weight);
                    }
                }
                self.put(value, rows, (row + r, line), sums[r]);
            }
        }
        L
    }

    /// Writes a row's values from a line on.
    ///
    /// # Safety
    /// As [`Call::attend`].
    #[inline(always)]
    unsafe fn put<V: Mix, const L: usize>(
        &self,
        value: V,
        rows: &Rows<'_>,
        (row, line): (usize, usize),
        sums: [V::Sums; L],
    ) {
        let (D, num_heads) = (self.plan.shape.head_dim, rows.task.heads.len());
        let query = rows.sequence.first_row + rows.task.queries.start + row / num_heads;
        let head = rows.task.heads.start + row % num_heads;
        let out = (query * self.plan.num_heads + head) * D;
        for (l, sums) in sums.into_iter().enumerate() {
            let first = (line + l) * V::VALUES;
            // SAFETY: `len` values of the row's head, which is the task's own.
            unsafe {
                let out = self.out.get().add(out + first);
                value.finish(sums, rows.factors[row], out, (D - first).min(V::VALUES));
            }
        }
    }
}
