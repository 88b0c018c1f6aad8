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

use crate::matmul::{Destination, Mat};

mod avx512;

/// Steps of the inner dimension before sums go to memory. A panel of b of this depth is 32 KiB and
/// stays in a level-1 cache of 48 KiB.
const RUN: usize = 128;

/// Rows of a in a tile.
const TILE_ROWS: usize = 6;

/// Columns of b in a panel: four vectors.
const PANEL: usize = 64;

/// Rows of a in a task at most; enough to repay the copy of each panel of b.
const MAX_ROWS: usize = 96;

/// Multiplications that a task should have at least: some microseconds.
const MIN_TASK_WORK: usize = 1 << 18;

/// The operands and the output, whose rows lie one after another.
#[derive(Clone, Copy, Debug)]
struct Product<'a> {
    a: Mat<'a>,
    b: Mat<'a>,
    dst: *mut f32,
    destination: Destination,
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

/// Whether [`fill`] can do these operands on this machine.
pub(crate) fn is_available(a: Mat<'_>, b: Mat<'_>) -> bool {
    let is_worth_it = a.rows >= TILE_ROWS && b.columns >= PANEL / 2;
    b.column_stride == 1
        && (a.column_stride == 1 || a.row_stride == 1)
        && is_worth_it
        && std::is_x86_feature_detected!("avx512f")
}

/// dst = a·b or dst += a·b, on all threads of rayon's current pool where it is worth it.
///
/// # Safety
/// [`is_available`] must hold; `dst` must be valid for reads and writes of a.rows·b.columns values,
/// initialised ones if they are added to, and nobody else may access it during the call.
pub(crate) unsafe fn fill(dst: *mut f32, destination: Destination, a: Mat<'_>, b: Mat<'_>) {
    assert_eq!(a.columns, b.rows, "inner dimensions of a product");
    if a.columns == 0 {
        if destination == Destination::Overwrite {
            // SAFETY: zeroed f32 values are 0.0, and the caller vouches for the place.
            unsafe { dst.write_bytes(0, a.rows * b.columns) };
        }
        return;
    }
    let product = Product {
        a,
        b,
        dst,
        destination,
    };
    // SAFETY: AVX-512 was detected; the parts cover the output without overlap.
    let compute = |part: &Part| unsafe { avx512::compute(&product, part) };
    let num_threads = rayon::current_num_threads();
    let parts = parts(a, b, num_threads);
    if num_threads == 1 || parts.len() == 1 {
        parts.iter().for_each(compute);
    } else {
        parts.par_iter().for_each(compute);
    }
}

/// Cuts the output for `num_threads`: into bands of rows and, where those are too few, columns.
fn parts(a: Mat<'_>, b: Mat<'_>, num_threads: usize) -> Vec<Part> {
    let num_tasks = (a.rows * b.columns * a.columns / MIN_TASK_WORK).clamp(1, 4 * num_threads);
    let row_parts = num_tasks.min(a.rows / (4 * TILE_ROWS)).max(1);
    let column_parts = num_tasks
        .div_ceil(row_parts)
        .min(b.columns.div_ceil(PANEL))
        .max(1);
    let rows = a
        .rows
        .div_ceil(row_parts)
        .next_multiple_of(TILE_ROWS)
        .min(MAX_ROWS);
    let columns = b.columns.div_ceil(column_parts).next_multiple_of(PANEL);
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
