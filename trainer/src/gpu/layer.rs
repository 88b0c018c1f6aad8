//! One transformer layer, forward and backward by hand; formulas and order as in `crate::forward`.
//! The residual stream and sums are f32, factors of products bf16.

use cuda::{
    CausalSaved, CudaSlice, CudaView, CudaViewMut, Device, Documents, Heads, NormBackward, Turn,
};
use half::bf16;
use model::config::LlamaConfig;

use super::buffers::{Kept, LayerBuffers, Scratch, qkv_size};
use super::inputs::{Inputs, Part};
use super::layout::{Layer, Norm};
use super::linear::{Output, Products};
use super::rope::Rope;
use super::weights::Gradients;
use crate::error::Result;

/// A micro-batch on its way through the layers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pass<'a> {
    pub(super) device: &'a Device,
    pub(super) config: &'a LlamaConfig,
    pub(super) products: Products<'a>,
    pub(super) inputs: &'a Inputs,
    pub(super) rope: &'a Rope,
}

/// The stream after the layer, from the one before it.
pub(super) fn forward(
    pass: &Pass<'_>,
    layer: &Layer,
    buffers: &mut LayerBuffers<'_>,
) -> Result<()> {
    let Pass {
        device,
        products,
        inputs,
        ..
    } = pass;
    let sizes = Sizes::new(pass);
    let Kept {
        h,
        qkv,
        attended,
        log_sum_exp,
        ..
    } = &mut *buffers.kept;
    let Scratch { normed, .. } = &mut *buffers.scratch;
    let lora = &mut buffers.lora;

    norm(
        pass,
        &layer.input_norm,
        &buffers.x.slice(..sizes.stream),
        normed,
    )?;
    let mut to = qkv.slice_mut(..sizes.qkv);
    let to = Output::Bf16(&mut to);
    products.forward(
        &layer.qkv,
        &normed.slice(..sizes.stream),
        to,
        lora.as_deref_mut(),
    )?;
    let heads = heads(pass);
    let mut turned = qkv.slice_mut(..sizes.qkv);
    let positions = inputs.part(Part::Positions);
    let at = (&positions, heads);
    pass.rope.turn(device, &mut turned, at, Turn::Forward)?;
    let mut sums = log_sum_exp.slice_mut(..sizes.sums);
    let to = (&mut attended.slice_mut(..sizes.query), &mut sums);
    let [starts, bounds] = documents(inputs);
    let documents = Documents {
        starts: &starts,
        bounds: &bounds,
    };
    cuda::causal_attention(device, &qkv.slice(..sizes.qkv), documents, heads, to)?;
    let mut stream = h.slice_mut(..sizes.stream);
    device.copy(&buffers.x.slice(..sizes.stream), &mut stream)?;
    let to = Output::Residual(&mut stream);
    products.forward(
        &layer.o,
        &attended.slice(..sizes.query),
        to,
        lora.as_deref_mut(),
    )?;
    forward_mlp(pass, layer, buffers)
}

/// From the stream between attention and MLP to the one after the layer.
fn forward_mlp(pass: &Pass<'_>, layer: &Layer, buffers: &mut LayerBuffers<'_>) -> Result<()> {
    let Pass {
        device, products, ..
    } = pass;
    let sizes = Sizes::new(pass);
    let Kept { h, gate_up, .. } = &mut *buffers.kept;
    let Scratch { normed, inner, .. } = &mut *buffers.scratch;
    let lora = &mut buffers.lora;

    norm(pass, &layer.post_norm, &h.slice(..sizes.stream), normed)?;
    let mut to = gate_up.slice_mut(..2 * sizes.mlp);
    let to = Output::Bf16(&mut to);
    products.forward(
        &layer.gate_up,
        &normed.slice(..sizes.stream),
        to,
        lora.as_deref_mut(),
    )?;
    swiglu(pass, &gate_up.slice(..2 * sizes.mlp), inner)?;
    let mut stream = buffers.y.slice_mut(..sizes.stream);
    device.copy(&h.slice(..sizes.stream), &mut stream)?;
    let to = Output::Residual(&mut stream);
    products.forward(
        &layer.down,
        &inner.slice(..sizes.mlp),
        to,
        lora.as_deref_mut(),
    )
}

