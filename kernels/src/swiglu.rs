//! SwiGLU: y = silu(gate)·up with silu(g) = g·sigmoid(g), and its gradient.
//! Shazeer, "GLU Variants Improve Transformer" (arXiv 2002.05202).
#![expect(non_snake_case, reason = "tensors end in their shape")]

use candle_core::Tensor;
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use crate::error::Result;
use crate::rows::rows_per_task;
use crate::simd::{map2, map3_pair, sigmoid};
use crate::tensor::{expect_dims, f32_tensor, f32_view};

/// y_TF = silu(gate_TF)·up_TF.
pub fn swiglu(gate_TF: &Tensor, up_TF: &Tensor) -> Result<Tensor> {
    expect_dims("swiglu", "up", gate_TF.dims(), up_TF)?;
    let gate = f32_view("swiglu", "gate", gate_TF)?;
    let up = f32_view("swiglu", "up", up_TF)?;
    let mut y = vec![0.0; gate.len()];
    let task = rows_per_task(1);
    y.par_chunks_mut(task)
        .zip(gate.par_chunks(task))
        .zip(up.par_chunks(task))
        .for_each(|((y, gate), up)| Arch::new().dispatch(Forward { y, gate, up }));
    f32_tensor(y, gate_TF.dims())
}

/// [`swiglu`] of one row, for callers that have slices.
///
/// # Panics
/// When the lengths differ.
pub fn swiglu_row(y: &mut [f32], gate: &[f32], up: &[f32]) {
    assert!(
        y.len() == gate.len() && y.len() == up.len(),
        "lengths of a row"
    );
    Arch::new().dispatch(Forward { y, gate, up });
}

/// The gradients (dgate_TF, dup_TF) of [`swiglu`] for the upstream gradient dy_TF.
///
/// With s = sigmoid(gate): dup = dy·gate·s, dgate = dy·up·s·(1 + gate·(1 − s)).
pub fn swiglu_backward(
    gate_TF: &Tensor,
    up_TF: &Tensor,
    dy_TF: &Tensor,
) -> Result<(Tensor, Tensor)> {
    expect_dims("swiglu_backward", "up", gate_TF.dims(), up_TF)?;
    expect_dims("swiglu_backward", "dy", gate_TF.dims(), dy_TF)?;
    let gate = f32_view("swiglu_backward", "gate", gate_TF)?;
    let up = f32_view("swiglu_backward", "up", up_TF)?;
    let dy = f32_view("swiglu_backward", "dy", dy_TF)?;
    let mut dgate = vec![0.0; gate.len()];
    let mut dup = vec![0.0; gate.len()];
    let task = rows_per_task(1);
    dgate
        .par_chunks_mut(task)
        .zip(dup.par_chunks_mut(task))
        .zip(
            gate.par_chunks(task)
                .zip(up.par_chunks(task))
                .zip(dy.par_chunks(task)),
        )
        .for_each(|((dgate, dup), ((gate, up), dy))| {
            Arch::new().dispatch(Backward {
                dgate,
                dup,
                gate,
                up,
                dy,
            });
        });
    Ok((
        f32_tensor(dgate, gate_TF.dims())?,
        f32_tensor(dup, gate_TF.dims())?,
    ))
}

struct Forward<'a> {
    y: &'a mut [f32],
    gate: &'a [f32],
    up: &'a [f32],
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { y, gate, up } = self;
        map2(
            simd,
            y,
            (gate, up),
            #[inline(always)]
            |gate, up| simd.mul_f32s(simd.mul_f32s(gate, sigmoid(simd, gate)), up),
        );
    }
}

struct Backward<'a> {
    dgate: &'a mut [f32],
    dup: &'a mut [f32],
    gate: &'a [f32],
    up: &'a [f32],
    dy: &'a [f32],
}

impl WithSimd for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self {
            dgate,
            dup,
            gate,
            up,
            dy,
        } = self;
        let one = simd.splat_f32s(1.0);
        map3_pair(
            simd,
            (dgate, dup),
            (gate, up, dy),
            #[inline(always)]
            |gate, up, dy| {
                let s = sigmoid(simd, gate);
                let dy_s = simd.mul_f32s(dy, s);
                let slope = simd.mul_add_e_f32s(gate, simd.sub_f32s(one, s), one);
                let dgate = simd.mul_f32s(simd.mul_f32s(dy_s, up), slope);
                (dgate, simd.mul_f32s(dy_s, gate))
            },
        );
    }
}

#[cfg(test)]
mod tests;
