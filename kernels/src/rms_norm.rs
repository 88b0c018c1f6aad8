//! RMSNorm: y = x / sqrt(mean(x²) + eps) · w, row by row, and its gradient.
//! Zhang and Sennrich, "Root Mean Square Layer Normalization" (arXiv 1910.07467), with eps inside
//! the root as in Llama.
#![expect(non_snake_case, reason = "tensors end in their shape")]

use candle_core::Tensor;
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use crate::error::Result;
use crate::rows::rows_per_task;
use crate::simd::{dot, map2};
use crate::tensor::{dims2, expect_dims, f32_tensor, f32_view};

/// y_TC = x_TC / sqrt(mean over C of x² + eps) · w_C. A row depends on nothing but itself.
pub fn rms_norm(x_TC: &Tensor, w_C: &Tensor, eps: f32) -> Result<Tensor> {
    let (T, C) = dims2("rms_norm", "x", x_TC)?;
    expect_dims("rms_norm", "w", &[C], w_C)?;
    let x = f32_view("rms_norm", "x", x_TC)?;
    let w = f32_view("rms_norm", "w", w_C)?;
    let mut y = vec![0.0; T * C];
    let task = rows_per_task(C) * C.max(1);
    y.par_chunks_mut(task)
        .zip(x.par_chunks(task))
        .for_each(|(y, x)| Arch::new().dispatch(Forward { y, x, w: &w, eps }));
    f32_tensor(y, &[T, C])
}

/// [`rms_norm`] of one row, for callers that have slices.
///
/// # Panics
/// When the lengths differ.
pub fn rms_norm_row(y: &mut [f32], x: &[f32], w: &[f32], eps: f32) {
    assert!(y.len() == w.len() && x.len() == w.len(), "lengths of a row");
    Arch::new().dispatch(Forward { y, x, w, eps });
}

/// The gradients (dx_TC, dw_C) of [`rms_norm`] at x and w, for the upstream gradient dy_TC.
///
/// With r = 1/sqrt(mean(x²) + eps): dx = r·w·dy − x·r³·mean(w·dy·x), dw = Σ over T of dy·x·r.
pub fn rms_norm_backward(
    x_TC: &Tensor,
    w_C: &Tensor,
    eps: f32,
    dy_TC: &Tensor,
) -> Result<(Tensor, Tensor)> {
    let (T, C) = dims2("rms_norm_backward", "x", x_TC)?;
    expect_dims("rms_norm_backward", "w", &[C], w_C)?;
    expect_dims("rms_norm_backward", "dy", &[T, C], dy_TC)?;
    let x = f32_view("rms_norm_backward", "x", x_TC)?;
    let w = f32_view("rms_norm_backward", "w", w_C)?;
    let dy = f32_view("rms_norm_backward", "dy", dy_TC)?;
    let mut dx = vec![0.0; T * C];
    let task = rows_per_task(C) * C.max(1);
    let partial_dws: Vec<Vec<f32>> = dx
        .par_chunks_mut(task)
        .zip(x.par_chunks(task))
        .zip(dy.par_chunks(task))
        .map(|((dx, x), dy)| {
            Arch::new().dispatch(Backward {
                dx,
                x,
                w: &w,
                dy,
                eps,
            })
        })
        .collect();
    let mut dw = vec![0.0; C];
    for partial in &partial_dws {
        for (sum, value) in dw.iter_mut().zip(partial) {
            *sum += value;
        }
    }
    Ok((f32_tensor(dx, &[T, C])?, f32_tensor(dw, &[C])?))
}

/// 1 / sqrt(mean(x²) + eps).
#[inline(always)]
fn inverse_rms<S: Simd>(simd: S, x: &[f32], eps: f32) -> f32 {
    1.0 / (dot(simd, x, x) / x.len() as f32 + eps).sqrt()
}

/// Some rows of the forward pass.
struct Forward<'a> {
    y: &'a mut [f32],
    x: &'a [f32],
    w: &'a [f32],
    eps: f32,
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { y, x, w, eps } = self;
        for (y, x) in y.chunks_exact_mut(w.len()).zip(x.chunks_exact(w.len())) {
            let r = simd.splat_f32s(inverse_rms(simd, x, eps));
            map2(
                simd,
                y,
                (x, w),
                #[inline(always)]
                |x, w| simd.mul_f32s(simd.mul_f32s(x, r), w),
            );
        }
    }
}

/// Some rows of the backward pass; returns their share of dw.
struct Backward<'a> {
    dx: &'a mut [f32],
    x: &'a [f32],
    w: &'a [f32],
    dy: &'a [f32],
    eps: f32,
}

impl WithSimd for Backward<'_> {
    type Output = Vec<f32>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Vec<f32> {
        let Self { dx, x, w, dy, eps } = self;
        let C = w.len();
        let mut dw = vec![0.0; C];
        let mut w_dy = vec![0.0; C];
        let rows = dx
            .chunks_exact_mut(C)
            .zip(x.chunks_exact(C))
            .zip(dy.chunks_exact(C));
        for ((dx, x), dy) in rows {
            let r = inverse_rms(simd, x, eps);
            map2(
                simd,
                &mut w_dy,
                (w, dy),
                #[inline(always)]
                |w, dy| simd.mul_f32s(w, dy),
            );
            let mean = dot(simd, &w_dy, x) / C as f32;
            let r_lanes = simd.splat_f32s(r);
            let x_factor = simd.splat_f32s(-(r * r * r * mean));
            map2(
                simd,
                dx,
                (&w_dy, x),
                #[inline(always)]
                |w_dy, x| simd.mul_add_e_f32s(x, x_factor, simd.mul_f32s(w_dy, r_lanes)),
            );
            for ((dw, dy), x) in dw.iter_mut().zip(dy).zip(x) {
                *dw += dy * x * r;
            }
        }
        dw
    }
}

#[cfg(test)]
mod tests;
