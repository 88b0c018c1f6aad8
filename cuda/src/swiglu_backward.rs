//! The gradient of `silu(gate) · up`.
#![expect(
    unsafe_code,
    reason = "kernels are launched with the arguments they are declared with"
)]

use cudarc::driver::{CudaView, CudaViewMut, PushKernelArg};
use half::bf16;

use crate::{
    Device,
    error::{Error, Result, expect_len, expect_multiple},
    launch::thread_each,
};

/// `gate_up` bf16 \[T, 2F\] becomes its gradient for `dy` bf16 \[T, F\]; F (`width`) a multiple of 8.
pub fn swiglu_backward(
    device: &Device,
    gate_up: &mut CudaViewMut<'_, bf16>,
    dy: &CudaView<'_, bf16>,
    width: usize,
) -> Result<()> {
    let op = "swiglu_backward";
    expect_multiple(op, "F", 8, width)?;
    let num_rows = dy.len() / width;
    expect_len(op, "dy", num_rows * width, dy.len())?;
    expect_len(op, "gate_up", 2 * dy.len(), gate_up.len())?;
    if num_rows == 0 {
        return Ok(());
    }
    let function = device.function(op)?;
    let (rows, columns) = (num_rows as i32, width as i32);
    let mut launch = device.stream().launch_builder(&function);
    launch.arg(gate_up).arg(dy).arg(&rows).arg(&columns);
    // SAFETY: lengths were checked; a thread works on 8 values within them.
    unsafe { launch.launch(thread_each(dy.len() / 8)) }.map_err(Error::driver(op))?;
    Ok(())
}
