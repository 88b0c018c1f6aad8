//! The language-model head and its loss in one, over label rows only and a chunk of rows at a
//! time: logits of the whole batch never exist. Forward and backward are one pass, because the
//! gradient of a row's logits is softmax − one-hot, at hand as soon as the logits are.
//! The scheme is that of Liger-Kernel's fused linear cross-entropy (arXiv 2410.10989).
#![expect(non_snake_case, reason = "tensors end in their shape")]

use candle_core::Tensor;
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::matmul::{Mat, MatMut, Threads, matmul};
use crate::matrix::{Compute, Matrix};
use crate::rows::rows_per_task;
use crate::simd::{dot, exp_shifted, max};
use crate::step::Output;
use crate::tensor::{dims2, expect_dims, expect_len, f32_tensor, f32_view};

/// Logits of one chunk that are aimed at: 4 MiB, so that they stay in the cache between the
/// products and the softmax.
const CHUNK_LOGITS: usize = 1 << 20;

/// Rows of a chunk at least, also where the vocabulary is large: each chunk reads and writes all
/// of dw once, which these rows have to pay for.
const MIN_CHUNK_ROWS: usize = 128;

/// The loss before any division: sums and count over label rows.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CrossEntropy {
    /// Σ of −ln p(target), in nats.
    pub nll_sum: f64,
    /// What the gradient is of: with label smoothing ε, Σ of (1 − ε)·(−ln p(target)) + ε times the
    /// mean of −ln p over the vocabulary. Without, `nll_sum`.
    pub loss_sum: f64,
    /// Label rows, as many as targets.
    pub num_labels: usize,
}

/// How the loss is computed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossOptions {
    /// The share of a label that is spread over the whole vocabulary, as `label_smoothing` of
    /// `torch.nn.functional.cross_entropy` (Szegedy et al., arXiv 1512.00567). 0 for none.
    pub label_smoothing: f32,
    pub compute: Compute,
}

/// The loss of label rows hidden_LC under the head w_VC; for evaluation.
pub fn cross_entropy(
    hidden_LC: &Tensor,
    head_VC: &Matrix,
    targets: &[u32],
    options: LossOptions,
) -> Result<CrossEntropy> {
    let op = "cross_entropy";
    let (L, V, C) = check((op, &options), hidden_LC, head_VC, targets)?;
    let hidden = f32_view(op, "hidden", hidden_LC)?;
    let w = head_VC.view(op, "head")?;
    let w = Mat::dense(w.values(), V, C);
    let chunk_rows = chunk_rows(L, V);
    let mut logits = vec![0.0; chunk_rows * V];
    let mut loss = CrossEntropy::default();
    for start in (0..L).step_by(chunk_rows) {
        let rows = chunk_rows.min(L - start);
        let logits = &mut logits[..rows * V];
        let hidden = Mat::new(&hidden[start * C..], rows, C, C);
        let out = MatMut::new(logits, rows, V, V);
        let operands = (hidden, w);
        matmul(
            out,
            Output::Overwrite,
            operands,
            options.compute,
            Threads::Pool,
        );
        let chunk = Chunk {
            V,
            smoothing: options.label_smoothing,
            gradient: Gradient::None,
        };
        loss.add(&chunk.loss(logits, &targets[start..start + rows]));
    }
    Ok(loss)
}

/// The loss of label rows hidden_LC under the head w_VC, with the gradients of
/// `grad_scale`·loss_sum: returns dhidden_LC, adds the head's gradient to dw_VC. A frozen head has
/// none.
///
/// `grad_scale` is 1 / (label tokens of the whole accumulation window), or 1 where the optimiser
/// divides.
pub fn cross_entropy_backward(
    hidden_LC: &Tensor,
    head_VC: &Matrix,
    targets: &[u32],
    (options, grad_scale): (LossOptions, f32),
    mut dw_VC: Option<&mut [f32]>,
) -> Result<(CrossEntropy, Tensor)> {
    let op = "cross_entropy_backward";
    let (L, V, C) = check((op, &options), hidden_LC, head_VC, targets)?;
    if let Some(dw) = &dw_VC {
        expect_len(op, "dw", V * C, dw.len())?;
    }
    let compute = options.compute;
    let hidden = f32_view(op, "hidden", hidden_LC)?;
    let w = head_VC.view(op, "head")?;
    let w = Mat::dense(w.values(), V, C);
    let chunk_rows = chunk_rows(L, V);
    let mut logits = vec![0.0; chunk_rows * V];
    let mut dhidden = vec![0.0; L * C];
    let mut loss = CrossEntropy::default();
    for start in (0..L).step_by(chunk_rows) {
        let rows = chunk_rows.min(L - start);
        let logits = &mut logits[..rows * V];
        let hidden = Mat::new(&hidden[start * C..], rows, C, C);
        let out = MatMut::new(logits, rows, V, V);
        matmul(out, Output::Overwrite, (hidden, w), compute, Threads::Pool);
        let chunk = Chunk {
            V,
            smoothing: options.label_smoothing,
            gradient: Gradient::Scaled(grad_scale),
        };
        loss.add(&chunk.loss(logits, &targets[start..start + rows]));
        let dlogits = Mat::new(logits, rows, V, V);
        let dh = MatMut::new(&mut dhidden[start * C..], rows, C, C);
        let operands = (dlogits, w.t());
        matmul(dh, Output::Overwrite, operands, compute, Threads::Pool);
        if let Some(dw) = &mut dw_VC {
            let dw = MatMut::new(dw, V, C, C);
            let operands = (dlogits.t(), hidden.t());
            matmul(dw, Output::Add, operands, compute, Threads::Pool);
        }
    }
    Ok((loss, f32_tensor(dhidden, &[L, C])?))
}

