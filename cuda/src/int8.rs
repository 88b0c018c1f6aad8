//! Weights in 8 bits: made, widened, multiplied.
#![expect(
    unsafe_code,
    reason = "a kernel is launched with the arguments it is declared with"
)]

use cudarc::driver::{CudaView, CudaViewMut, DeviceRepr, PushKernelArg};
use half::bf16;

use crate::{
    Device, Float,
    error::{Error, Result, expect_len, expect_multiple},
    launch::{blocks, thread_each},
    product::{Output, Sum},
};

/// `w[O, K] = values[O, K] * scales[O]`.
#[derive(Debug)]
pub struct Int8View<'a> {
    pub values: &'a CudaView<'a, i8>,
    pub scales: &'a CudaView<'a, f32>,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Shape {
    num_rows: i32,
    num_outputs: i32,
    num_inputs: i32,
    adds: i32,
}
// SAFETY: plain numbers, as the kernel declares them.
unsafe impl DeviceRepr for Shape {}

/// Rounds each row of `w` \[O, K\] to whole numbers from -127 to 127 of a scale of its own: its
/// largest magnitude over 127. A row with a value that is not finite has the scale NaN. K a
/// multiple of 8.
pub fn quantize_rows(
    device: &Device,
    w: &CudaView<'_, bf16>,
    values: &mut CudaViewMut<'_, i8>,
    scales: &mut CudaViewMut<'_, f32>,
) -> Result<()> {
    const OP: &str = "quantize_rows";
    let num_rows = scales.len();
    if num_rows == 0 {
        return expect_len(OP, "w", 0, w.len());
    }
    let width = w.len() / num_rows;
    expect_multiple(OP, "K", 8, width)?;
    expect_len(OP, "w", num_rows * width, w.len())?;
    expect_len(OP, "values", w.len(), values.len())?;
    let function = device.function(OP)?;
    let num_threads = (width / 8).next_multiple_of(32).min(256) as u32;
    let width = width as i32;
    let mut launch = device.stream().launch_builder(&function);
    launch.arg(w).arg(values).arg(scales).arg(&width);
    // SAFETY: lengths were checked; a block works on one row.
    unsafe { launch.launch(blocks(num_rows, num_threads)) }.map_err(Error::driver(OP))?;
    Ok(())
}

/// `w` \[O, K\], for a product with many rows; K a multiple of 8.
pub fn dequantize_rows<A: Float>(
    device: &Device,
    from: &Int8View<'_>,
    w: &mut CudaViewMut<'_, A>,
) -> Result<()> {
    const OP: &str = "dequantize_rows";
    let num_rows = from.scales.len();
    if num_rows == 0 {
        return expect_len(OP, "w", 0, w.len());
    }
    let width = w.len() / num_rows;
    expect_multiple(OP, "K", 8, width)?;
    expect_len(OP, "w", num_rows * width, w.len())?;
    expect_len(OP, "values", w.len(), from.values.len())?;
    let function = device.function(A::DEQUANTIZE_ROWS)?;
    let config = thread_each(w.len() / 8);
    let (rows, width) = (num_rows as i32, width as i32);
    let mut launch = device.stream().launch_builder(&function);
    launch.arg(from.values).arg(from.scales).arg(w);
    launch.arg(&rows).arg(&width);
    // SAFETY: lengths were checked; a thread works on 8 values within them.
    unsafe { launch.launch(config) }.map_err(Error::driver(OP))?;
    Ok(())
}

/// `y[M, O] (+)= x[M, K] · w[O, K]ᵀ` with f32 sums, the same bits in every run; M at most
/// [`Float::MAX_INT8_ROWS`] (there is no kernel for f32), K (`num_inputs`) a multiple of 64. Results in bf16 cannot add.
pub fn int8_linear<A: Float, Y: Output>(
    device: &Device,
    x: &CudaView<'_, A>,
    w: &Int8View<'_>,
    (y, sum): (&mut CudaViewMut<'_, Y>, Sum),
    num_inputs: usize,
) -> Result<()> {
    const OP: &str = "int8_linear";
    expect_multiple(OP, "K", 64, num_inputs)?;
    let (num_rows, num_outputs) = (x.len() / num_inputs, w.scales.len());
    expect_len(OP, "x", num_rows * num_inputs, x.len())?;
    expect_len(OP, "w", num_outputs * num_inputs, w.values.len())?;
    expect_len(OP, "y", num_rows * num_outputs, y.len())?;
    if num_rows > A::MAX_INT8_ROWS {
        let expected = format!("at most {}", A::MAX_INT8_ROWS);
        return Err(Error::argument(OP, "M", expected, num_rows));
    }
    let kernel = match num_rows {
        0..=16 => 0,
        17..=32 => 1,
        _ => 2,
    };
    if sum == Sum::Add && size_of::<Y>() != size_of::<f32>() {
        return Err(Error::argument(OP, "y", "f32 to add to", "bf16"));
    }
    if num_rows == 0 || num_outputs == 0 {
        return Ok(());
    }
    let shape = Shape {
        num_rows: num_rows as i32,
        num_outputs: num_outputs as i32,
        num_inputs: num_inputs as i32,
        adds: i32::from(sum == Sum::Add),
    };
    let function = device.function(Y::INT8_LINEAR[kernel])?;
    let config = blocks(num_outputs.div_ceil(32), 256);
    let mut launch = device.stream().launch_builder(&function);
    launch.arg(x).arg(w.values).arg(w.scales).arg(y).arg(&shape);
    // SAFETY: lengths were checked; the kernel has rows enough, and passes over outputs beyond the
    // last.
    unsafe { launch.launch(config) }.map_err(Error::driver(OP))?;
    Ok(())
}
