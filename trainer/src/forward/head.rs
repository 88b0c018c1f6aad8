//! Final norm, output head and loss, on the rows that carry a label only. Prompt tokens would
//! otherwise cost half of the largest matmul (52 % of GSM8K's training tokens carry a label).
//!
//! Shape letters: T tokens of a packed batch, L label rows, C hidden, V vocabulary.
#![expect(non_snake_case, reason = "tensors end in their shape")]

use candle_core::{Device, Tensor};
use kernels::{
    CrossEntropy, LossOptions, cross_entropy, cross_entropy_backward, embedding_grad_accumulate,
    gather_rows, rms_norm, rms_norm_backward,
};

use super::layer::add_to;
use super::{Network, Pass};
use crate::error::Result;
use crate::gradients::Gradients;
use crate::pack::MicroBatch;

/// The loss over the labels, and the gradient of `grad_scale` times its sum by x_TC; the gradients of
/// the final norm and the head are added to `gradients`.
pub(super) fn loss_and_gradient(
    network: &Network,
    (batch, pass): (&MicroBatch, &Pass<'_>),
    x_TC: &Tensor,
    (gradients, grad_scale): (&mut Gradients, f32),
) -> Result<(CrossEntropy, Tensor)> {
    let weights = &network.weights;
    let eps = network.config.rms_norm_eps as f32;
    let x_LC = label_rows(batch, x_TC)?;
    let n_LC = rms_norm(&x_LC, &weights.norm.values, eps)?;
    let options = LossOptions {
        label_smoothing: network.label_smoothing,
        compute: pass.compute,
    };
    let head = weights.head();
    let (loss, dn_LC) = cross_entropy_backward(
        &n_LC,
        &head.matrix,
        &batch.targets,
        (options, grad_scale),
        head.slot.map(|slot| gradients.get_mut(slot)),
    )?;
    let (dx_LC, dw_C) = rms_norm_backward(&x_LC, &weights.norm.values, eps, &dn_LC)?;
    if let Some(slot) = weights.norm.slot {
        add_to(gradients.get_mut(slot), &dw_C)?;
    }
    Ok((loss, spread_rows(batch, x_TC.dims(), dx_LC)?))
}

/// Sum of NLL over the labels.
pub(super) fn loss(
    network: &Network,
    (batch, pass): (&MicroBatch, &Pass<'_>),
    x_TC: &Tensor,
) -> Result<f64> {
    let weights = &network.weights;
    let x_LC = label_rows(batch, x_TC)?;
    let eps = network.config.rms_norm_eps as f32;
    let n_LC = rms_norm(&x_LC, &weights.norm.values, eps)?;
    let options = LossOptions {
        label_smoothing: 0.0,
        compute: pass.compute,
    };
    Ok(cross_entropy(&n_LC, &weights.head().matrix, &batch.targets, options)?.nll_sum)
}

fn all_rows_have_labels(batch: &MicroBatch) -> bool {
    batch.label_rows.len() == batch.num_tokens()
}

/// The rows of x_TC that predict a label.
fn label_rows(batch: &MicroBatch, x_TC: &Tensor) -> Result<Tensor> {
    if all_rows_have_labels(batch) {
        return Ok(x_TC.clone());
    }
    Ok(gather_rows(&batch.label_rows, x_TC)?)
}

/// The gradient of [`label_rows`]: zero for every other row.
fn spread_rows(batch: &MicroBatch, dims: &[usize], dx_LC: Tensor) -> Result<Tensor> {
    if all_rows_have_labels(batch) {
        return Ok(dx_LC);
    }
    let mut dx = vec![0.0; dims.iter().product()];
    embedding_grad_accumulate(&batch.label_rows, &dx_LC, &mut dx)?;
    Ok(Tensor::from_vec(dx, dims, &Device::Cpu)?)
}
