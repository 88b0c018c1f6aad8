//! The tiles: six rows of a by four vectors of b, 24 sums in registers. Four loads and six
//! broadcasts feed 24 multiply-adds.
#![expect(unsafe_code, reason = "vector loads and stores through pointers")]

use std::arch::x86_64::{
    __m512, __mmask16, _mm512_add_ps, _mm512_fmadd_ps, _mm512_load_ps, _mm512_mask_storeu_ps,
    _mm512_maskz_loadu_ps, _mm512_set1_ps, _mm512_setzero_ps,
};
use std::ops::Range;

use super::{PANEL, Part, Product, RUN, TILE_ROWS};
use crate::matmul::{Destination, Mat};

const LANES: usize = 16;

/// Vectors of a panel.
const VECTORS: usize = PANEL / LANES;

/// A row of a panel of b, on cache lines of its own.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct PanelRow([f32; PANEL]);

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
pub(super) unsafe fn compute(product: &Product<'_>, part: &Part) {
    let Product { a, b, .. } = *product;
    let mut packed_a = Vec::new();
    let mut panel = Vec::with_capacity(RUN);
    for start in (0..a.columns).step_by(RUN) {
        let run = start..a.columns.min(start + RUN);
        let destination = if start == 0 {
            product.destination
        } else {
            Destination::Add
        };
        if a.column_stride != 1 {
            pack_rows(&mut packed_a, a, &part.rows, &run);
        }
        for column in part.columns.clone().step_by(PANEL) {
            let columns = column..part.columns.end.min(column + PANEL);
            pack_panel(&mut panel, b, &run, &columns);
            for (tile, first_row) in part.rows.clone().step_by(TILE_ROWS).enumerate() {
                let num_rows = (part.rows.end - first_row).min(TILE_ROWS);
                let rows = if a.column_stride == 1 {
                    let base = &raw const a.data[first_row * a.row_stride + start];
                    Rows {
                        base,
                        row: a.row_stride,
                        step: 1,
                    }
                } else {
                    let base = &raw const packed_a[tile * TILE_ROWS * run.len()];
                    Rows {
                        base,
                        row: 1,
                        step: TILE_ROWS,
                    }
                };
                let place = Place {
                    first_row,
                    columns: columns.clone(),
                    destination,
                };
                // SAFETY: `rows` points at num_rows rows of run.len() values: of `a`, whose
                // constructor checked them, or of `packed_a`, which holds whole tiles.
                unsafe { tile_of(product, &place, (rows, num_rows), &panel) };
            }
        }
    }
}

/// Copies a run of the rows of a (stored column by column) tile by tile: six values for each step,
/// zeros where a tile has fewer rows.
fn pack_rows(packed: &mut Vec<f32>, a: Mat<'_>, rows: &Range<usize>, run: &Range<usize>) {
    packed.clear();
    for first in rows.clone().step_by(TILE_ROWS) {
        let len = (rows.end - first).min(TILE_ROWS);
        for k in run.clone() {
            let from = k * a.column_stride + first;
            let mut values = [0.0; TILE_ROWS];
            values[..len].copy_from_slice(&a.data[from..from + len]);
            packed.extend_from_slice(&values);
        }
    }
}

/// Copies a run of rows of b at some columns; zeros where there are fewer than a panel's.
fn pack_panel(panel: &mut Vec<PanelRow>, b: Mat<'_>, run: &Range<usize>, columns: &Range<usize>) {
    panel.clear();
    for k in run.clone() {
        let from = k * b.row_stride + columns.start;
        let mut row = PanelRow([0.0; PANEL]);
        row.0[..columns.len()].copy_from_slice(&b.data[from..from + columns.len()]);
        panel.push(row);
    }
}

/// # Safety
/// As [`super::fill`] for the tile's place; `rows` must be valid for reads of its number of rows
/// and a step per row of the panel; the CPU must have AVX-512F.
#[target_feature(enable = "avx512f")]
unsafe fn tile_of(
    product: &Product<'_>,
    place: &Place,
    (rows, num_rows): (Rows, usize),
    panel: &[PanelRow],
) {
    // SAFETY: the caller's promise is passed on.
    unsafe {
        match num_rows {
            1 => tile::<1>(product, place, rows, panel),
            2 => tile::<2>(product, place, rows, panel),
            3 => tile::<3>(product, place, rows, panel),
            4 => tile::<4>(product, place, rows, panel),
            5 => tile::<5>(product, place, rows, panel),
            _ => tile::<TILE_ROWS>(product, place, rows, panel),
        }
    }
}

/// # Safety
/// As [`tile_of`], for R rows.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn tile<const R: usize>(
    product: &Product<'_>,
    place: &Place,
    rows: Rows,
    panel: &[PanelRow],
) {
    let mut sums = [[_mm512_setzero_ps(); VECTORS]; R];
    let mut a = rows.base;
    for b in panel {
        // SAFETY: a panel row is four aligned vectors; `a` is at a step that the caller vouches
        // for, R rows of it.
        unsafe {
            let b: [__m512; VECTORS] =
                std::array::from_fn(|v| _mm512_load_ps(b.0.as_ptr().add(v * LANES)));
            for (i, sums) in sums.iter_mut().enumerate() {
                let a = _mm512_set1_ps(*a.add(i * rows.row));
                for v in 0..VECTORS {
                    sums[v] = _mm512_fmadd_ps(a, b[v], sums[v]);
                }
            }
            a = a.wrapping_add(rows.step);
        }
    }
    let width = product.b.columns;
    for (i, sums) in sums.iter().enumerate() {
        let start = (place.first_row + i) * width + place.columns.start;
        for (v, sum) in sums.iter().enumerate() {
            let len = place.columns.len().saturating_sub(v * LANES).min(LANES);
            let mask = ((1_u32 << len) - 1) as __mmask16;
            // SAFETY: the mask admits the values inside the tile's columns only, which lie in the
            // output; what is added to is initialised.
            unsafe {
                let dst = product.dst.wrapping_add(start + v * LANES);
                let sum = match place.destination {
                    Destination::Overwrite => *sum,
                    Destination::Add => _mm512_add_ps(_mm512_maskz_loadu_ps(mask, dst), *sum),
                };
                _mm512_mask_storeu_ps(dst, mask, sum);
            }
        }
    }
}