/// The gradient of the stream before the layer, from that of the stream after it, both in `dx`; the
/// weights' gradients are added to `gradients`.
pub(super) fn backward(
    pass: &Pass<'_>,
    layer: &Layer,
    buffers: &mut LayerBuffers<'_>,
    gradients: &mut Gradients,
) -> Result<()> {
    backward_mlp(pass, layer, buffers, gradients)?;
    backward_attention(pass, layer, buffers, gradients)
}

/// From the stream after the layer back to the one between attention and MLP.
fn backward_mlp(
    pass: &Pass<'_>,
    layer: &Layer,
    buffers: &mut LayerBuffers<'_>,
    gradients: &mut Gradients,
) -> Result<()> {
    let Pass {
        device, products, ..
    } = pass;
    let sizes = Sizes::new(pass);
    let Kept { h, gate_up, .. } = &mut *buffers.kept;
    let Scratch {
        dx,
        dx_bf16,
        normed,
        dnormed,
        inner,
        dinner,
        norm_sums,
        ..
    } = &mut *buffers.scratch;
    let lora = &mut buffers.lora;

    round(device, &dx.slice(..sizes.stream), dx_bf16)?;
    swiglu(pass, &gate_up.slice(..2 * sizes.mlp), inner)?;
    let sides = (&dx_bf16.slice(..sizes.stream), &inner.slice(..sizes.mlp));
    let to = &mut dinner.slice_mut(..sizes.mlp);
    products.backward(&layer.down, sides, to, (gradients, lora.as_deref_mut()))?;
    let dinner = dinner.slice(..sizes.mlp);
    let mut both = gate_up.slice_mut(..2 * sizes.mlp);
    let width = pass.config.intermediate_size;
    cuda::swiglu_backward(device, &mut both, &dinner, width)?;

    norm(pass, &layer.post_norm, &h.slice(..sizes.stream), normed)?;
    let gate_up = gate_up.slice(..2 * sizes.mlp);
    let sides = (&gate_up, &normed.slice(..sizes.stream));
    let to = &mut dnormed.slice_mut(..sizes.stream);
    products.backward(&layer.gate_up, sides, to, (gradients, lora.as_deref_mut()))?;
    let sides = (&dnormed.slice(..sizes.stream), &h.slice(..sizes.stream));
    let mut dx = dx.slice_mut(..sizes.stream);
    backward_norm(
        pass,
        &layer.post_norm,
        sides,
        (&mut dx, gradients),
        norm_sums,
    )
}

/// From the stream between attention and MLP back to the one before the layer.
fn backward_attention(
    pass: &Pass<'_>,
    layer: &Layer,
    buffers: &mut LayerBuffers<'_>,
    gradients: &mut Gradients,
) -> Result<()> {
    let Pass {
        device,
        products,
        inputs,
        ..
    } = pass;
    let sizes = Sizes::new(pass);
    let kept = &*buffers.kept;
    let Scratch {
        dx,
        dx_bf16,
        normed,
        dnormed,
        dattended,
        dqkv,
        delta,
        norm_sums,
        ..
    } = &mut *buffers.scratch;
    let lora = &mut buffers.lora;

    round(device, &dx.slice(..sizes.stream), dx_bf16)?;
    let attended = kept.attended.slice(..sizes.query);
    let sides = (&dx_bf16.slice(..sizes.stream), &attended);
    let to = &mut dattended.slice_mut(..sizes.query);
    products.backward(&layer.o, sides, to, (gradients, lora.as_deref_mut()))?;
    let [starts, bounds] = documents(inputs);
    let saved = CausalSaved {
        qkv: &kept.qkv.slice(..sizes.qkv),
        out: &attended,
        log_sum_exp: &kept.log_sum_exp.slice(..sizes.sums),
        documents: Documents {
            starts: &starts,
            bounds: &bounds,
        },
    };
    let heads = heads(pass);
    let dout = dattended.slice(..sizes.query);
    let to = (
        &mut dqkv.slice_mut(..sizes.qkv),
        &mut delta.slice_mut(..sizes.sums),
    );
    cuda::causal_attention_backward(device, saved, heads, &dout, to)?;
    let mut turned = dqkv.slice_mut(..sizes.qkv);
    let positions = inputs.part(Part::Positions);
    let at = (&positions, heads);
    pass.rope.turn(device, &mut turned, at, Turn::Back)?;

    norm(
        pass,
        &layer.input_norm,
        &buffers.x.slice(..sizes.stream),
        normed,
    )?;
    let sides = (&dqkv.slice(..sizes.qkv), &normed.slice(..sizes.stream));
    let to = &mut dnormed.slice_mut(..sizes.stream);
    products.backward(&layer.qkv, sides, to, (gradients, lora.as_deref_mut()))?;
    let sides = (
        &dnormed.slice(..sizes.stream),
        &buffers.x.slice(..sizes.stream),
    );
    let mut dx = dx.slice_mut(..sizes.stream);
    backward_norm(
        pass,
        &layer.input_norm,
        sides,
        (&mut dx, gradients),
        norm_sums,
    )
}

