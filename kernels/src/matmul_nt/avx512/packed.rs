//! Tiles for many rows of x: both operands are copied to buffers in the order in which a tile
//! reads them, cache line by cache line, zeros filling up the last one. The sums are those of the
//! tiles in place, bit for bit: a zero product adds nothing, as a masked one does.
#![expect(unsafe_code, reason = "writes to a rectangle of the shared output")]
#![expect(
    non_snake_case,
    reason = "dimensions have the names of the shape letters"
)]

use std::arch::x86_64::{__m512, _mm512_fmadd_ps, _mm512_load_ps, _mm512_setzero_ps};
use std::ops::Range;

use super::{LANES, TILE_X, put, sum_lanes};
use crate::matmul::Destination;
use crate::matmul_nt::{GROUP, Product, RUN, Rectangle, Sizes, W_BLOCK, destination};

/// One vector's worth of values, on a cache line of its own.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Line([f32; LANES]);

/// # Safety
/// As [`crate::matmul_nt::compute`]; the CPU must have AVX-512F.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn rectangle(product: &Product<'_>, rectangle: &Rectangle) {
    let C = product.sizes.C;
    let Rectangle { x_rows, w_rows } = rectangle;
    let mut x_lines = Vec::new();
    let mut w_lines = Vec::new();
    for run_start in (0..C).step_by(RUN) {
        let run = run_start..C.min(run_start + RUN);
        let num_steps = run.len().div_ceil(LANES);
        x_lines.clear();
        for first in x_rows.clone().step_by(TILE_X) {
            let rows = first..x_rows.end.min(first + TILE_X);
            pack(&mut x_lines, (product.x, C), rows.clone(), rows.len(), &run);
        }
        let block = (W_BLOCK / run.len()).next_multiple_of(GROUP);
        for block_start in w_rows.clone().step_by(block) {
            let block_rows = block_start..w_rows.end.min(block_start + block);
            w_lines.clear();
            for first in block_rows.clone().step_by(GROUP) {
                let rows = first..block_rows.end.min(first + GROUP);
                pack(&mut w_lines, (product.w, C), rows, GROUP, &run);
            }
            let tiles = x_lines.chunks(TILE_X * num_steps);
            for (x_row, x) in x_rows.clone().step_by(TILE_X).zip(tiles) {
                let groups = w_lines.chunks_exact(GROUP * num_steps);
                for (w_row, w) in block_rows.clone().step_by(GROUP).zip(groups) {
                    let w_rows = w_row..block_rows.end.min(w_row + GROUP);
                    let at = Place {
                        x_row,
                        w_rows,
                        destination: destination(&run),
                    };
                    // SAFETY: the caller's promise, for a tile of the rectangle.
                    unsafe { tile_of(product, &at, (x, w), num_steps) };
                }
            }
        }
    }
}

/// Appends the run of some rows, line by line through all of them; rows that are missing from
/// `width` are zeros.
fn pack(
    lines: &mut Vec<Line>,
    (values, C): (&[f32], usize),
    rows: Range<usize>,
    width: usize,
    run: &Range<usize>,
) {
    for start in run.clone().step_by(LANES) {
        let len = (run.end - start).min(LANES);
        for row in rows.clone() {
            let from = &values[row * C + start..];
            // Whole vectors apart: a copy of known length is a move, not a call.
            lines.push(match from.first_chunk::<LANES>() {
                Some(values) if len == LANES => Line(*values),
                _ => {
                    let mut line = Line([0.0; LANES]);
                    line.0[..len].copy_from_slice(&from[..len]);
                    line
                }
            });
        }
        lines.extend((rows.len()..width).map(|_| Line([0.0; LANES])));
    }
}

/// Where a tile's sums go.
struct Place {
    x_row: usize,
    w_rows: Range<usize>,
    destination: Destination,
}

/// # Safety
/// As [`crate::matmul_nt::compute`] for the rows of the tile; the CPU must have AVX-512F.
#[target_feature(enable = "avx512f")]
unsafe fn tile_of(product: &Product<'_>, at: &Place, (x, w): (&[Line], &[Line]), num_steps: usize) {
    // SAFETY: the caller's promise is passed on.
    unsafe {
        match x.len() / num_steps {
            1 => tile::<1>(product, at, x, w),
            2 => tile::<2>(product, at, x, w),
            3 => tile::<3>(product, at, x, w),
            4 => tile::<4>(product, at, x, w),
            5 => tile::<5>(product, at, x, w),
            _ => tile::<TILE_X>(product, at, x, w),
        }
    }
}

/// # Safety
/// As [`tile_of`].
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn tile<const X: usize>(product: &Product<'_>, at: &Place, x: &[Line], w: &[Line]) {
    let Sizes { O, .. } = product.sizes;
    let mut sums = [[_mm512_setzero_ps(); GROUP]; X];
    for (x, w) in x.as_chunks::<X>().0.iter().zip(w.as_chunks::<GROUP>().0) {
        let w: [__m512; GROUP] = std::array::from_fn(|j| load(&w[j]));
        for i in 0..X {
            let x = load(&x[i]);
            for j in 0..GROUP {
                sums[i][j] = _mm512_fmadd_ps(x, w[j], sums[i][j]);
            }
        }
    }
    for (i, sums) in sums.iter().enumerate() {
        // SAFETY: the elements lie in the rectangle.
        unsafe {
            let y = product.y.add((at.x_row + i) * O + at.w_rows.start);
            put(y, sum_lanes(sums), at.w_rows.len(), at.destination);
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(line: &Line) -> __m512 {
    // SAFETY: a line is sixteen values, aligned to 64 bytes.
    unsafe { _mm512_load_ps(line.0.as_ptr()) }
}
