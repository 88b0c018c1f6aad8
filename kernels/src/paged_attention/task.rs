//! One task of attention: the scores of its rows, softmax, and the weighted sum of values.
#![expect(unsafe_code, reason = "loops over lines through pointers")]
#![expect(
    non_snake_case,
    reason = "dimensions have the names of the shape letters"
)]

use pulp::{Arch, Simd, WithSimd};

use super::{AttentionPlan, QueryRows, Sequence, Task};
use crate::crew::Shareable;
use crate::kv_cache::{BlockLines, KvFormat};
use crate::simd::{exp_shifted, max};
use crate::step::{Isa, Line, Mix, Step, bf16_pair, part, portable};

/// Rows that sum up values together at most: 24 sums for 64 values of each.
const MAX_MIX_ROWS: usize = 6;
/// Keys whose scores are computed in one go at most; the scores of a row have room for as many more.
const MAX_KEYS: usize = 64;

/// A call's operands.
pub(super) struct Call<'a> {
    pub(super) plan: &'a AttentionPlan,
    pub(super) q: QueryRows<'a>,
    pub(super) k: &'a [Line],
    pub(super) v: &'a [Line],
    pub(super) lines: BlockLines,
    /// [T, H, D]
    pub(super) out: Shareable<f32>,
}

/// The rows of a task: for each of its queries, all its heads.
pub(super) struct Rows<'a> {
    pub(super) sequence: &'a Sequence,
    pub(super) task: &'a Task,
    /// [row][word]: the queries as words, scaled.
    pub(super) q: Vec<u32>,
    /// [row][position], rows `stride` apart: scores, then exponentials.
    pub(super) scores: Vec<f32>,
    pub(super) stride: usize,
    /// One over the sum of a row's exponentials.
    pub(super) factors: Vec<f32>,
}

impl Rows<'_> {
    fn len(&self) -> usize {
        self.task.queries.len() * self.task.heads.len()
    }

    /// Keys that a row sees.
    pub(super) fn seen(&self, row: usize) -> usize {
        let query = self.task.queries.start + row / self.task.heads.len();
        self.sequence.seen_by(query)
    }

    /// Keys that the last row sees: all that are needed.
    pub(super) fn longest(&self) -> usize {
        self.seen(self.len() - 1)
    }
}

