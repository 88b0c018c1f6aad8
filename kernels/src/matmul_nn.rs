//! a·b with rows of b contiguous, as both gradients of a linear layer have it (dy·w, dyᵀ·x): each
//! step of the inner dimension adds a column of a times a row of b. For machines with AVX-512;
//! elsewhere crate `gemm` does it.
//!
//! The order of one element: k in runs of [`RUN`], rising from zero within a run, the runs added
//! in turn. It does not depend on the number of threads.
#![expect(
    unsafe_code,
    reason = "AVX-512 and disjoint writes to one output by many threads"
)]

use std::ops::Range;

use rayon::prelude::*;

use crate::matmul::{Destination, Mat, Threads};

mod avx512;

/// Steps of the inner dimension before sums go to memory. A panel of b of this depth is 32 KiB and
/// stays in a level-1 cache of 48 KiB.
const RUN: usize = 128;

const LANES: usize = 16;

/// Rows of a and vectors of b in a tile.
const WIDE: (usize, usize) = (6, 4);

/// The same where b has few columns.
const NARROW: (usize, usize) = (12, 2);

/// Rows of a in a task at most; enough to repay the copy of each panel of b.
const MAX_ROWS: usize = 96;

/// Multiplications that a task should have at least: some microseconds.
const MIN_TASK_WORK: usize = 1 << 18;

/// dst = scale·a·b or dst += scale·a·b. The output's rows are `row_stride` apart.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Product<'a> {
    pub(crate) a: Mat<'a>,
    pub(crate) b: Mat<'a>,
    pub(crate) scale: f32,
    pub(crate) dst: *mut f32,
    pub(crate) row_stride: usize,
    pub(crate) destination: Destination,
}

// SAFETY: `dst` is written at the elements of a task's own part only, and parts do not overlap.
unsafe impl Send for Product<'_> {}
// SAFETY: as above.
unsafe impl Sync for Product<'_> {}

/// Part of the output.
#[derive(Clone, Debug)]
struct Part {
    rows: Range<usize>,
    columns: Range<usize>,
}

/// Whether [`fill`] can do these operands on this machine, and is worth it.
pub(crate) fn is_available(a: Mat<'_>, b: Mat<'_>) -> bool {
    b.column_stride == 1
        && (a.column_stride == 1 || a.row_stride == 1)
        && a.rows >= 3
        && b.columns >= LANES
        && std::is_x86_feature_detected!("avx512f")
}

/// Computes the product.
///
/// # Safety
/// [`is_available`] must hold; `dst` must be valid for reads and writes of a.rows rows of b.columns
/// values, initialised ones if they are added to, and nobody else may access them during the call.
pub(crate) unsafe fn fill(product: &Product<'_>, threads: Threads) {
    let Product { a, b, .. } = *product;
    assert_eq!(a.columns, b.rows, "inner dimensions of a product");
    let is_narrow = b.columns <= NARROW.1 * LANES;
    // SAFETY: AVX-512 was detected; the parts cover the output without overlap.
    let compute = |part: &Part| unsafe {
        if is_narrow {
            avx512::compute::<{ NARROW.0 }, { NARROW.1 }>(product, part);
        } else {
            avx512::compute::<{ WIDE.0 }, { WIDE.1 }>(product, part);
        }
    };
    let num_threads = match threads {
        Threads::One => 1,
        Threads::Pool => rayon::current_num_threads(),
    };
    if num_threads == 1 && a.rows <= MAX_ROWS {
        compute(&Part {
            rows: 0..a.rows,
            columns: 0..b.columns,
        });
        return;
    }
    let parts = parts(a, b, num_threads);
    if num_threads == 1 || parts.len() == 1 {
        parts.iter().for_each(compute);
    } else {
        parts.par_iter().for_each(compute);
    }
}

/// Cuts the output for `num_threads`.
fn parts(a: Mat<'_>, b: Mat<'_>, num_threads: usize) -> Vec<Part> {
    let panel = WIDE.1 * LANES;
    let num_tasks = (a.rows * b.columns * a.columns / MIN_TASK_WORK).clamp(1, 4 * num_threads);
    // Bands as tall as can be, so that b is read as few times as can be; then columns.
    let row_parts = a.rows.div_ceil(MAX_ROWS);
    let column_parts = num_tasks
        .div_ceil(row_parts)
        .min(b.columns.div_ceil(panel))
        .max(1);
    let rows = a.rows.div_ceil(row_parts).next_multiple_of(NARROW.0);
    let columns = b.columns.div_ceil(column_parts).next_multiple_of(panel);
    let range = |start: usize, step: usize, end: usize| start..end.min(start + step);
    (0..a.rows)
        .step_by(rows)
        .flat_map(|row| {
            (0..b.columns).step_by(columns).map(move |column| Part {
                rows: range(row, rows, a.rows),
                columns: range(column, columns, b.columns),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests;
