//! The loss of rows of logits, and its gradient.
#![expect(
    unsafe_code,
    reason = "kernels are launched with the arguments they are declared with"
)]

use cudarc::driver::{CudaView, CudaViewMut, PushKernelArg};
use half::bf16;

use crate::{
    Device,
    error::{Error, Result, expect_len, expect_multiple},
    launch::blocks,
};

/// Threads of a row: as many as have four logits to read, up to a block's limit.
fn num_threads(width: i32) -> u32 {
    (width as u32 / 4).next_multiple_of(32).min(1024)
}

/// What the gradient is of: `scale` times the loss, with a share of each label spread over the vocabulary.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LossGradient {
    pub scale: f32,
    /// As `label_smoothing` of `kernels::LossOptions`; 0 for none.
    pub smoothing: f32,
}

/// `losses` f32 \[R\] = −ln of each target's probability: `logits` f32 \[R, V\], `targets` \[R\]; V a multiple of 4.
/// A target beyond V makes NaN, and so does a logit that is not a number.
pub fn cross_entropy(
    device: &Device,
    logits: &CudaView<'_, f32>,
    targets: &CudaView<'_, u32>,
    losses: &mut CudaViewMut<'_, f32>,
) -> Result<()> {
    let op = "cross_entropy";
    let width = check(op, logits.len(), targets.len(), losses.len())?;
    if targets.is_empty() {
        return Ok(());
    }
    let function = device.function(op)?;
    let mut launch = device.stream().launch_builder(&function);
    launch.arg(logits).arg(targets).arg(losses).arg(&width);
    // SAFETY: lengths were checked; a block works on one row.
    unsafe { launch.launch(blocks(targets.len(), num_threads(width))) }
        .map_err(Error::driver(op))?;
    Ok(())
}

/// As [`cross_entropy`], and `dlogits` bf16 \[R, V\] = scale · (softmax − smoothing / V − (1 − smoothing) ·
/// one-hot).
pub fn cross_entropy_backward(
    device: &Device,
    logits: &CudaView<'_, f32>,
    targets: &CudaView<'_, u32>,
    of: LossGradient,
    (losses, dlogits): (&mut CudaViewMut<'_, f32>, &mut CudaViewMut<'_, bf16>),
) -> Result<()> {
    let op = "cross_entropy_backward";
    let width = check(op, logits.len(), targets.len(), losses.len())?;
    expect_len(op, "dlogits", logits.len(), dlogits.len())?;
    if targets.is_empty() {
        return Ok(());
    }
    let function = device.function(op)?;
    let mut launch = device.stream().launch_builder(&function);
    launch.arg(logits).arg(targets).arg(losses).arg(dlogits);
    launch.arg(&width).arg(&of.scale).arg(&of.smoothing);
    // SAFETY: lengths were checked; a block works on one row.
    unsafe { launch.launch(blocks(targets.len(), num_threads(width))) }
        .map_err(Error::driver(op))?;
    Ok(())
}

/// V.
fn check(op: &'static str, logits: usize, targets: usize, losses: usize) -> Result<i32> {
    expect_len(op, "losses", targets, losses)?;
    if targets == 0 {
        expect_len(op, "logits", 0, logits)?;
        return Ok(0);
    }
    let width = logits / targets;
    expect_len(op, "logits", targets * width, logits)?;
    expect_multiple(op, "V", 4, width)?;
    Ok(width as i32)
}
