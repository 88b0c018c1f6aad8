//! Sums over whole arrays in f64, in one order.
#![expect(
    unsafe_code,
    reason = "kernels are launched with the arguments they are declared with"
)]

use cudarc::driver::{CudaView, CudaViewMut, PushKernelArg};

use crate::{
    Device,
    error::{Error, Result, expect_len},
    launch::blocks,
};

/// Blocks of the first kernel, at most; 8 of them for each multiprocessor of an H200.
pub const SUM_SCRATCH_LEN: usize = 1056;

/// Values that are worth a block: 16 for each of its threads.
const BLOCK_VALUES: usize = 4096;

/// What is summed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Summed {
    Values,
    Squares,
}

/// `total` f64 \[1\] += the sum of `x`, or of its squares. `scratch`: [`SUM_SCRATCH_LEN`] values.
pub fn add_sum(
    device: &Device,
    x: &CudaView<'_, f32>,
    summed: Summed,
    total: &mut CudaViewMut<'_, f64>,
    scratch: &mut CudaViewMut<'_, f64>,
) -> Result<()> {
    let op = "add_sum";
    expect_len(op, "total", 1, total.len())?;
    expect_len(op, "scratch", SUM_SCRATCH_LEN, scratch.len())?;
    if x.is_empty() {
        return Ok(());
    }
    let squared = i32::from(summed == Summed::Squares);
    let len = x.len();
    // A function of the length alone, so that the order of the sum is.
    let num_blocks = len.div_ceil(BLOCK_VALUES).min(SUM_SCRATCH_LEN);
    let function = device.function("sum_parts")?;
    let mut launch = device.stream().launch_builder(&function);
    launch.arg(x).arg(&mut *scratch).arg(&len).arg(&squared);
    // SAFETY: a block leaves one part, for which there is room.
    unsafe { launch.launch(blocks(num_blocks, 256)) }.map_err(Error::driver(op))?;
    let function = device.function("sum_of_parts")?;
    let num_parts = num_blocks as i32;
    let mut launch = device.stream().launch_builder(&function);
    launch.arg(scratch).arg(total).arg(&num_parts);
    // SAFETY: as above.
    unsafe { launch.launch(blocks(1, 256)) }.map_err(Error::driver(op))?;
    Ok(())
}
