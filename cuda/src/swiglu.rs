//! The activation of the MLP.
#![expect(
    unsafe_code,
    reason = "a kernel is launched with the arguments it is declared with"
)]

use cudarc::driver::{CudaView, CudaViewMut, PushKernelArg};

use crate::{
    Device, Float,
    error::{Error, Result, expect_len, expect_multiple},
    launch::thread_each,
};

/// `y = silu(gate) * up` (Shazeer 2020, arXiv 2002.05202): `gate_up` \[T, 2F\], its rows gate and up side by
/// side, `y` \[T, F\]; F a multiple of 8.
pub fn swiglu<A: Float>(
    device: &Device,
    gate_up: &CudaView<'_, A>,
    y: &mut CudaViewMut<'_, A>,
    width: usize,
) -> Result<()> {
    expect_multiple("swiglu", "F", 8, width)?;
    let num_rows = y.len() / width;
    expect_len("swiglu", "y", num_rows * width, y.len())?;
    expect_len("swiglu", "gate_up", 2 * y.len(), gate_up.len())?;
    if num_rows == 0 {
        return Ok(());
    }
    let function = device.function(A::SWIGLU)?;
    let (rows, width) = (num_rows as i32, width as i32);
    let config = thread_each(y.len() / 8);
    let mut launch = device.stream().launch_builder(&function);
    launch.arg(gate_up).arg(y).arg(&rows).arg(&width);
    // SAFETY: lengths were checked; a thread of the kernel works on 8 values within them.
    unsafe { launch.launch(config) }.map_err(Error::driver("swiglu"))?;
    Ok(())
}
