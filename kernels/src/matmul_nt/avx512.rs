//! The tiles in AVX-512: six rows of x by four of w, 24 sums of sixteen lanes in registers. Ten
//! loads feed 24 multiply-adds.
#![expect(unsafe_code, reason = "vector loads and stores through pointers")]

use std::arch::x86_64::{
    __m128, __m512, __mmask16, _mm_add_ps, _mm_loadu_ps, _mm_storeu_ps, _mm256_add_ps,
    _mm256_castpd_ps, _mm256_castps256_ps128, _mm256_extractf128_ps, _mm512_add_ps,
    _mm512_castpd_ps, _mm512_castps_pd, _mm512_castps512_ps256, _mm512_extractf64x4_pd,
    _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_maskz_loadu_ps, _mm512_setzero_ps, _mm512_unpackhi_pd,
    _mm512_unpackhi_ps, _mm512_unpacklo_pd, _mm512_unpacklo_ps,
};
use std::ops::Range;

use super::{GROUP, Product, Rectangle, Sizes, destination, for_tiles};
use crate::matmul::Destination;

mod packed;

const LANES: usize = 16;

/// Rows of x in a tile.
const TILE_X: usize = 6;

/// Rows of x from which it pays to copy operands to aligned, gapless buffers first: tensors are
/// rarely aligned to cache lines, and a load that straddles two costs two.
const MIN_PACKED_ROWS: usize = 4 * TILE_X;

/// # Safety
/// As [`super::compute`]; the CPU must have AVX-512F.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn rectangle(product: &Product<'_>, rectangle: &Rectangle) {
    // SAFETY: the caller's promise is passed on.
    unsafe {
        if rectangle.x_rows.len() >= MIN_PACKED_ROWS {
            packed::rectangle(product, rectangle);
        } else {
            in_place(product, rectangle);
        }
    }
}

/// # Safety
/// As [`super::compute`]; the CPU must have AVX-512F.
#[target_feature(enable = "avx512f")]
unsafe fn in_place(product: &Product<'_>, rectangle: &Rectangle) {
    // Few rows of x take more rows of w at a time: an addition waits four cycles for the one
    // before it in its sum, so at least eight sums are needed to be at work all the time.
    let tile_w = match rectangle.x_rows.len() {
        1 => 4 * GROUP,
        2 | 3 => 2 * GROUP,
        _ => GROUP,
    };
    for_tiles(
        product.sizes.C,
        rectangle,
        (TILE_X, tile_w),
        |x_rows, w_rows, run| {
            let first = x_rows.start;
            let groups = w_rows.len() / GROUP;
            // SAFETY: the rows lie inside the rectangle, which the caller vouches for.
            unsafe {
                match (x_rows.len(), groups) {
                    (1, 4) => tile::<1, 4>(product, first, w_rows, run),
                    (2, 2) => tile::<2, 2>(product, first, w_rows, run),
                    (3, 2) => tile::<3, 2>(product, first, w_rows, run),
                    (TILE_X, 1) => tile::<TILE_X, 1>(product, first, w_rows, run),
                    _ => small_tiles(product, x_rows, w_rows, run),
                }
            }
        },
    );
}

/// What is left at the edges, in tiles of one group of rows of w.
///
/// # Safety
/// As [`super::compute`] for these rows; the CPU must have AVX-512F.
#[target_feature(enable = "avx512f")]
unsafe fn small_tiles(
    product: &Product<'_>,
    x_rows: Range<usize>,
    w_rows: Range<usize>,
    run: Range<usize>,
) {
    let first = x_rows.start;
    for start in w_rows.clone().step_by(GROUP) {
        let (w_rows, run) = (start..w_rows.end.min(start + GROUP), run.clone());
        // SAFETY: the caller's promise, for some of its rows.
        unsafe {
            match x_rows.len() {
                1 => tile::<1, 1>(product, first, w_rows, run),
                2 => tile::<2, 1>(product, first, w_rows, run),
                3 => tile::<3, 1>(product, first, w_rows, run),
                4 => tile::<4, 1>(product, first, w_rows, run),
                5 => tile::<5, 1>(product, first, w_rows, run),
                _ => tile::<TILE_X, 1>(product, first, w_rows, run),
            }
        }
    }
}

