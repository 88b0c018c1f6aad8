//! One transformer layer, forward and backward by hand:
//!
//! ```text
//! n = rms_norm(x)      q, k, v = rope(n·Wqᵀ), rope(n·Wkᵀ), n·Wvᵀ
//! h = x + attention(q, k, v)·Woᵀ
//! m = rms_norm(h)      y = h + swiglu(m·Wgateᵀ, m·Wupᵀ)·Wdownᵀ
//! ```
//!
//! Shape letters: T tokens of a packed batch, H query heads, G key/value heads, D head dimension,
//! C hidden, F inner width of the MLP, E = H·D, K = G·D.
#![expect(non_snake_case, reason = "tensors end in their shape")]

use candle_core::Tensor;
use kernels::tensor::{f32_update, f32_view};
use kernels::{
    AttentionSaved, Compute, LogSumExp, Matrix, causal_attention, causal_attention_backward,
    rms_norm, rms_norm_backward, rope, rope_backward, swiglu, swiglu_backward,
};
use model::weights::LayerWeights;
use rayon::prelude::*;

use super::{BatchShape, Network};
use crate::error::Result;
use crate::gradients::LayerGradients;

/// What [`backward`] needs of [`forward`]. Per token about 3C + 3E + 4K + 3F values.
#[derive(Debug)]
pub(super) struct LayerActivations {
    x_TC: Tensor,
    n_TC: Tensor,
    q_THD: Tensor,
    k_TGD: Tensor,
    v_TGD: Tensor,
    attended_THD: Tensor,
    log_sum_exp: LogSumExp,
    h_TC: Tensor,
    m_TC: Tensor,
    gate_TF: Tensor,
    up_TF: Tensor,
    inner_TF: Tensor,
}

/// The layer's output, and what its backward pass needs.
pub(super) fn forward(
    network: &Network,
    weights: &LayerWeights,
    shape: &BatchShape<'_>,
    x_TC: &Tensor,
) -> Result<(Tensor, LayerActivations)> {
    let config = &network.config;
    let (T, D) = (shape.positions.len(), config.head_dim);
    let (H, G) = (config.num_attention_heads, config.num_key_value_heads);
    let eps = config.rms_norm_eps as f32;
    let n_TC = rms_norm(x_TC, &weights.input_norm, eps)?;
    let rotated = |w: &Tensor, heads: usize| -> Result<Tensor> {
        let heads_THD = linear(&n_TC, w)?.reshape((T, heads, D))?;
        Ok(rope(&heads_THD, shape.positions, &network.rope)?)
    };
    let q_THD = rotated(&weights.q, H)?;
    let k_TGD = rotated(&weights.k, G)?;
    let v_TGD = linear(&n_TC, &weights.v)?.reshape((T, G, D))?;
    let (attended_THD, log_sum_exp) = causal_attention(&q_THD, &k_TGD, &v_TGD, &shape.segments)?;
    let attended_TE = attended_THD.flatten_from(1)?;
    let h_TC = sum(linear(&attended_TE, &weights.o)?, x_TC)?;
    let m_TC = rms_norm(&h_TC, &weights.post_norm, eps)?;
    let gate_TF = linear(&m_TC, &weights.gate)?;
    let up_TF = linear(&m_TC, &weights.up)?;
    let inner_TF = swiglu(&gate_TF, &up_TF)?;
    let y_TC = sum(linear(&inner_TF, &weights.down)?, &h_TC)?;
    let activations = LayerActivations {
        x_TC: x_TC.clone(),
        n_TC,
        q_THD,
        k_TGD,
        v_TGD,
        attended_THD,
        log_sum_exp,
        h_TC,
        m_TC,
        gate_TF,
        up_TF,
        inner_TF,
    };
    Ok((y_TC, activations))
}

/// The gradient of the layer's input for `dy_TC`; the weights' gradients are added to `gradients`.
pub(super) fn backward(
    network: &Network,
    weights: &LayerWeights,
    shape: &BatchShape<'_>,
    activations: &LayerActivations,
    (dy_TC, gradients): (&Tensor, &mut LayerGradients),
) -> Result<Tensor> {
    let dh_TC = backward_mlp(network, weights, activations, (dy_TC, &mut *gradients))?;
    backward_attention(network, weights, (shape, activations), (&dh_TC, gradients))
}

