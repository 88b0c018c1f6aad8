//! The tiles: R rows of a by V vectors of b with R·V = 24 sums in registers: six rows by four
//! vectors, or twelve by two where b is narrow (a head of attention). Loads and broadcasts
//! together are fewer than the multiply-adds they feed.
#![expect(unsafe_code, reason = "vector loads and stores through pointers")]

use std::arch::x86_64::{
    __m512, __mmask16, _mm512_add_ps, _mm512_fmadd_ps, _mm512_load_ps, _mm512_mask_storeu_ps,
    _mm512_maskz_loadu_ps, _mm512_mul_ps, _mm512_set1_ps, _mm512_setzero_ps,
};
use std::ops::Range;

use super::{LANES, Part, Product, RUN};
use crate::matmul::{Destination, Mat};

/// One vector's worth of values, on a cache line of its own.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Line([f32; LANES]);

/// Where the values of a tile's rows lie: row i of step k at `base` + i·row + k·step.
#[derive(Clone, Copy, Debug)]
struct Rows {
    base: *const f32,
    row: usize,
    step: usize,
}

/// Where a tile's sums go.
#[derive(Clone, Debug)]
struct Place {
    first_row: usize,
    columns: Range<usize>,
    destination: Destination,
}

/// # Safety
/// As [`super::fill`], for this part; the CPU must have AVX-512F.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn compute<const R: usize, const V: usize>(product: &Product<'_>, part: &Part) {
    let Product { a, b, .. } = *product;
    // Columns of a are copied to rows only where several panels share the copy.
    let is_packed = a.column_stride != 1 && part.columns.len() > V * LANES;
    let mut packed_a = Vec::new();
    let mut panel = Vec::with_capacity(RUN.min(a.columns) * V);
    for start in (0..a.columns).step_by(RUN) {
        let run = start..a.columns.min(start + RUN);
        let destination = if start == 0 {
            product.destination
        } else {
            Destination::Add
        };
        if is_packed {
            pack_rows::<R>(&mut packed_a, a, &part.rows, &run);
        }
        for column in part.columns.clone().step_by(V * LANES) {
            let columns = column..part.columns.end.min(column + V * LANES);
            pack_panel::<V>(&mut panel, b, &run, &columns);
            for (tile, first_row) in part.rows.clone().step_by(R).enumerate() {
                let num_rows = (part.rows.end - first_row).min(R);
                let rows = if is_packed {
                    Rows {
                        base: packed_a[tile * R * run.len()..].as_ptr(),
                        row: 1,
                        step: R,
                    }
                } else {
                    let first = first_row * a.row_stride + start * a.column_stride;
                    let base = &raw const a.data[first];
                    Rows {
                        base,
                        row: a.row_stride,
                        step: a.column_stride,
                    }
                };
                let place = Place {
                    first_row,
                    columns: columns.clone(),
                    destination,
                };
                // SAFETY: `rows` points at num_rows rows of run.len() values: of `a`, whose
                // constructor checked them, or of `packed_a`, which holds whole tiles.
                unsafe { tiles::<R, V>(product, &place, (rows, num_rows), &panel) };
            }
        }
    }
}

/// Copies a run of the rows of a (stored column by column) tile by tile: R values for each step,
/// zeros where a tile has fewer rows.
fn pack_rows<const R: usize>(
    packed: &mut Vec<f32>,
    a: Mat<'_>,
    rows: &Range<usize>,
    run: &Range<usize>,
) {
    packed.clear();
    for first in rows.clone().step_by(R) {
        let len = (rows.end - first).min(R);
        for k in run.clone() {
            let from = &a.data[k * a.column_stride + first..];
            // Whole tiles apart: a copy of known length is a few moves, not a call.
            packed.extend_from_slice(&match from.first_chunk::<R>() {
                Some(values) if len == R => *values,
                _ => padded(&from[..len]),
            });
        }
    }
}