/// (L, V, C), checked.
fn check(
    (op, options): (&'static str, &LossOptions),
    hidden_LC: &Tensor,
    head_VC: &Matrix,
    targets: &[u32],
) -> Result<(usize, usize, usize)> {
    let (L, _) = dims2(op, "hidden", hidden_LC)?;
    let (V, C) = head_VC.dims();
    expect_dims(op, "hidden", &[L, C], hidden_LC)?;
    expect_len(op, "targets", L, targets.len())?;
    if let Some(target) = targets.iter().find(|target| **target as usize >= V) {
        let expected = format!("below the vocabulary size {V}");
        return Err(value_error((op, "targets"), expected, target));
    }
    let smoothing = options.label_smoothing;
    if !(0.0..=1.0).contains(&smoothing) {
        let expected = "between 0 and 1".to_owned();
        return Err(value_error((op, "label_smoothing"), expected, &smoothing));
    }
    Ok((L, V, C))
}

fn value_error(
    (op, argument): (&'static str, &'static str),
    expected: String,
    found: &impl ToString,
) -> Error {
    Error::Value {
        op,
        argument,
        expected,
        found: found.to_string(),
    }
}

/// Bytes of the logits that exist at once for this many label rows.
pub fn logit_chunk_bytes(num_labels: usize, vocab_size: usize) -> usize {
    4 * vocab_size * chunk_rows(num_labels, vocab_size)
}

/// Depends on the shape only, so the sums are the same on any machine.
fn chunk_rows(L: usize, V: usize) -> usize {
    (CHUNK_LOGITS / V.max(1)).max(MIN_CHUNK_ROWS).min(L).max(1)
}

/// What becomes of the logits.
#[derive(Clone, Copy, Debug)]
enum Gradient {
    /// They are scratch.
    None,
    /// They are replaced by this multiple of the gradient of their row's loss.
    Scaled(f32),
}

impl CrossEntropy {
    fn add(&mut self, other: &Self) {
        self.nll_sum += other.nll_sum;
        self.loss_sum += other.loss_sum;
        self.num_labels += other.num_labels;
    }
}

/// What to do with rows of logits, V long.
#[derive(Clone, Copy, Debug)]
struct Chunk {
    V: usize,
    smoothing: f32,
    gradient: Gradient,
}

impl Chunk {
    /// The rows' losses, added in the order of the rows.
    fn loss(self, logits: &mut [f32], targets: &[u32]) -> CrossEntropy {
        let task_rows = rows_per_task(self.V);
        let parts: Vec<CrossEntropy> = logits
            .par_chunks_mut(task_rows * self.V)
            .zip(targets.par_chunks(task_rows))
            .map(|(logits, targets)| {
                Arch::new().dispatch(Rows {
                    logits,
                    targets,
                    chunk: self,
                })
            })
            .collect();
        let mut sum = CrossEntropy::default();
        for part in &parts {
            sum.add(part);
        }
        sum
    }
}

/// Some rows of logits; returns the sum of their losses.
struct Rows<'a> {
    logits: &'a mut [f32],
    targets: &'a [u32],
    chunk: Chunk,
}

impl WithSimd for Rows<'_> {
    type Output = CrossEntropy;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> CrossEntropy {
        let Chunk {
            V,
            smoothing,
            gradient,
        } = self.chunk;
        let ones = [1.0; 64];
        let mut loss = CrossEntropy {
            num_labels: self.targets.len(),
            ..CrossEntropy::default()
        };
        for (row, target) in self.logits.chunks_exact_mut(V).zip(self.targets) {
            let target = *target as usize;
            let target_logit = f64::from(row[target]);
            let mean_logit = match smoothing {
                0.0 => target_logit,
                _ => {
                    row.chunks(64)
                        .map(|run| f64::from(dot(simd, run, &ones[..run.len()])))
                        .sum::<f64>()
                        / V as f64
                }
            };
            let largest = max(simd, row);
            let sum = exp_shifted(simd, row, (1.0, largest));
            let log_sum = f64::from(largest) + f64::from(sum).ln();
            let share = f64::from(smoothing);
            loss.nll_sum += log_sum - target_logit;
            loss.loss_sum += log_sum - (1.0 - share) * target_logit - share * mean_logit;
            if let Gradient::Scaled(scale) = gradient {
                let (factor, spread) = (scale / sum, scale * smoothing / V as f32);
                for x in row.iter_mut() {
                    *x = *x * factor - spread;
                }
                row[target] -= scale * (1.0 - smoothing);
            }
        }
        loss
    }
}

#[cfg(test)]
mod tests;
