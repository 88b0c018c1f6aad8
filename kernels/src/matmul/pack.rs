//! Rows of an operand as words in lines: read in any stored type, either way round.
#![expect(unsafe_code, reason = "steps work on vectors; see `step`")]

use std::ops::Range;

use half::bf16;

use super::{Mat, Values};
use crate::matrix::{INT8_GROUP, Int8Matrix};
use crate::step::{Line, Step, part, prefetch_later};

/// Rows that are packed together: the words of a line.
pub(super) const LANES: usize = 16;

/// Making words of values, beside what is done with them.
///
/// # Safety
/// Every method: the machine must have the instructions.
pub(super) trait Pack: Step {
    /// Values in a word.
    const PER_WORD: usize;

    /// Sixteen words of neighbouring values; of the first half where a word is one value.
    unsafe fn along(self, values: &[f32; 2 * LANES]) -> Line;
    /// Sixteen words of values above one another; of the upper ones where a word is one value.
    unsafe fn across(self, upper: &[f32; LANES], lower: &[f32; LANES]) -> Line;
    /// Exchanges lines and lanes.
    unsafe fn transpose(self, lines: &mut [Line; LANES]);
}

/// Rows of stored values, a stride apart.
trait Stored: Copy {
    /// The first `len` of N values from a row and column on, then zeros. Of int8 values the column
    /// is a multiple of N, and N divides a group.
    fn load<const N: usize>(self, stride: usize, at: (usize, usize), len: usize) -> [f32; N];
}

/// Zeros after the values.
#[inline(always)]
fn padded<T: Copy, const N: usize>(values: &[T], to_f32: impl Fn(T) -> f32) -> [f32; N] {
    if let Some(values) = values.first_chunk::<N>() {
        return std::array::from_fn(
            #[inline(always)]
            |i| to_f32(values[i]),
        );
    }
    let mut padded = [0.0; N];
    for (padded, value) in padded.iter_mut().zip(values) {
        *padded = to_f32(*value);
    }
    padded
}

impl Stored for &[f32] {
    #[inline(always)]
    fn load<const N: usize>(self, stride: usize, at: (usize, usize), len: usize) -> [f32; N] {
        padded(&self[at.0 * stride + at.1..][..len], |x| x)
    }
}

impl Stored for &[bf16] {
    #[inline(always)]
    fn load<const N: usize>(self, stride: usize, at: (usize, usize), len: usize) -> [f32; N] {
        padded(&self[at.0 * stride + at.1..][..len], |x| {
            f32::from_bits(u32::from(x.to_bits()) << 16)
        })
    }
}

impl Stored for &Int8Matrix {
    #[inline(always)]
    fn load<const N: usize>(self, stride: usize, at: (usize, usize), len: usize) -> [f32; N] {
        if len == 0 {
            return [0.0; N];
        }
        let group = at.0 * self.num_inputs.div_ceil(INT8_GROUP) + at.1 / INT8_GROUP;
        let scale = self.scales[group];
        padded(&self.values[at.0 * stride + at.1..][..len], |x| {
            f32::from(x) * scale
        })
    }
}

/// Packs up to sixteen rows of `mat`, some of their columns: a line for each word, `stride` lines
/// apart; zeros for columns that are not there, anything for rows that are not (their sums are
/// dropped).
///
/// # Safety
/// Inside a function compiled for `S`'s instructions.
#[inline(always)]
pub(super) unsafe fn pack<S: Pack>(
    step: S,
    mat: &Mat<'_>,
    (rows, columns): (Range<usize>, Range<usize>),
    (lines, stride): (&mut [Line], usize),
) {
    let some = Part {
        row_stride: mat.row_stride,
        num_rows: mat.rows(),
        rows,
        columns,
    };
    let out = (lines, stride);
    // SAFETY: the caller's promise.
    unsafe {
        match (mat.values, mat.is_transposed) {
            (Values::F32(values), false) => some.along(step, values, out),
            (Values::F32(values), true) => some.across(step, values, out),
            (Values::Bf16(values), false) => some.along(step, values, out),
            (Values::Bf16(values), true) => some.across(step, values, out),
            (Values::Int8(values), false) => some.along(step, values, out),
            (Values::Int8(values), true) => some.across(step, values, out),
        }
    }
}