/// From y back to h.
fn backward_mlp(
    network: &Network,
    weights: &LayerWeights,
    activations: &LayerActivations,
    (dy_TC, gradients): (&Tensor, &mut LayerGradients),
) -> Result<Tensor> {
    let LayerActivations {
        h_TC,
        m_TC,
        gate_TF,
        up_TF,
        inner_TF,
        ..
    } = activations;
    let eps = network.config.rms_norm_eps as f32;
    linear_weight_grad_accumulate(dy_TC, inner_TF, &mut gradients.down)?;
    let dinner_TF = linear_input_grad(dy_TC, &weights.down)?;
    let (dgate_TF, dup_TF) = swiglu_backward(gate_TF, up_TF, &dinner_TF)?;
    linear_weight_grad_accumulate(&dgate_TF, m_TC, &mut gradients.gate)?;
    linear_weight_grad_accumulate(&dup_TF, m_TC, &mut gradients.up)?;
    let dm_TC = sum(
        linear_input_grad(&dgate_TF, &weights.gate)?,
        &linear_input_grad(&dup_TF, &weights.up)?,
    )?;
    let (dh_TC, dw_C) = rms_norm_backward(h_TC, &weights.post_norm, eps, &dm_TC)?;
    add_to(&mut gradients.post_norm, &dw_C)?;
    sum(dh_TC, dy_TC)
}

/// From h back to x.
fn backward_attention(
    network: &Network,
    weights: &LayerWeights,
    (shape, activations): (&BatchShape<'_>, &LayerActivations),
    (dh_TC, gradients): (&Tensor, &mut LayerGradients),
) -> Result<Tensor> {
    let LayerActivations {
        x_TC,
        n_TC,
        q_THD,
        k_TGD,
        v_TGD,
        attended_THD,
        log_sum_exp,
        ..
    } = activations;
    let eps = network.config.rms_norm_eps as f32;
    linear_weight_grad_accumulate(dh_TC, &attended_THD.flatten_from(1)?, &mut gradients.o)?;
    let dattended_THD = linear_input_grad(dh_TC, &weights.o)?.reshape(q_THD.shape())?;
    let saved = AttentionSaved {
        q: q_THD,
        k: k_TGD,
        v: v_TGD,
        out: attended_THD,
        log_sum_exp,
        segments: &shape.segments,
    };
    let (dq_THD, dk_TGD, dv_TGD) = causal_attention_backward(&saved, &dattended_THD)?;
    let unrotated = |dy: &Tensor| -> Result<Tensor> {
        Ok(rope_backward(dy, shape.positions, &network.rope)?.flatten_from(1)?)
    };
    let dq_TE = unrotated(&dq_THD)?;
    let dk_TK = unrotated(&dk_TGD)?;
    let dv_TK = dv_TGD.flatten_from(1)?;
    linear_weight_grad_accumulate(&dq_TE, n_TC, &mut gradients.q)?;
    linear_weight_grad_accumulate(&dk_TK, n_TC, &mut gradients.k)?;
    linear_weight_grad_accumulate(&dv_TK, n_TC, &mut gradients.v)?;
    let dn_TC = linear_input_grad(&dq_TE, &weights.q)?;
    let dn_TC = sum(dn_TC, &linear_input_grad(&dk_TK, &weights.k)?)?;
    let dn_TC = sum(dn_TC, &linear_input_grad(&dv_TK, &weights.v)?)?;
    let (dx_TC, dw_C) = rms_norm_backward(x_TC, &weights.input_norm, eps, &dn_TC)?;
    add_to(&mut gradients.input_norm, &dw_C)?;
    sum(dx_TC, dh_TC)
}

fn linear(x: &Tensor, w: &Tensor) -> kernels::Result<Tensor> {
    kernels::linear(x, &Matrix::F32(w.clone()), COMPUTE)
}

fn linear_input_grad(dy: &Tensor, w: &Tensor) -> kernels::Result<Tensor> {
    kernels::linear_input_grad(dy, &Matrix::F32(w.clone()), COMPUTE)
}

fn linear_weight_grad_accumulate(dy: &Tensor, x: &Tensor, dw: &mut [f32]) -> kernels::Result<()> {
    kernels::linear_weight_grad_accumulate(dy, x, COMPUTE, dw)
}

const COMPUTE: Compute = Compute::F32;

/// Values one task adds: enough to be worth handing to another thread.
const SUM_TASK: usize = 1 << 15;

/// own + other, in own's memory. Not candle's `+`: that hands every addition to a pool of its own
/// whose threads spin while they wait, which took a third of a small model's step.
fn sum(own: Tensor, other: &Tensor) -> Result<Tensor> {
    let other = f32_view("sum", "other", other)?;
    f32_update("sum", "own", &own, |own| {
        own.par_chunks_mut(SUM_TASK)
            .zip(other.par_chunks(SUM_TASK))
            .for_each(|(own, other)| {
                own.iter_mut()
                    .zip(other)
                    .for_each(|(own, other)| *own += other);
            });
    })?;
    Ok(own)
}

/// accumulator += gradient.
pub(super) fn add_to(accumulator: &mut [f32], gradient: &Tensor) -> Result<()> {
    let gradient = f32_view("add_to", "gradient", gradient)?;
    accumulator
        .iter_mut()
        .zip(gradient.iter())
        .for_each(|(sum, value)| *sum += value);
    Ok(())
}
