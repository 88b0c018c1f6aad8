//! y = x·Wᵀ, with weights as checkpoints store them ([out, in]), and its two gradients.
//! Shape letters: T tokens, O outputs, C inputs.
#![expect(non_snake_case, reason = "tensors end in their shape")]

use candle_core::Tensor;

use crate::error::Result;
use crate::matmul::{Mat, MatMut, Threads, matmul, matmul_new};
use crate::matrix::{Compute, Matrix};
use crate::step::Output;
use crate::tensor::{dims2, expect_dims, expect_len, f32_tensor, f32_update, f32_view};

/// y_TO = x_TC · w_OCᵀ.
pub fn linear(x_TC: &Tensor, w_OC: &Matrix, compute: Compute) -> Result<Tensor> {
    let op = "linear";
    let (O, C) = w_OC.dims();
    let T = num_rows((op, "x"), x_TC, C)?;
    let (x, w) = (f32_view(op, "x", x_TC)?, w_OC.view(op, "w")?);
    let (x, w) = (Mat::new(&x, T, C, C), Mat::dense(w.values(), O, C));
    f32_tensor(matmul_new((x, w), compute, Threads::Pool), &[T, O])
}

/// y_TO += x_TC · w_OCᵀ, in place: whoever shares y sees it change.
pub fn linear_accumulate(
    x_TC: &Tensor,
    w_OC: &Matrix,
    compute: Compute,
    y_TO: &Tensor,
) -> Result<()> {
    let op = "linear_accumulate";
    let (O, C) = w_OC.dims();
    let T = num_rows((op, "x"), x_TC, C)?;
    expect_dims(op, "y", &[T, O], y_TO)?;
    let (x, w) = (f32_view(op, "x", x_TC)?, w_OC.view(op, "w")?);
    let operands = (Mat::new(&x, T, C, C), Mat::dense(w.values(), O, C));
    f32_update(op, "y", y_TO, |y| {
        let y = MatMut::new(y, T, O, O);
        matmul(y, Output::Add, operands, compute, Threads::Pool);
    })
}

/// dx_TC = dy_TO · w_OC.
pub fn linear_input_grad(dy_TO: &Tensor, w_OC: &Matrix, compute: Compute) -> Result<Tensor> {
    let op = "linear_input_grad";
    let (O, C) = w_OC.dims();
    let T = num_rows((op, "dy"), dy_TO, O)?;
    let (dy, w) = (f32_view(op, "dy", dy_TO)?, w_OC.view(op, "w")?);
    let (dy, w) = (Mat::new(&dy, T, O, O), Mat::dense(w.values(), O, C));
    f32_tensor(matmul_new((dy, w.t()), compute, Threads::Pool), &[T, C])
}

/// dx_TC += dy_TO · w_OC, in place: whoever shares dx sees it change.
pub fn linear_input_grad_accumulate(
    dy_TO: &Tensor,
    w_OC: &Matrix,
    compute: Compute,
    dx_TC: &Tensor,
) -> Result<()> {
    let op = "linear_input_grad_accumulate";
    let (O, C) = w_OC.dims();
    let T = num_rows((op, "dy"), dy_TO, O)?;
    expect_dims(op, "dx", &[T, C], dx_TC)?;
    let (dy, w) = (f32_view(op, "dy", dy_TO)?, w_OC.view(op, "w")?);
    let operands = (Mat::new(&dy, T, O, O), Mat::dense(w.values(), O, C).t());
    f32_update(op, "dx", dx_TC, |dx| {
        let dx = MatMut::new(dx, T, C, C);
        matmul(dx, Output::Add, operands, compute, Threads::Pool);
    })
}

/// dw_OC += dy_TOᵀ · x_TC, straight into a gradient accumulator.
pub fn linear_weight_grad_accumulate(
    dy_TO: &Tensor,
    x_TC: &Tensor,
    compute: Compute,
    dw_OC: &mut [f32],
) -> Result<()> {
    let op = "linear_weight_grad_accumulate";
    let (T, O) = dims2(op, "dy", dy_TO)?;
    let (_, C) = dims2(op, "x", x_TC)?;
    expect_dims(op, "x", &[T, C], x_TC)?;
    expect_len(op, "dw", O * C, dw_OC.len())?;
    let (dy, x) = (f32_view(op, "dy", dy_TO)?, f32_view(op, "x", x_TC)?);
    let operands = (Mat::new(&dy, T, O, O).t(), Mat::new(&x, T, C, C).t());
    let dw = MatMut::new(dw_OC, O, C, C);
    matmul(dw, Output::Add, operands, compute, Threads::Pool);
    Ok(())
}

/// How many rows of `columns` values the argument has.
fn num_rows(
    (op, argument): (&'static str, &'static str),
    tensor: &Tensor,
    columns: usize,
) -> Result<usize> {
    let (rows, _) = dims2(op, argument, tensor)?;
    expect_dims(op, argument, &[rows, columns], tensor)?;
    Ok(rows)
}

#[cfg(test)]
mod tests;