/// Asks for part `index` of `parts` of some rows and columns, which [`pack`] will read.
#[inline(always)]
pub(super) fn prefetch_part(
    mat: &Mat<'_>,
    (rows, columns): (Range<usize>, Range<usize>),
    (index, parts): (usize, usize),
) {
    let (rows, columns) = if mat.is_transposed {
        (columns, rows)
    } else {
        (rows, columns)
    };
    let (base, size) = match mat.values {
        Values::F32(values) => (values.as_ptr().cast::<u8>(), 4),
        Values::Bf16(values) => (values.as_ptr().cast::<u8>(), 2),
        Values::Int8(matrix) => (matrix.values.as_ptr().cast::<u8>(), 1),
    };
    let own = part(rows.len(), parts, index);
    for row in rows.start + own.start..rows.start + own.end {
        let start = row * mat.row_stride;
        let bytes = (start + columns.start) * size..(start + columns.end) * size;
        for offset in bytes.step_by(CACHE_LINE) {
            prefetch_later(base.wrapping_add(offset));
        }
    }
}

const CACHE_LINE: usize = 64;

/// Some rows and columns of a matrix.
struct Part {
    row_stride: usize,
    num_rows: usize,
    rows: Range<usize>,
    columns: Range<usize>,
}

impl Part {
    /// Columns are stored one after another.
    ///
    /// # Safety
    /// As [`pack`].
    #[inline(always)]
    unsafe fn along<S: Pack>(
        self,
        step: S,
        values: impl Stored,
        (lines, stride): (&mut [Line], usize),
    ) {
        let Self {
            row_stride,
            rows,
            columns,
            ..
        } = self;
        let block = LANES * S::PER_WORD;
        let mut out = lines.iter_mut().step_by(stride);
        for column in columns.clone().step_by(block) {
            let len = (columns.end - column).min(block);
            let mut words = [Line([0; LANES]); LANES];
            for (words, row) in words.iter_mut().zip(rows.clone()) {
                // SAFETY: the caller's promise.
                *words = unsafe {
                    if S::PER_WORD == 1 {
                        let values: [f32; LANES] = values.load(row_stride, (row, column), len);
                        let mut pair = [0.0; 2 * LANES];
                        pair[..LANES].copy_from_slice(&values);
                        step.along(&pair)
                    } else {
                        step.along(&values.load(row_stride, (row, column), len))
                    }
                };
            }
            // SAFETY: the caller's promise.
            unsafe { step.transpose(&mut words) };
            for (line, out) in words[..len.div_ceil(S::PER_WORD)].iter().zip(&mut out) {
                *out = *line;
            }
        }
    }

    /// Rows are stored one after another.
    ///
    /// # Safety
    /// As [`pack`].
    #[inline(always)]
    unsafe fn across<S: Pack>(
        self,
        step: S,
        values: impl Stored,
        (lines, stride): (&mut [Line], usize),
    ) {
        let Self {
            row_stride,
            num_rows,
            rows,
            columns,
        } = self;
        // Rows that are not asked for are better than a copy of unknown length.
        let num_loaded = if rows.start + LANES <= num_rows {
            LANES
        } else {
            rows.len()
        };
        let columns_of_words = columns.clone().step_by(S::PER_WORD);
        for (out, column) in lines.iter_mut().step_by(stride).zip(columns_of_words) {
            let load = |column: usize| {
                if column < columns.end {
                    values.load(row_stride, (column, rows.start), num_loaded)
                } else {
                    [0.0; LANES]
                }
            };
            let upper = load(column);
            let lower = if S::PER_WORD == 1 {
                [0.0; LANES]
            } else {
                load(column + 1)
            };
            // SAFETY: the caller's promise.
            *out = unsafe { step.across(&upper, &lower) };
        }
    }
}

/// [`Pack::along`] in plain code, for pairs of bf16.
#[inline(always)]
pub(super) fn pairs_along(values: &[f32; 2 * LANES]) -> Line {
    let (pairs, _) = values.as_chunks::<2>();
    Line(std::array::from_fn(
        #[inline(always)]
        |i| crate::step::bf16_pair(pairs[i][0], pairs[i][1]),
    ))
}

/// [`Pack::across`] in plain code, for pairs of bf16.
#[inline(always)]
pub(super) fn pairs_across(upper: &[f32; LANES], lower: &[f32; LANES]) -> Line {
    Line(std::array::from_fn(
        #[inline(always)]
        |i| crate::step::bf16_pair(upper[i], lower[i]),
    ))
}

/// The bits of the first sixteen values.
#[inline(always)]
pub(super) fn bits(values: &[f32]) -> Line {
    Line(std::array::from_fn(
        #[inline(always)]
        |i| values[i].to_bits(),
    ))
}

/// [`Pack::transpose`] in plain code.
#[inline(always)]
pub(super) fn transpose(lines: &mut [Line; LANES]) {
    let from = *lines;
    for (i, line) in lines.iter_mut().enumerate() {
        for (lane, from) in line.0.iter_mut().zip(&from) {
            *lane = from.0[i];
        }
    }
}