/// Values of each kind in a micro-batch.
struct Sizes {
    /// T·C
    stream: usize,
    /// T·(H + 2G)·D
    qkv: usize,
    /// T·H·D
    query: usize,
    /// H·T
    sums: usize,
    /// T·F
    mlp: usize,
}

impl Sizes {
    fn new(pass: &Pass<'_>) -> Self {
        let (config, num_tokens) = (pass.config, pass.inputs.num_tokens);
        Self {
            stream: num_tokens * config.hidden_size,
            qkv: num_tokens * qkv_size(config),
            query: num_tokens * config.query_size(),
            sums: num_tokens * config.num_attention_heads,
            mlp: num_tokens * config.intermediate_size,
        }
    }
}

fn heads(pass: &Pass<'_>) -> Heads {
    Heads {
        num_heads: pass.config.num_attention_heads,
        num_groups: pass.config.num_key_value_heads,
        head_dim: pass.config.head_dim,
    }
}

/// The input of the product behind a norm.
pub(super) fn norm(
    pass: &Pass<'_>,
    norm: &Norm,
    x: &CudaView<'_, f32>,
    to: &mut CudaSlice<bf16>,
) -> Result<()> {
    let weight = pass.products.weights.norm(norm);
    let eps = pass.config.rms_norm_eps as f32;
    let mut to = to.slice_mut(..x.len());
    Ok(cuda::rms_norm(pass.device, x, &weight, &mut to, eps)?)
}

/// dx += the gradient through a norm; the norm's own is added to `gradients`.
pub(super) fn backward_norm(
    pass: &Pass<'_>,
    norm: &Norm,
    (dy, x): (&CudaView<'_, bf16>, &CudaView<'_, f32>),
    (dx, gradients): (&mut CudaViewMut<'_, f32>, &mut Gradients),
    norm_sums: &mut CudaSlice<f32>,
) -> Result<()> {
    let weight = pass.products.weights.norm(norm);
    let eps = pass.config.rms_norm_eps as f32;
    let mut dw = gradients.of(norm.gradient.as_ref());
    let of = NormBackward {
        dy,
        x,
        w: &weight,
        eps,
    };
    let mut sums = norm_sums.as_view_mut();
    Ok(cuda::rms_norm_backward(
        pass.device,
        of,
        dx,
        dw.as_mut(),
        &mut sums,
    )?)
}

/// The factor of a product that a gradient in f32 becomes.
fn round(device: &Device, x: &CudaView<'_, f32>, to: &mut CudaSlice<bf16>) -> Result<()> {
    Ok(cuda::scale_round(
        device,
        x,
        &mut to.slice_mut(..x.len()),
        1.0,
    )?)
}

/// Where examples begin, for each token and one after another.
fn documents(inputs: &Inputs) -> [CudaView<'_, u32>; 2] {
    [
        inputs.part(Part::SegmentOf),
        inputs.part(Part::SegmentBounds),
    ]
}

fn swiglu(pass: &Pass<'_>, gate_up: &CudaView<'_, bf16>, to: &mut CudaSlice<bf16>) -> Result<()> {
    let mut to = to.slice_mut(..gate_up.len() / 2);
    let width = pass.config.intermediate_size;
    Ok(cuda::swiglu(pass.device, gate_up, &mut to, width)?)
}
