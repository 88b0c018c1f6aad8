//! The language-model head and its loss in one, over label rows only and a chunk of rows at a
//! time: logits of the whole batch never exist. Forward and backward are one pass, because the
//! gradient of a row's logits is softmax − one-hot, at hand as soon as the logits are.
//! The scheme is that of Liger-Kernel's fused linear cross-entropy (arXiv 2410.10989).
#![expect(non_snake_case, reason = "tensors end in their shape")]

use candle_core::Tensor;
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::matmul::{Destination, Mat, MatMut, Threads, is_worth_transposing, matmul, transposed};
use crate::matmul_nt::{Sizes, matmul_nt_into};
use crate::rows::rows_per_task;
use crate::simd::{exp_shifted, max};
use crate::tensor::{dims2, expect_dims, expect_len, f32_tensor, f32_view};

/// Logits of one chunk that are aimed at: 4 MiB, so that they stay in the cache between the
/// products and the softmax.
const CHUNK_LOGITS: usize = 1 << 20;

/// Rows of a chunk at least, also where the vocabulary is large: each chunk reads and writes all
/// of dw once, which these rows have to pay for.
const MIN_CHUNK_ROWS: usize = 128;

/// The loss before any division: sum and count over label rows.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CrossEntropy {
    /// Σ of −ln p(target), in nats.
    pub nll_sum: f64,
    /// Label rows, as many as targets.
    pub num_labels: usize,
}

/// The loss of label rows hidden_LC under the head w_VC; for evaluation.
pub fn cross_entropy(hidden_LC: &Tensor, w_VC: &Tensor, targets: &[u32]) -> Result<CrossEntropy> {
    let op = "cross_entropy";
    let (L, V, C) = check(op, hidden_LC, w_VC, targets)?;
    let hidden = f32_view(op, "hidden", hidden_LC)?;
    let w = f32_view(op, "w", w_VC)?;
    let head = Head::new(&w, (L, V, C));
    let chunk_rows = chunk_rows(L, V);
    let mut logits = vec![0.0; chunk_rows * V];
    let mut nll_sum = 0.0;
    for start in (0..L).step_by(chunk_rows) {
        let rows = chunk_rows.min(L - start);
        let logits = &mut logits[..rows * V];
        let hidden = &hidden[start * C..(start + rows) * C];
        head.logits(logits, hidden, rows);
        nll_sum += sum_nll(logits, V, &targets[start..start + rows], Gradient::None);
    }
    Ok(CrossEntropy {
        nll_sum,
        num_labels: L,
    })
}

/// The loss of label rows hidden_LC under the head w_VC, with the gradients of
/// `grad_scale`·nll_sum: returns dhidden_LC, adds the head's gradient to dw_VC.
///
/// `grad_scale` is 1 / (label tokens of the whole accumulation window), or 1 where the optimiser
/// divides.
pub fn cross_entropy_backward(
    hidden_LC: &Tensor,
    w_VC: &Tensor,
    targets: &[u32],
    grad_scale: f32,
    dw_VC: &mut [f32],
) -> Result<(CrossEntropy, Tensor)> {
    let op = "cross_entropy_backward";
    let (L, V, C) = check(op, hidden_LC, w_VC, targets)?;
    expect_len(op, "dw", V * C, dw_VC.len())?;
    let hidden = f32_view(op, "hidden", hidden_LC)?;
    let w = f32_view(op, "w", w_VC)?;
    let head = Head::new(&w, (L, V, C));
    let chunk_rows = chunk_rows(L, V);
    let mut logits = vec![0.0; chunk_rows * V];
    let mut dhidden = vec![0.0; L * C];
    let mut nll_sum = 0.0;
    for start in (0..L).step_by(chunk_rows) {
        let rows = chunk_rows.min(L - start);
        let logits = &mut logits[..rows * V];
        let hidden = &hidden[start * C..(start + rows) * C];
        head.logits(logits, hidden, rows);
        let gradient = Gradient::Scaled(grad_scale);
        nll_sum += sum_nll(logits, V, &targets[start..start + rows], gradient);
        let dlogits = Mat::new(logits, rows, V, V);
        let dh = MatMut::new(&mut dhidden[start * C..], rows, C, C);
        matmul(
            dh,
            Destination::Overwrite,
            (dlogits, Mat::new(&w, V, C, C)),
            1.0,
            Threads::Pool,
        );
        let dw = MatMut::new(dw_VC, V, C, C);
        matmul(
            dw,
            Destination::Add,
            (dlogits.t(), Mat::new(hidden, rows, C, C)),
            1.0,
            Threads::Pool,
        );
    }
    Ok((
        CrossEntropy {
            nll_sum,
            num_labels: L,
        },
        f32_tensor(dhidden, &[L, C])?,
    ))
}

