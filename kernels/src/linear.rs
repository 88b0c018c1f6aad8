//! y = x·Wᵀ, with weights as checkpoints store them ([out, in]), and its two gradients.
//! Shape letters: T tokens, O outputs, C inputs.
#![expect(non_snake_case, reason = "tensors end in their shape")]

use candle_core::Tensor;

use crate::error::Result;
use crate::matmul::{
    Destination, Mat, MatMut, Threads, is_worth_transposing, matmul, matmul_new, transposed,
};
use crate::matmul_nt::{Sizes, matmul_nt};
use crate::tensor::{dims2, expect_dims, expect_len, f32_tensor, f32_view};

/// y_TO = x_TC · w_OCᵀ. A row of y depends on its row of x alone: it has the same bits in every
/// batch. (The gradients make no such promise.)
pub fn linear(x_TC: &Tensor, w_OC: &Tensor) -> Result<Tensor> {
    let (T, C) = dims2("linear", "x", x_TC)?;
    let (O, _) = dims2("linear", "w", w_OC)?;
    expect_dims("linear", "w", &[O, C], w_OC)?;
    let x = f32_view("linear", "x", x_TC)?;
    let w = f32_view("linear", "w", w_OC)?;
    f32_tensor(matmul_nt(&x, &w, Sizes { T, O, C }), &[T, O])
}

/// As [`linear`], and faster for the many rows of training; a row's last bits may depend on how
/// many rows there are.
pub fn linear_training(x_TC: &Tensor, w_OC: &Tensor) -> Result<Tensor> {
    let (T, C) = dims2("linear_training", "x", x_TC)?;
    let (O, _) = dims2("linear_training", "w", w_OC)?;
    expect_dims("linear_training", "w", &[O, C], w_OC)?;
    let x = f32_view("linear_training", "x", x_TC)?;
    let w = f32_view("linear_training", "w", w_OC)?;
    if !is_worth_transposing(T, &w) {
        return f32_tensor(matmul_nt(&x, &w, Sizes { T, O, C }), &[T, O]);
    }
    let w_CO = transposed(&w, O, C);
    let y = matmul_new(
        Mat::new(&x, T, C, C),
        Mat::new(&w_CO, C, O, O),
        Threads::Pool,
    );
    f32_tensor(y, &[T, O])
}

/// dx_TC = dy_TO · w_OC.
pub fn linear_input_grad(dy_TO: &Tensor, w_OC: &Tensor) -> Result<Tensor> {
    let (T, O) = dims2("linear_input_grad", "dy", dy_TO)?;
    let (_, C) = dims2("linear_input_grad", "w", w_OC)?;
    expect_dims("linear_input_grad", "w", &[O, C], w_OC)?;
    let dy = f32_view("linear_input_grad", "dy", dy_TO)?;
    let w = f32_view("linear_input_grad", "w", w_OC)?;
    let dx = matmul_new(Mat::new(&dy, T, O, O), Mat::new(&w, O, C, C), Threads::Pool);
    f32_tensor(dx, &[T, C])
}

/// dw_OC = dy_TOᵀ · x_TC.
pub fn linear_weight_grad(dy_TO: &Tensor, x_TC: &Tensor) -> Result<Tensor> {
    let (T, O) = dims2("linear_weight_grad", "dy", dy_TO)?;
    let (_, C) = dims2("linear_weight_grad", "x", x_TC)?;
    expect_dims("linear_weight_grad", "x", &[T, C], x_TC)?;
    let dy = f32_view("linear_weight_grad", "dy", dy_TO)?;
    let x = f32_view("linear_weight_grad", "x", x_TC)?;
    let dw = matmul_new(
        Mat::new(&dy, T, O, O).t(),
        Mat::new(&x, T, C, C),
        Threads::Pool,
    );
    f32_tensor(dw, &[O, C])
}

/// dw_OC += dy_TOᵀ · x_TC, straight into a gradient accumulator.
pub fn linear_weight_grad_accumulate(
    dy_TO: &Tensor,
    x_TC: &Tensor,
    dw_OC: &mut [f32],
) -> Result<()> {
    let (T, O) = dims2("linear_weight_grad", "dy", dy_TO)?;
    let (_, C) = dims2("linear_weight_grad", "x", x_TC)?;
    expect_dims("linear_weight_grad", "x", &[T, C], x_TC)?;
    expect_len("linear_weight_grad", "dw", O * C, dw_OC.len())?;
    let dy = f32_view("linear_weight_grad", "dy", dy_TO)?;
    let x = f32_view("linear_weight_grad", "x", x_TC)?;
    let dw = MatMut::new(dw_OC, O, C, C);
    let operands = (Mat::new(&dy, T, O, O).t(), Mat::new(&x, T, C, C));
    matmul(dw, Destination::Add, operands, 1.0, Threads::Pool);
    Ok(())
}

#[cfg(test)]
mod tests;
