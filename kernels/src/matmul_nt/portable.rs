//! The tiles in whatever vectors the machine has (AVX2, or none): two rows of x by four of w.
#![expect(unsafe_code, reason = "writes to a rectangle of the shared output")]
#![expect(
    non_snake_case,
    reason = "dimensions have the names of the shape letters"
)]

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::{GROUP, Product, Rectangle, Sizes, for_tiles};

/// Rows of x in a tile: eight sums leave room for the operands in sixteen registers.
const TILE_X: usize = 2;

/// One rectangle. Whoever makes one promises what [`super::compute`] asks for.
pub(super) struct Rectangles<'a> {
    pub(super) product: &'a Product<'a>,
    pub(super) rectangle: &'a Rectangle,
}

impl WithSimd for Rectangles<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { product, rectangle } = self;
        let Sizes { O, C, .. } = product.sizes;
        for_tiles(
            C,
            rectangle,
            (TILE_X, GROUP),
            #[inline(always)]
            |x_rows, w_rows, run| {
                let sums = tile_sums(simd, product, (&x_rows, &w_rows), &run);
                for (x_row, sums) in x_rows.zip(&sums) {
                    for (w_row, sum) in w_rows.clone().zip(sums) {
                        // SAFETY: the element lies in the rectangle, which is ours alone by the
                        // promise of our maker; it was written by the first run.
                        unsafe {
                            let y = product.y.add(x_row * O + w_row);
                            let before = if run.start == 0 { None } else { Some(y.read()) };
                            y.write(before.map_or(*sum, |before| before + sum));
                        }
                    }
                }
            },
        );
    }
}

/// The sums of a tile; beyond its rows they repeat the last one.
#[inline(always)]
fn tile_sums<S: Simd>(
    simd: S,
    product: &Product<'_>,
    (x_rows, w_rows): (&Range<usize>, &Range<usize>),
    run: &Range<usize>,
) -> [[f32; GROUP]; TILE_X] {
    let C = product.sizes.C;
    let row = |data: &'_ [f32], rows: &Range<usize>, i: usize| {
        let first = (rows.end - 1).min(rows.start + i) * C;
        first + run.start..(first + run.end).min(data.len())
    };
    let x: [_; TILE_X] =
        std::array::from_fn(|i| S::as_simd_f32s(&product.x[row(product.x, x_rows, i)]));
    let w: [_; GROUP] =
        std::array::from_fn(|j| S::as_simd_f32s(&product.w[row(product.w, w_rows, j)]));
    let mut sums = [[simd.splat_f32s(0.0); GROUP]; TILE_X];
    for k in 0..x[0].0.len() {
        for i in 0..TILE_X {
            for j in 0..GROUP {
                sums[i][j] = simd.mul_add_e_f32s(x[i].0[k], w[j].0[k], sums[i][j]);
            }
        }
    }
    if !x[0].1.is_empty() {
        for i in 0..TILE_X {
            for j in 0..GROUP {
                let (x, w) = (
                    simd.partial_load_f32s(x[i].1),
                    simd.partial_load_f32s(w[j].1),
                );
                sums[i][j] = simd.mul_add_e_f32s(x, w, sums[i][j]);
            }
        }
    }
    sums.map(|sums| sums.map(|sum| simd.reduce_sum_f32s(sum)))
}
