//! The gradient of root mean square normalisation.
#![expect(
    unsafe_code,
    reason = "kernels are launched with the arguments they are declared with"
)]

use cudarc::driver::{CudaView, CudaViewMut, LaunchConfig, PushKernelArg};
use half::bf16;

use crate::{
    Device,
    error::{Error, Result, expect_len, expect_multiple},
    launch::{blocks, thread_each},
};

/// Parts that the sum over rows for the weight's gradient is made of.
const NUM_PARTS: usize = 64;

/// What [`rms_norm_backward`] works on.
#[derive(Debug, Clone, Copy)]
pub struct NormBackward<'a> {
    /// \[T, C\]: the gradient of the normed values.
    pub dy: &'a CudaView<'a, bf16>,
    /// \[T, C\]: what was normed.
    pub x: &'a CudaView<'a, f32>,
    /// \[C\]
    pub w: &'a CudaView<'a, f32>,
    pub eps: f32,
}

/// Length of the scratch memory of [`rms_norm_backward`].
pub fn norm_scratch_len(num_rows: usize, width: usize) -> usize {
    num_rows + NUM_PARTS * width
}

/// `dx` f32 \[T, C\] += and, where it is wanted, `dw` f32 \[C\] += the gradients of
/// [`crate::rms_norm`]. C a multiple of 4. Sums have one order.
pub fn rms_norm_backward(
    device: &Device,
    of: NormBackward<'_>,
    dx: &mut CudaViewMut<'_, f32>,
    dw: Option<&mut CudaViewMut<'_, f32>>,
    scratch: &mut CudaViewMut<'_, f32>,
) -> Result<()> {
    let op = "rms_norm_backward";
    let width = of.w.len();
    expect_multiple(op, "C", 4, width)?;
    let num_rows = of.x.len() / width;
    expect_len(op, "x", num_rows * width, of.x.len())?;
    expect_len(op, "dy", of.x.len(), of.dy.len())?;
    expect_len(op, "dx", of.x.len(), dx.len())?;
    let room = norm_scratch_len(num_rows, width);
    if scratch.len() < room {
        let expected = format!("{room} values");
        return Err(Error::argument(op, "scratch", expected, scratch.len()));
    }
    if num_rows == 0 {
        return Ok(());
    }
    let (mut inverse, mut parts) = scratch.split_at_mut(num_rows);
    let num_threads = (width / 8).next_multiple_of(32).min(1024) as u32;
    let (rows, columns) = (num_rows as i32, width as i32);
    let function = device.function("rms_norm_backward")?;
    let mut launch = device.stream().launch_builder(&function);
    launch.arg(of.dy).arg(of.x).arg(of.w).arg(dx);
    launch.arg(&mut inverse).arg(&columns).arg(&of.eps);
    // SAFETY: lengths were checked; a block works on one row.
    unsafe { launch.launch(blocks(num_rows, num_threads)) }.map_err(Error::driver(op))?;
    let Some(dw) = dw else {
        return Ok(());
    };
    expect_len(op, "dw", width, dw.len())?;
    let function = device.function("norm_weight_parts")?;
    let config = LaunchConfig {
        grid_dim: (width.div_ceil(256) as u32, NUM_PARTS as u32, 1),
        ..blocks(1, 256)
    };
    let mut launch = device.stream().launch_builder(&function);
    launch
        .arg(of.dy)
        .arg(of.x)
        .arg(&mut inverse)
        .arg(&mut parts);
    launch.arg(&rows).arg(&columns);
    // SAFETY: the scratch memory has NUM_PARTS rows behind the inverses.
    unsafe { launch.launch(config) }.map_err(Error::driver(op))?;
    let function = device.function("norm_weight_sum")?;
    let num_parts = NUM_PARTS as i32;
    let mut launch = device.stream().launch_builder(&function);
    launch.arg(&mut parts).arg(dw).arg(&num_parts).arg(&columns);
    // SAFETY: as above; a thread works on one column.
    unsafe { launch.launch(thread_each(width)) }.map_err(Error::driver(op))?;
    Ok(())
}