/// The head's weights in the form that suits the number of rows.
enum Head<'a> {
    /// w_VC as it is.
    Stored { w: &'a [f32], V: usize, C: usize },
    /// w_CV.
    Transposed { w: Vec<f32>, V: usize, C: usize },
}

impl<'a> Head<'a> {
    fn new(w: &'a [f32], (L, V, C): (usize, usize, usize)) -> Self {
        if is_worth_transposing(L, w) {
            Self::Transposed {
                w: transposed(w, V, C),
                V,
                C,
            }
        } else {
            Self::Stored { w, V, C }
        }
    }

    /// Logits [rows, V] of hidden [rows, C].
    fn logits(&self, logits: &mut [f32], hidden: &[f32], rows: usize) {
        match *self {
            Self::Stored { w, V, C } => {
                matmul_nt_into(logits, hidden, w, Sizes { T: rows, O: V, C });
            }
            Self::Transposed { ref w, V, C } => {
                let operands = (Mat::new(hidden, rows, C, C), Mat::new(w, C, V, V));
                let logits = MatMut::new(logits, rows, V, V);
                matmul(logits, Destination::Overwrite, operands, 1.0, Threads::Pool);
            }
        }
    }
}

/// (L, V, C), checked.
fn check(
    op: &'static str,
    hidden_LC: &Tensor,
    w_VC: &Tensor,
    targets: &[u32],
) -> Result<(usize, usize, usize)> {
    let (L, C) = dims2(op, "hidden", hidden_LC)?;
    let (V, _) = dims2(op, "w", w_VC)?;
    expect_dims(op, "w", &[V, C], w_VC)?;
    expect_len(op, "targets", L, targets.len())?;
    if let Some(target) = targets.iter().find(|target| **target as usize >= V) {
        let expected = format!("below the vocabulary size {V}");
        let found = target.to_string();
        return Err(Error::Value {
            op,
            argument: "targets",
            expected,
            found,
        });
    }
    Ok((L, V, C))
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

/// Σ of the rows' losses, in the order of the rows.
fn sum_nll(logits: &mut [f32], V: usize, targets: &[u32], gradient: Gradient) -> f64 {
    let task_rows = rows_per_task(V);
    let parts: Vec<f64> = logits
        .par_chunks_mut(task_rows * V)
        .zip(targets.par_chunks(task_rows))
        .map(|(logits, targets)| {
            Arch::new().dispatch(Rows {
                logits,
                V,
                targets,
                gradient,
            })
        })
        .collect();
    parts.iter().sum()
}

/// Some rows of logits; returns the sum of their losses.
struct Rows<'a> {
    logits: &'a mut [f32],
    V: usize,
    targets: &'a [u32],
    gradient: Gradient,
}

impl WithSimd for Rows<'_> {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f64 {
        let mut nll_sum = 0.0;
        for (row, target) in self.logits.chunks_exact_mut(self.V).zip(self.targets) {
            let target = *target as usize;
            let target_logit = f64::from(row[target]);
            let largest = max(simd, row);
            let sum = exp_shifted(simd, row, largest);
            nll_sum += f64::from(largest) + f64::from(sum).ln() - target_logit;
            if let Gradient::Scaled(scale) = self.gradient {
                let factor = scale / sum;
                for x in row.iter_mut() {
                    *x *= factor;
                }
                row[target] -= scale;
            }
        }
        nll_sum
    }
}

#[cfg(test)]
mod tests;
