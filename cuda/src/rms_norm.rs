//! Root mean square normalisation.
#![expect(
    unsafe_code,
    reason = "a kernel is launched with the arguments it is declared with"
)]

use cudarc::driver::{CudaView, CudaViewMut, PushKernelArg};

use crate::{
    Device, Float,
    error::{Error, Result, expect_len, expect_multiple},
    launch::blocks,
};

/// `y = x / sqrt(mean(x²) + eps) * w` (Zhang and Sennrich 2019, arXiv 1910.07467), each row by
/// itself: `x` f32 \[T, C\], `w` f32 \[C\], `y` \[T, C\]; C a multiple of 8. Computed in f32
/// and rounded once.
pub fn rms_norm<A: Float>(
    device: &Device,
    x: &CudaView<'_, f32>,
    w: &CudaView<'_, f32>,
    y: &mut CudaViewMut<'_, A>,
    eps: f32,
) -> Result<()> {
    let width = w.len();
    expect_multiple("rms_norm", "C", 8, width)?;
    let num_rows = x.len() / width;
    expect_len("rms_norm", "x", num_rows * width, x.len())?;
    expect_len("rms_norm", "y", x.len(), y.len())?;
    if num_rows == 0 {
        return Ok(());
    }
    let function = device.function(A::RMS_NORM)?;
    let num_threads = (width / 8).next_multiple_of(32).min(1024) as u32;
    let width = width as i32;
    let mut launch = device.stream().launch_builder(&function);
    launch.arg(x).arg(w).arg(y).arg(&width).arg(&eps);
    // SAFETY: lengths were checked; a block works on one row.
    unsafe { launch.launch(blocks(num_rows, num_threads)) }.map_err(Error::driver("rms_norm"))?;
    Ok(())
}
