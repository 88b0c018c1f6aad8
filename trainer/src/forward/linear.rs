//! A projection forward and backward, its adapter included.
//!
//! Shape letters: T tokens of a packed batch, O outputs, C inputs, R the adapter's rank.
#![expect(non_snake_case, reason = "tensors end in their shape")]

use candle_core::Tensor;
use kernels::tensor::{f32_update, f32_view};
use kernels::{
    Compute, linear, linear_accumulate, linear_input_grad, linear_input_grad_accumulate,
    linear_weight_grad_accumulate,
};
use rayon::prelude::*;

use super::Pass;
use crate::error::Result;
use crate::gradients::Gradients;
use crate::lora::Adapter;
use crate::rng::{CounterRng, Stream};
use crate::weights::{Linear, Weight};

/// y_TO = x_TC · Wᵀ, and the adapter's part.
pub(super) fn forward(x_TC: &Tensor, projection: &Linear, pass: &Pass<'_>) -> Result<Tensor> {
    let y_TO = linear(x_TC, &projection.weight.matrix, pass.compute)?;
    add_adapter(x_TC, projection, pass, &y_TO)?;
    Ok(y_TO)
}

/// y_TO += x_TC · Wᵀ, and the adapter's part.
pub(super) fn forward_add(
    x_TC: &Tensor,
    projection: &Linear,
    pass: &Pass<'_>,
    y_TO: &Tensor,
) -> Result<()> {
    linear_accumulate(x_TC, &projection.weight.matrix, pass.compute, y_TO)?;
    add_adapter(x_TC, projection, pass, y_TO)
}

fn add_adapter(x_TC: &Tensor, projection: &Linear, pass: &Pass<'_>, y_TO: &Tensor) -> Result<()> {
    let Some(adapter) = &projection.adapter else {
        return Ok(());
    };
    let x_TC = dropped(x_TC, adapter, pass)?;
    let u_TR = linear(&x_TC, &adapter.a.matrix, pass.compute)?;
    scale(&u_TR, adapter.scale)?;
    Ok(linear_accumulate(
        &u_TR,
        &adapter.b.matrix,
        pass.compute,
        y_TO,
    )?)
}

/// dx_TC for dy_TO; what is trained of the projection adds to its gradient.
pub(super) fn backward(
    (dy_TO, x_TC): (&Tensor, &Tensor),
    projection: &Linear,
    pass: &Pass<'_>,
    gradients: &mut Gradients,
) -> Result<Tensor> {
    let dx_TC = linear_input_grad(dy_TO, &projection.weight.matrix, pass.compute)?;
    backward_weights((dy_TO, x_TC), projection, pass, (gradients, &dx_TC))?;
    Ok(dx_TC)
}

/// As [`backward`], added to `dx_TC`.
pub(super) fn backward_add(
    (dy_TO, x_TC): (&Tensor, &Tensor),
    projection: &Linear,
    pass: &Pass<'_>,
    (gradients, dx_TC): (&mut Gradients, &Tensor),
) -> Result<()> {
    linear_input_grad_accumulate(dy_TO, &projection.weight.matrix, pass.compute, dx_TC)?;
    backward_weights((dy_TO, x_TC), projection, pass, (gradients, dx_TC))
}

fn backward_weights(
    (dy_TO, x_TC): (&Tensor, &Tensor),
    projection: &Linear,
    pass: &Pass<'_>,
    (gradients, dx_TC): (&mut Gradients, &Tensor),
) -> Result<()> {
    add_gradient((dy_TO, x_TC), &projection.weight, pass.compute, gradients)?;
    match &projection.adapter {
        None => Ok(()),
        Some(adapter) => backward_adapter((dy_TO, x_TC), adapter, pass, (gradients, dx_TC)),
    }
}

fn add_gradient(
    (dy_TO, x_TC): (&Tensor, &Tensor),
    weight: &Weight,
    compute: Compute,
    gradients: &mut Gradients,
) -> Result<()> {
    let Some(slot) = weight.slot else {
        return Ok(());
    };
    let dw_OC = gradients.get_mut(slot);
    Ok(linear_weight_grad_accumulate(dy_TO, x_TC, compute, dw_OC)?)
}

/// u = dropout(x)·Aᵀ is computed again: it costs R/O of the projection, keeping it would cost memory.
fn backward_adapter(
    (dy_TO, x_TC): (&Tensor, &Tensor),
    adapter: &Adapter,
    pass: &Pass<'_>,
    (gradients, dx_TC): (&mut Gradients, &Tensor),
) -> Result<()> {
    let compute = pass.compute;
    let kept_TC = dropped(x_TC, adapter, pass)?;
    let u_TR = linear(&kept_TC, &adapter.a.matrix, compute)?;
    scale(&u_TR, adapter.scale)?;
    add_gradient((dy_TO, &u_TR), &adapter.b, compute, gradients)?;
    let du_TR = linear_input_grad(dy_TO, &adapter.b.matrix, compute)?;
    scale(&du_TR, adapter.scale)?;
    add_gradient((&du_TR, &kept_TC), &adapter.a, compute, gradients)?;
    if pass.dropout.is_none() || adapter.dropout == 0.0 {
        return Ok(linear_input_grad_accumulate(
            &du_TR,
            &adapter.a.matrix,
            compute,
            dx_TC,
        )?);
    }
    let dkept_TC = linear_input_grad(&du_TR, &adapter.a.matrix, compute)?;
    super::add_into(dx_TC, &dropped(&dkept_TC, adapter, pass)?)
}

/// Values one task works on: enough to be worth handing to another thread.
const TASK: usize = 1 << 14;

/// x with some values left out and the others raised to make up for it; x itself where nothing is
/// left out. The same values at each call for the same pass and adapter.
fn dropped(x: &Tensor, adapter: &Adapter, pass: &Pass<'_>) -> Result<Tensor> {
    let (Some(key), Some(slot)) = (pass.dropout, adapter.a.slot) else {
        return Ok(x.clone());
    };
    if adapter.dropout == 0.0 {
        return Ok(x.clone());
    }
    let stream = Stream::Dropout {
        parameter: slot.0 as u32,
    };
    let rng = CounterRng::new(key.0, stream);
    let raised = 1.0 / (1.0 - adapter.dropout);
    let limit = f64::from(adapter.dropout);
    let view = f32_view("dropout", "x", x)?;
    let mut values = vec![0.0_f32; view.len()];
    values
        .par_chunks_mut(TASK)
        .zip(view.par_chunks(TASK))
        .enumerate()
        .for_each(|(task, (kept, x))| {
            for (at, (kept, x)) in kept.iter_mut().zip(x).enumerate() {
                // uniform is in (0, 1]: odds of 0 would leave nothing out.
                let stays = rng.uniform((task * TASK + at) as u64) > limit;
                *kept = if stays { x * raised } else { 0.0 };
            }
        });
    Ok(Tensor::from_vec(values, x.shape(), x.device())?)
}

fn scale(x: &Tensor, factor: f32) -> Result<()> {
    Ok(f32_update("scale", "x", x, |values| {
        for value in values {
            *value *= factor;
        }
    })?)
}
