//! AdamW in one pass over parameters, gradients and both moments, whatever these are stored in, and
//! the norm that clipping needs. Arithmetic is f32; storage narrower than that is widened and rounded
//! a block at a time, so there is no second copy of anything.

mod moments;
mod quantized;
mod rounding;

use candle_core::{DType, Tensor};
use half::bf16;
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

pub use self::moments::{Moments, MomentsFormat};
pub use self::quantized::{Quantized, moment_tables};
pub use self::rounding::Rounding;

use self::moments::MomentsMut;
use crate::error::{Error, Result};
use crate::simd::dot;
use crate::tensor::{bf16_update, expect_len, f32_update};

/// Elements of a task; divides sums at fixed places, so they are the same on any machine.
const TASK: usize = 1 << 16;

/// Elements that are widened together; also how many 8-bit values share a scale.
const BLOCK: usize = 256;

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

/// One step in place: Loshchilov and Hutter, "Decoupled Weight Decay Regularization" (arXiv
/// 1711.05101), in the order of operations of torch.optim.AdamW:
///
/// p ← p·(1 − lr·weight_decay); m ← β1·m + (1−β1)·g; v ← β2·v + (1−β2)·g²;
/// p ← p − lr/(1−β1^step) · m / (√v/√(1−β2^step) + eps)
///
/// `param` is f32, or bf16: then it is rounded stochastically, since at a learning rate of 1e-5 a step
/// is less than half the distance to the next bf16 for most weights, and rounding to nearest would
/// undo it. `rounding` has to be another one for each parameter and step.
///
/// # Errors
/// When the lengths differ, or `param` is neither f32 nor bf16, or not contiguous on the CPU.
pub fn adamw_step(
    param: &Tensor,
    grad: &[f32],
    moments: &mut Moments,
    step: &AdamWStep,
    rounding: Rounding,
) -> Result<()> {
    let op = "adamw_step";
    expect_len(op, "grad", param.elem_count(), grad.len())?;
    expect_len(op, "moments", param.elem_count(), moments.len())?;
    let factors = AdamWFactors::new(step);
    let moments = moments.as_mut();
    match param.dtype() {
        DType::F32 => f32_update(op, "param", param, |values| {
            run(ParamMut::F32(values), grad, moments, (factors, rounding));
        }),
        DType::BF16 => bf16_update(op, "param", param, |values| {
            run(ParamMut::Bf16(values), grad, moments, (factors, rounding));
        }),
        found => Err(Error::DType {
            op,
            argument: "param",
            found,
            expected: DType::F32,
        }),
    }
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

/// A parameter's values as stored.
enum ParamMut<'a> {
    F32(&'a mut [f32]),
    Bf16(&'a mut [bf16]),
}

impl ParamMut<'_> {
    fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::Bf16(values) => values.len(),
        }
    }

    fn split_at(self, at: usize) -> (Self, Self) {
        match self {
            Self::F32(values) => {
                let (head, tail) = values.split_at_mut(at);
                (Self::F32(head), Self::F32(tail))
            }
            Self::Bf16(values) => {
                let (head, tail) = values.split_at_mut(at);
                (Self::Bf16(head), Self::Bf16(tail))
            }
        }
    }
}

/// Consecutive elements that one thread steps.
struct Task<'a> {
    /// Of the first element.
    index: usize,
    param: ParamMut<'a>,
    grad: &'a [f32],
    moments: MomentsMut<'a>,
}

fn run(
    mut param: ParamMut<'_>,
    grad: &[f32],
    mut moments: MomentsMut<'_>,
    (factors, rounding): (AdamWFactors, Rounding),
) {
    let mut tasks = Vec::with_capacity(grad.len().div_ceil(TASK));
    for (number, grad) in grad.chunks(TASK).enumerate() {
        let (own_param, rest_param) = param.split_at(grad.len());
        let (own_moments, rest_moments) = moments.split_at(grad.len());
        (param, moments) = (rest_param, rest_moments);
        tasks.push(Task {
            index: number * TASK,
            param: own_param,
            grad,
            moments: own_moments,
        });
    }
    tasks.into_par_iter().for_each(|task| {
        Arch::new().dispatch(|| task.step(factors, rounding));
    });
}

impl Task<'_> {
    #[inline(always)]
    fn step(self, factors: AdamWFactors, rounding: Rounding) {
        let Self {
            index,
            param,
            grad,
            moments,
        } = self;
        match (param, moments) {
            (ParamMut::F32(param), MomentsMut::F32 { first, second }) => {
                update(param, grad, (first, second), factors);
            }
            (param, moments) => step_blocks(param, grad, moments, (index, factors, rounding)),
        }
    }
}

/// Widens, updates and rounds block by block.
#[inline(always)]
fn step_blocks(
    mut param: ParamMut<'_>,
    grad: &[f32],
    mut moments: MomentsMut<'_>,
    (index, factors, rounding): (usize, AdamWFactors, Rounding),
) {
    let (mut wide, mut first, mut second) = ([0.0; BLOCK], [0.0; BLOCK], [0.0; BLOCK]);
    let mut bits = [0; BLOCK];
    for (number, grad) in grad.chunks(BLOCK).enumerate() {
        let count = grad.len();
        let (own_param, rest_param) = param.split_at(count);
        let (mut own_moments, rest_moments) = moments.split_at(count);
        (param, moments) = (rest_param, rest_moments);
        debug_assert_eq!(own_param.len(), count);
        rounding.fill((index + number * BLOCK) as u64, &mut bits);
        own_moments.widen(&mut first, &mut second);
        let averages = (&mut first[..count], &mut second[..count]);
        match own_param {
            ParamMut::F32(param) => update(param, grad, averages, factors),
            ParamMut::Bf16(param) => {
                let wide = &mut wide[..count];
                for (wide, stored) in wide.iter_mut().zip(param.iter()) {
                    *wide = stored.to_f32();
                }
                update(wide, grad, averages, factors);
                for ((stored, wide), bits) in param.iter_mut().zip(wide).zip(&bits) {
                    *stored = rounding::stochastic(*wide, *bits as u16);
                }
            }
        }
        own_moments.store(&first[..count], &second[..count], &bits);
    }
}

/// The step's constants, worked out in f64 and rounded once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWFactors {
    /// 1 − lr · weight decay.
    pub keep: f32,
    pub beta1: f32,
    pub beta2: f32,
    pub one_minus_beta1: f32,
    pub one_minus_beta2: f32,
    /// lr / (1 − β1^step).
    pub rate: f32,
    /// 1 / √(1 − β2^step).
    pub inverse_root_correction2: f32,
    pub eps: f32,
    pub grad_scale: f32,
}

impl AdamWFactors {
    pub fn new(step: &AdamWStep) -> Self {
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
fn update(param: &mut [f32], grad: &[f32], (m, v): (&mut [f32], &mut [f32]), f: AdamWFactors) {
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
