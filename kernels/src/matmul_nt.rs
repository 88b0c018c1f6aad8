//! y = x·wᵀ with the inner dimension contiguous on both sides, as activations and stored weights
//! have it: nothing is packed or copied, so few rows cost no more than reading the weights, and
//! each element is summed in one order whatever the number of rows, so a row's result does not
//! depend on what else is in the batch.
//!
//! The order of one element: k in runs of [`RUN`]; within a run, one sum per lane, k rising; the
//! lanes in a fixed tree; the runs added in turn.
#![expect(
    unsafe_code,
    reason = "AVX-512 loads and disjoint writes to one output by many threads"
)]
#![expect(
    non_snake_case,
    reason = "dimensions have the names of the shape letters"
)]

use std::ops::Range;

use pulp::Arch;
use rayon::prelude::*;

#[cfg(target_arch = "x86_64")]
use crate::matmul::Destination;

#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

/// Inner elements that are summed before the result goes to memory. A tile's ten rows of a run
/// take 20 KiB.
const RUN: usize = 512;

/// Values of w that are walked again and again for tile after tile of x: 24 KiB, so that they stay
/// in a level-1 cache of 48 KiB beside a tile's rows of x.
const W_BLOCK: usize = 6 << 10;

/// Rows of w in a group. They are neighbours in y, so a group's four sums are one store.
const GROUP: usize = 4;

/// Rows of x in a rectangle at most: a run of them is 288 KiB, a third of a level-2 cache.
const MAX_X_ROWS: usize = 144;

/// Multiplications that a task should have at least: some microseconds.
const MIN_TASK_WORK: usize = 1 << 18;

/// T rows of x, O rows of w, C inner elements of both.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) T: usize,
    pub(crate) O: usize,
    pub(crate) C: usize,
}

/// The operands and the output, [T, C], [O, C] and [T, O] row-major.
#[derive(Clone, Copy, Debug)]
struct Product<'a> {
    x: &'a [f32],
    w: &'a [f32],
    y: *mut f32,
    sizes: Sizes,
}

// SAFETY: `y` is written at the elements of a task's own rectangle only, and the rectangles of
// `matmul_nt` do not overlap.
unsafe impl Send for Product<'_> {}
// SAFETY: as above.
unsafe impl Sync for Product<'_> {}

/// Part of the output: some rows of x by some rows of w.
#[derive(Clone, Debug)]
struct Rectangle {
    x_rows: Range<usize>,
    w_rows: Range<usize>,
}

/// x·wᵀ, [T, O], on all threads of rayon's current pool where it is worth it.
pub(crate) fn matmul_nt(x: &[f32], w: &[f32], sizes: Sizes) -> Vec<f32> {
    let mut y = Vec::with_capacity(sizes.T * sizes.O);
    // SAFETY: y has the capacity, and is nobody else's.
    unsafe {
        fill(y.as_mut_ptr(), (x, w), sizes, Arch::new());
        y.set_len(sizes.T * sizes.O);
    }
    y
}

/// As [`matmul_nt`], over what `y` holds.
pub(crate) fn matmul_nt_into(y: &mut [f32], x: &[f32], w: &[f32], sizes: Sizes) {
    assert_eq!(y.len(), sizes.T * sizes.O, "output of {sizes:?}");
    // SAFETY: y has the size, and is borrowed for us alone.
    unsafe { fill(y.as_mut_ptr(), (x, w), sizes, Arch::new()) };
}