impl Call<'_> {
    /// # Safety
    /// Nobody else may access the task's part of the output during the call; the machine must have
    /// the instruction set.
    pub(super) unsafe fn run(&self, task: &Task, isa: Isa) {
        let mut rows = self.rows(task);
        // SAFETY: the caller's promise is passed on.
        unsafe {
            match isa {
                #[cfg(target_arch = "x86_64")]
                Isa::Avx512(has) => match self.plan.shape.format {
                    KvFormat::F32 => avx512::f32(self, &mut rows),
                    KvFormat::Bf16 if has.bf16 => avx512::bf16(self, &mut rows),
                    KvFormat::Bf16 => avx512::widened(self, &mut rows),
                },
                Isa::Portable => Arch::new().dispatch(Portable {
                    call: self,
                    rows: &mut rows,
                }),
            }
        }
    }

    fn rows<'a>(&'a self, task: &'a Task) -> Rows<'a> {
        let (D, num_words) = (self.plan.shape.head_dim, self.lines.key);
        let sequence = &self.plan.sequences[task.sequence];
        let scale = 1.0 / (D as f32).sqrt();
        let num_rows = task.queries.len() * task.heads.len();
        let mut q = Vec::with_capacity(num_rows * num_words);
        for query in task.queries.clone() {
            let row = &self.q.values[(sequence.first_row + query) * self.q.row_len..];
            for head in row[task.heads.start * D..task.heads.end * D].chunks_exact(D) {
                match self.plan.shape.format {
                    KvFormat::F32 => q.extend(head.iter().map(|x| (x * scale).to_bits())),
                    KvFormat::Bf16 => q.extend(head.chunks(2).map(|pair| {
                        let high = pair.get(1).copied().unwrap_or(0.0);
                        bf16_pair(pair[0] * scale, high * scale)
                    })),
                }
            }
        }
        let longest = sequence.seen_by(task.queries.end - 1);
        let stride = longest.next_multiple_of(16) + MAX_KEYS;
        Rows {
            sequence,
            task,
            q,
            scores: vec![0.0; num_rows * stride],
            stride,
            factors: vec![0.0; num_rows],
        }
    }

    /// # Safety
    /// As [`Call::run`], inside a function compiled for the instructions of both.
    #[inline(always)]
    unsafe fn attend<K: Step, V: Mix>(
        &self,
        (key, value): (K, V),
        rows: &mut Rows<'_>,
        max_rows: usize,
    ) {
        let num_rows = rows.len();
        let num_parts = num_rows.div_ceil(max_rows);
        // SAFETY: the caller's promise is passed on.
        unsafe {
            for index in 0..num_parts {
                let some = part(num_rows, num_parts, index);
                self.scores(key, rows, (some.start, some.len()));
            }
        }
        for row in 0..num_rows {
            let seen = rows.seen(row);
            let scores = &mut rows.scores[row * rows.stride..][..seen];
            rows.factors[row] = 1.0 / Arch::new().dispatch(Exponentials { scores });
        }
        let mut row = 0;
        while row < num_rows {
            let count = (num_rows - row).min(max_rows).min(MAX_MIX_ROWS);
            // SAFETY: as above.
            row += unsafe { self.mix_rows(value, rows, (row, count)) };
        }
    }
}

/// Turns scores into exponentials, the largest score's being one; returns their sum.
struct Exponentials<'a> {
    scores: &'a mut [f32],
}

impl WithSimd for Exponentials<'_> {
    type Output = f32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f32 {
        let largest = max(simd, self.scores);
        exp_shifted(simd, self.scores, (1.0, largest))
    }
}

/// A task in plain loops. Whoever makes one promises what [`Call::run`] asks for.
struct Portable<'a, 'b> {
    call: &'a Call<'a>,
    rows: &'a mut Rows<'b>,
}

impl WithSimd for Portable<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { call, rows } = self;
        let (f32, bf16) = (portable::F32(simd), portable::Bf16(simd));
        // SAFETY: the promise of our maker; these steps ask for no instructions.
        unsafe {
            match call.plan.shape.format {
                KvFormat::F32 => call.attend((f32, f32), rows, portable::MAX_ROWS),
                KvFormat::Bf16 => call.attend((bf16, bf16), rows, portable::MAX_ROWS),
            }
        }
    }
}

/// Tasks compiled for AVX-512.
#[cfg(target_arch = "x86_64")]
mod avx512 {
    use super::{Call, Rows};
    use crate::step::avx512::{F32, MAX_ROWS, NativeBf16, WidenedBf16};

    /// # Safety
    /// As [`Call::run`].
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn f32(call: &Call<'_>, rows: &mut Rows<'_>) {
        // SAFETY: the caller's promise.
        unsafe { call.attend((F32, F32), rows, MAX_ROWS) };
    }

    /// # Safety
    /// As [`Call::run`].
    #[target_feature(enable = "avx512f,avx512bf16")]
    pub(super) unsafe fn bf16(call: &Call<'_>, rows: &mut Rows<'_>) {
        // SAFETY: the caller's promise.
        unsafe { call.attend((NativeBf16, WidenedBf16), rows, MAX_ROWS) };
    }

    /// # Safety
    /// As [`Call::run`].
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn widened(call: &Call<'_>, rows: &mut Rows<'_>) {
        // SAFETY: the caller's promise.
        unsafe { call.attend((WidenedBf16, WidenedBf16), rows, MAX_ROWS) };
    }
}
