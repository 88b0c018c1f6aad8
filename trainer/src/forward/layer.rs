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
use kernels::tensor::f32_view;
use kernels::{
    AttentionSaved, LogSumExp, causal_attention, causal_attention_backward, rms_norm,
    rms_norm_backward, rope, rope_backward, swiglu, swiglu_backward,
};

use super::linear::{backward, backward_add, forward, forward_add};
use super::{Network, Pass, add_into};
use crate::error::Result;
use crate::gradients::Gradients;
use crate::weights::{LayerWeights, Linear, Norm};

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
pub(super) fn forward_layer(
    network: &Network,
    weights: &LayerWeights,
    pass: &Pass<'_>,
    x_TC: &Tensor,
) -> Result<(Tensor, LayerActivations)> {
    let config = &network.config;
    let (H, G, D) = (
        config.num_attention_heads,
        config.num_key_value_heads,
        config.head_dim,
    );
    let T = pass.positions.len();
    let eps = config.rms_norm_eps as f32;
    let n_TC = rms_norm(x_TC, &weights.input_norm.values, eps)?;
    let rotated = |projection: &Linear, heads: usize| -> Result<Tensor> {
        let heads_THD = forward(&n_TC, projection, pass)?.reshape((T, heads, D))?;
        Ok(rope(&heads_THD, pass.positions, &network.rope)?)
    };
    let q_THD = rotated(&weights.q, H)?;
    let k_TGD = rotated(&weights.k, G)?;
    let v_TGD = forward(&n_TC, &weights.v, pass)?.reshape((T, G, D))?;
    let (attended_THD, log_sum_exp) = causal_attention(&q_THD, &k_TGD, &v_TGD, &pass.segments)?;
    let h_TC = x_TC.copy()?;
    forward_add(&attended_THD.flatten_from(1)?, &weights.o, pass, &h_TC)?;
    let m_TC = rms_norm(&h_TC, &weights.post_norm.values, eps)?;
    let gate_TF = forward(&m_TC, &weights.gate, pass)?;
    let up_TF = forward(&m_TC, &weights.up, pass)?;
    let inner_TF = swiglu(&gate_TF, &up_TF)?;
    let y_TC = h_TC.copy()?;
    forward_add(&inner_TF, &weights.down, pass, &y_TC)?;
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
pub(super) fn backward_layer(
    network: &Network,
    weights: &LayerWeights,
    pass: &Pass<'_>,
    activations: &LayerActivations,
    (dy_TC, gradients): (Tensor, &mut Gradients),
) -> Result<Tensor> {
    let dh_TC = backward_mlp(
        (network, weights),
        pass,
        activations,
        (dy_TC, &mut *gradients),
    )?;
    backward_attention((network, weights), pass, activations, (dh_TC, gradients))
}

/// From y back to h.
fn backward_mlp(
    (network, weights): (&Network, &LayerWeights),
    pass: &Pass<'_>,
    activations: &LayerActivations,
    (dy_TC, gradients): (Tensor, &mut Gradients),
) -> Result<Tensor> {
    let LayerActivations {
        h_TC,
        m_TC,
        gate_TF,
        up_TF,
        inner_TF,
        ..
    } = activations;
    let dinner_TF = backward((&dy_TC, inner_TF), &weights.down, pass, gradients)?;
    let (dgate_TF, dup_TF) = swiglu_backward(gate_TF, up_TF, &dinner_TF)?;
    drop(dinner_TF);
    let dm_TC = backward((&dgate_TF, m_TC), &weights.gate, pass, gradients)?;
    backward_add((&dup_TF, m_TC), &weights.up, pass, (gradients, &dm_TC))?;
    let input = (network, &weights.post_norm, h_TC);
    backward_norm(input, (&dm_TC, &dy_TC), gradients)
}

/// From h back to x.
fn backward_attention(
    (network, weights): (&Network, &LayerWeights),
    pass: &Pass<'_>,
    activations: &LayerActivations,
    (dh_TC, gradients): (Tensor, &mut Gradients),
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
    let attended_TE = attended_THD.flatten_from(1)?;
    let dattended_TE = backward((&dh_TC, &attended_TE), &weights.o, pass, gradients)?;
    let saved = AttentionSaved {
        q: q_THD,
        k: k_TGD,
        v: v_TGD,
        out: attended_THD,
        log_sum_exp,
        segments: &pass.segments,
    };
    let (dq_THD, dk_TGD, dv_TGD) =
        causal_attention_backward(&saved, &dattended_TE.reshape(q_THD.shape())?)?;
    let unrotated = |dy: &Tensor| -> Result<Tensor> {
        Ok(rope_backward(dy, pass.positions, &network.rope)?.flatten_from(1)?)
    };
    let dn_TC = backward((&unrotated(&dq_THD)?, n_TC), &weights.q, pass, gradients)?;
    let dk_TK = unrotated(&dk_TGD)?;
    backward_add((&dk_TK, n_TC), &weights.k, pass, (gradients, &dn_TC))?;
    let dv_TK = dv_TGD.flatten_from(1)?;
    backward_add((&dv_TK, n_TC), &weights.v, pass, (gradients, &dn_TC))?;
    let input = (network, &weights.input_norm, x_TC);
    backward_norm(input, (&dn_TC, &dh_TC), gradients)
}

/// The gradient of a norm's input: through the norm, and past it on the residual stream.
fn backward_norm(
    (network, norm, x_TC): (&Network, &Norm, &Tensor),
    (dn_TC, past_TC): (&Tensor, &Tensor),
    gradients: &mut Gradients,
) -> Result<Tensor> {
    let eps = network.config.rms_norm_eps as f32;
    let (dx_TC, dw_C) = rms_norm_backward(x_TC, &norm.values, eps, dn_TC)?;
    if let Some(slot) = norm.slot {
        add_to(gradients.get_mut(slot), &dw_C)?;
    }
    add_into(&dx_TC, past_TC)?;
    Ok(dx_TC)
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