/// Copies a run of rows of b at some columns; zeros where there are fewer than a panel's.
fn pack_panel<const V: usize>(
    panel: &mut Vec<Line>,
    b: Mat<'_>,
    run: &Range<usize>,
    columns: &Range<usize>,
) {
    panel.clear();
    let is_whole = columns.len() == V * LANES;
    for k in run.clone() {
        let row = &b.data[k * b.row_stride + columns.start..][..columns.len()];
        if is_whole {
            for values in row.as_chunks::<LANES>().0 {
                panel.push(Line(*values));
            }
        } else {
            for v in 0..V {
                let rest = &row[row.len().min(v * LANES)..];
                panel.push(Line(padded(&rest[..rest.len().min(LANES)])));
            }
        }
    }
}

/// Zeros after the values.
fn padded<const N: usize>(values: &[f32]) -> [f32; N] {
    let mut padded = [0.0; N];
    padded[..values.len()].copy_from_slice(values);
    padded
}

/// Up to R rows: as one tile, or what is left at the edge as smaller ones.
///
/// # Safety
/// As [`super::fill`] for the tile's place; `rows` must be valid for reads of its number of rows
/// and a step per row of the panel; the CPU must have AVX-512F.
#[target_feature(enable = "avx512f")]
unsafe fn tiles<const R: usize, const V: usize>(
    product: &Product<'_>,
    place: &Place,
    (rows, num_rows): (Rows, usize),
    panel: &[Line],
) {
    if num_rows == R {
        // SAFETY: the caller's promise.
        unsafe { tile::<R, V>(product, place, rows, panel) };
        return;
    }
    let mut done = 0;
    while done < num_rows {
        let base = rows.base.wrapping_add(done * rows.row);
        let (rows, mut place) = (Rows { base, ..rows }, place.clone());
        place.first_row += done;
        // SAFETY: the caller's promise, for some of the rows.
        unsafe {
            if num_rows - done >= 3 {
                tile::<3, V>(product, &place, rows, panel);
                done += 3;
            } else {
                tile::<1, V>(product, &place, rows, panel);
                done += 1;
            }
        }
    }
}

/// # Safety
/// As [`tiles`], for R rows.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn tile<const R: usize, const V: usize>(
    product: &Product<'_>,
    place: &Place,
    rows: Rows,
    panel: &[Line],
) {
    let mut sums = [[_mm512_setzero_ps(); V]; R];
    let mut a = rows.base;
    for b in panel.as_chunks::<V>().0 {
        // SAFETY: a line is an aligned vector; `a` is at a step that the caller vouches for, R
        // rows of it.
        unsafe {
            let b: [__m512; V] = std::array::from_fn(|v| _mm512_load_ps(b[v].0.as_ptr()));
            for (i, sums) in sums.iter_mut().enumerate() {
                let a = _mm512_set1_ps(*a.add(i * rows.row));
                for v in 0..V {
                    sums[v] = _mm512_fmadd_ps(a, b[v], sums[v]);
                }
            }
            a = a.wrapping_add(rows.step);
        }
    }
    let scale = _mm512_set1_ps(product.scale);
    for (i, sums) in sums.iter().enumerate() {
        let start = (place.first_row + i) * product.row_stride + place.columns.start;
        for (v, sum) in sums.iter().enumerate() {
            let len = place.columns.len().saturating_sub(v * LANES).min(LANES);
            let mask = ((1_u32 << len) - 1) as __mmask16;
            // SAFETY: the mask admits the values inside the tile's columns only, which lie in the
            // output; what is added to is initialised.
            unsafe {
                let dst = product.dst.wrapping_add(start + v * LANES);
                let sum = _mm512_mul_ps(*sum, scale);
                let sum = match place.destination {
                    Destination::Overwrite => sum,
                    Destination::Add => _mm512_add_ps(_mm512_maskz_loadu_ps(mask, dst), sum),
                };
                _mm512_mask_storeu_ps(dst, mask, sum);
            }
        }
    }
}
