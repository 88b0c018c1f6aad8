//! AdamW in one pass over parameters, gradients and both moments, and the norm that clipping
//! needs. Plain slices: the trainer owns the buffers.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use crate::error::Result;
use crate::simd::dot;
use crate::tensor::expect_len;

/// Elements of a task; divides sums at fixed places, so they are the same on any machine.
const TASK: usize = 1 << 16;

/// Elements that are summed in f32 before the sum goes on in f64.
const NORM_RUN: usize = 1 << 10;

/// The numbers of one optimiser step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWStep {
    pub lr: f64,
    pub beta1: f64,
    pub beta2: f64,
    pub eps: f64,
    /// Decoupled: the parameter shrinks by lr·weight_decay of itself.
    pub weight_decay: f64,
    /// Counts from 1; the bias correction of step 0 would divide by zero.
    pub step: u64,
    /// What the gradient is multiplied by first: 1/labels, the clip factor, or both. 1 for none.
    pub grad_scale: f32,
}

/// One step in place, m and v being the moments (zero before step 1): Loshchilov and Hutter, "Decoupled Weight Decay Regularization" (arXiv
/// 1711.05101), in the order of operations of torch.optim.AdamW:
///
/// p ← p·(1 − lr·weight_decay); m ← β1·m + (1−β1)·g; v ← β2·v + (1−β2)·g²;
/// p ← p − lr/(1−β1^step) · m / (√v/√(1−β2^step) + eps)
pub fn adamw_step(
    param: &mut [f32],
    grad: &[f32],
    m: &mut [f32],
    v: &mut [f32],
    step: &AdamWStep,
) -> Result<()> {
    expect_len("adamw_step", "grad", param.len(), grad.len())?;
    expect_len("adamw_step", "first moment", param.len(), m.len())?;
    expect_len("adamw_step", "second moment", param.len(), v.len())?;
    let factors = Factors::new(step);
    param
        .par_chunks_mut(TASK)
        .zip(grad.par_chunks(TASK))
        .zip(m.par_chunks_mut(TASK).zip(v.par_chunks_mut(TASK)))
        .for_each(|((param, grad), (m, v))| {
            Arch::new().dispatch(|| update(param, grad, m, v, factors));
        });
    Ok(())
}

/// Σ of squares, in f64. The order of the additions depends on the length alone.
pub fn squared_norm(values: &[f32]) -> f64 {
    let parts: Vec<f64> = values
        .par_chunks(TASK)
        .map(|part| {
            part.chunks(NORM_RUN)
                .map(|run| Arch::new().dispatch(Squares(run)))
                .sum()
        })
        .collect();
    parts.iter().sum()
}

/// The step's constants, worked out in f64 and rounded once.
#[derive(Clone, Copy, Debug)]
struct Factors {
    keep: f32,
    beta1: f32,
    beta2: f32,
    one_minus_beta1: f32,
    one_minus_beta2: f32,
    rate: f32,
    inverse_root_correction2: f32,
    eps: f32,
    grad_scale: f32,
}

impl Factors {
    fn new(step: &AdamWStep) -> Self {
        let steps = step.step.max(1) as f64;
        Self {
            keep: (1.0 - step.lr * step.weight_decay) as f32,
            beta1: step.beta1 as f32,
            beta2: step.beta2 as f32,
            one_minus_beta1: (1.0 - step.beta1) as f32,
            one_minus_beta2: (1.0 - step.beta2) as f32,
            rate: (step.lr / (1.0 - step.beta1.powf(steps))) as f32,
            inverse_root_correction2: (1.0 - step.beta2.powf(steps)).sqrt().recip() as f32,
            eps: step.eps as f32,
            grad_scale: step.grad_scale,
        }
    }
}

/// Vectorised by the compiler inside `dispatch`.
#[inline(always)]
fn update(param: &mut [f32], grad: &[f32], m: &mut [f32], v: &mut [f32], f: Factors) {
    for ((p, g), (m, v)) in param.iter_mut().zip(grad).zip(m.iter_mut().zip(v)) {
        let g = g * f.grad_scale;
        *m = f.beta1 * *m + f.one_minus_beta1 * g;
        *v = f.beta2 * *v + f.one_minus_beta2 * g * g;
        let denominator = v.sqrt() * f.inverse_root_correction2 + f.eps;
        *p = *p * f.keep - f.rate * *m / denominator;
    }
}

struct Squares<'a>(&'a [f32]);

impl WithSimd for Squares<'_> {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f64 {
        f64::from(dot(simd, self.0, self.0))
    }
}

#[cfg(test)]
mod tests;