/// Writes x·wᵀ to all T·O values at `y`.
///
/// # Safety
/// `y` must be valid for these writes, and nobody else may access it during the call.
unsafe fn fill(y: *mut f32, (x, w): (&[f32], &[f32]), sizes: Sizes, arch: Arch) {
    let Sizes { T, O, C } = sizes;
    assert!(
        x.len() == T * C && w.len() == O * C,
        "sizes {sizes:?} of x·wᵀ"
    );
    if C == 0 {
        // SAFETY: zeroed f32 values are 0.0, and the caller vouches for the place.
        unsafe { y.write_bytes(0, T * O) };
        return;
    }
    let product = Product { x, w, y, sizes };
    // SAFETY: the rectangles together are all of y and do not overlap.
    let compute = |rectangle: &Rectangle| unsafe { compute(&product, rectangle, arch) };
    let num_threads = rayon::current_num_threads();
    let rectangles = rectangles(sizes, num_threads);
    if num_threads == 1 || rectangles.len() == 1 {
        rectangles.iter().for_each(compute);
    } else {
        rectangles.par_iter().for_each(compute);
    }
}

/// # Safety
/// The rectangle must lie inside the product's sizes, `product.y` must be valid for writes there,
/// and nobody else may access those elements during the call.
unsafe fn compute(product: &Product<'_>, rectangle: &Rectangle, arch: Arch) {
    // SAFETY: the caller's promise is passed on; AVX-512 was detected where it is used.
    unsafe {
        match arch {
            #[cfg(target_arch = "x86_64")]
            Arch::V4(_) => avx512::rectangle(product, rectangle),
            _ => arch.dispatch(portable::Rectangles { product, rectangle }),
        }
    }
}

/// Cuts the output for `num_threads`. Where x has few rows, w is divided, so that the weights are
/// read once by all threads together.
fn rectangles(Sizes { T, O, C }: Sizes, num_threads: usize) -> Vec<Rectangle> {
    let num_tasks = (T * O * C / MIN_TASK_WORK).clamp(1, 4 * num_threads);
    let (mut x_parts, mut w_parts) = (1, 1);
    if num_threads > 1 && num_tasks > 1 {
        // Rows of x first, in pieces that still repay a walk through w.
        x_parts = num_tasks.min(T / 48).max(1);
        w_parts = num_tasks.div_ceil(x_parts).min(O.div_ceil(GROUP)).max(1);
    }
    let x_step = T
        .div_ceil(x_parts)
        .next_multiple_of(12)
        .clamp(1, MAX_X_ROWS);
    let w_step = O.div_ceil(w_parts).next_multiple_of(GROUP).max(GROUP);
    let part = |start: usize, step: usize, end: usize| start..end.min(start + step);
    (0..T)
        .step_by(x_step)
        .flat_map(|x| {
            let w_parts = (0..O).step_by(w_step);
            w_parts.map(move |w| Rectangle {
                x_rows: part(x, x_step, T),
                w_rows: part(w, w_step, O),
            })
        })
        .collect()
}

/// Calls `tile(rows of x, rows of w, run)` for every tile of a rectangle, so that a block of w
/// stays in the cache while the tiles of x pass by.
#[inline(always)]
fn for_tiles(
    C: usize,
    rectangle: &Rectangle,
    (x_tile, w_tile): (usize, usize),
    mut tile: impl FnMut(Range<usize>, Range<usize>, Range<usize>),
) {
    let Rectangle { x_rows, w_rows } = rectangle;
    for run_start in (0..C).step_by(RUN) {
        let run = run_start..C.min(run_start + RUN);
        let w_block = (W_BLOCK / run.len()).next_multiple_of(w_tile);
        for block_start in w_rows.clone().step_by(w_block) {
            let block_end = w_rows.end.min(block_start + w_block);
            for x_row in x_rows.clone().step_by(x_tile) {
                let x_tile_rows = x_row..x_rows.end.min(x_row + x_tile);
                for w_row in (block_start..block_end).step_by(w_tile) {
                    let w_tile_rows = w_row..block_end.min(w_row + w_tile);
                    tile(x_tile_rows.clone(), w_tile_rows, run.clone());
                }
            }
        }
    }
}

/// The first run overwrites the output, the others add to it.
#[cfg(target_arch = "x86_64")]
fn destination(run: &Range<usize>) -> Destination {
    if run.start == 0 {
        Destination::Overwrite
    } else {
        Destination::Add
    }
}

#[cfg(test)]
mod tests;