/// X rows of x from `x_row` on by W groups of rows of w, over one run of the inner dimension.
/// A single group may have fewer than four rows.
///
/// # Safety
/// As [`super::compute`] for these rows; the CPU must have AVX-512F.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn tile<const X: usize, const W: usize>(
    product: &Product<'_>,
    x_row: usize,
    w_rows: Range<usize>,
    run: Range<usize>,
) {
    let Sizes { O, C, .. } = product.sizes;
    let x_values = &product.x[x_row * C..(x_row + X) * C];
    let w_values = &product.w[w_rows.start * C..w_rows.end * C];
    // Where a group has fewer than four rows, the last one stands in, and its sums are dropped.
    let last = w_rows.len() - 1;
    let x = std::array::from_fn(|i| &raw const x_values[i * C + run.start]);
    let w = std::array::from_fn(|group| {
        let row = |j: usize| last.min(group * GROUP + j);
        std::array::from_fn(|j| &raw const w_values[row(j) * C + run.start])
    });
    // SAFETY: each pointer is the start of the run in a row of `x_values` or `w_values`.
    let sums: [[[__m512; GROUP]; W]; X] = unsafe { lane_sums(&x, &w, run.len()) };
    for (i, groups) in sums.iter().enumerate() {
        for (group, sums) in groups.iter().enumerate() {
            let first = w_rows.start + group * GROUP;
            // SAFETY: the elements lie in the rectangle.
            unsafe {
                let y = product.y.add((x_row + i) * O + first);
                put(
                    y,
                    sum_lanes(sums),
                    (w_rows.end - first).min(GROUP),
                    destination(&run),
                );
            }
        }
    }
}

/// Puts the sums of a run in the output: over what is there in the first run, on top later.
///
/// # Safety
/// `len` elements, at most four, must be valid for writes and, after the first run, initialised.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn put(y: *mut f32, sums: __m128, len: usize, destination: Destination) {
    // SAFETY: the caller's promise; `values` has four elements.
    unsafe {
        if len == GROUP {
            let sums = if destination == Destination::Overwrite {
                sums
            } else {
                _mm_add_ps(_mm_loadu_ps(y), sums)
            };
            _mm_storeu_ps(y, sums);
            return;
        }
        let mut values = [0.0; GROUP];
        _mm_storeu_ps(values.as_mut_ptr(), sums);
        for (j, value) in values[..len].iter().enumerate() {
            let y = y.add(j);
            y.write(if destination == Destination::Overwrite {
                *value
            } else {
                y.read() + value
            });
        }
    }
}

/// Lane-wise sums of x[i]·w[group][j].
///
/// # Safety
/// Every pointer must be valid for reads of `len` values; the CPU must have AVX-512F.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn lane_sums<const X: usize, const W: usize>(
    x: &[*const f32; X],
    w: &[[*const f32; GROUP]; W],
    len: usize,
) -> [[[__m512; GROUP]; W]; X] {
    let mut sums = [[[_mm512_setzero_ps(); GROUP]; W]; X];
    let whole = len - len % LANES;
    let mut k = 0;
    while k < whole {
        // SAFETY: k + 16 ≤ len.
        unsafe {
            for group in 0..W {
                let w: [__m512; GROUP] =
                    std::array::from_fn(|j| _mm512_loadu_ps(w[group][j].add(k)));
                for i in 0..X {
                    let x = _mm512_loadu_ps(x[i].add(k));
                    for j in 0..GROUP {
                        sums[i][group][j] = _mm512_fmadd_ps(x, w[j], sums[i][group][j]);
                    }
                }
            }
        }
        k += LANES;
    }
    if whole < len {
        let mask: __mmask16 = (1 << (len - whole)) - 1;
        // SAFETY: the mask admits the elements whole..len only; the others read as zero.
        unsafe {
            for group in 0..W {
                for i in 0..X {
                    let x = _mm512_maskz_loadu_ps(mask, x[i].add(whole));
                    for j in 0..GROUP {
                        let w = _mm512_maskz_loadu_ps(mask, w[group][j].add(whole));
                        sums[i][group][j] = _mm512_fmadd_ps(x, w, sums[i][group][j]);
                    }
                }
            }
        }
    }
    sums
}

/// The sum of the sixteen lanes of each of four vectors, by 13 instructions for all four.
#[inline]
#[target_feature(enable = "avx512f")]
fn sum_lanes(&[a, b, c, d]: &[__m512; GROUP]) -> __m128 {
    // Each step adds halves and interleaves: (a0+a2, b0+b2, a1+a3, b1+b3) in every quarter.
    let ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    let cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
    let (ab, cd) = (_mm512_castps_pd(ab), _mm512_castps_pd(cd));
    let low = _mm512_castpd_ps(_mm512_unpacklo_pd(ab, cd));
    let high = _mm512_castpd_ps(_mm512_unpackhi_pd(ab, cd));
    let quarters = _mm512_add_ps(low, high); // (Σa, Σb, Σc, Σd) of each quarter
    let upper = _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(quarters)));
    let halves = _mm256_add_ps(_mm512_castps512_ps256(quarters), upper);
    _mm_add_ps(
        _mm256_castps256_ps128(halves),
        _mm256_extractf128_ps::<1>(halves),
    )
}
