//! Rows and tokens by index.
#![expect(
    unsafe_code,
    reason = "a kernel is launched with the arguments it is declared with"
)]

use cudarc::driver::{CudaView, CudaViewMut, PushKernelArg};

use crate::{
    Device, Float,
    error::{Error, Result, expect_len, expect_multiple},
    launch::thread_each,
    product::Output,
};

/// `x[t] = table[ids[t]]`: `table` \[V, C\], `ids` \[T\], `x` f32 \[T, C\]; C (`width`) a
/// multiple of 8. An id that is not in the table becomes a row of NaN.
pub fn embedding<A: Float>(
    device: &Device,
    table: &CudaView<'_, A>,
    ids: &CudaView<'_, u32>,
    x: &mut CudaViewMut<'_, f32>,
    width: usize,
) -> Result<()> {
    expect_multiple("embedding", "C", 8, width)?;
    let vocabulary = table.len() / width;
    expect_len("embedding", "table", vocabulary * width, table.len())?;
    expect_len("embedding", "x", ids.len() * width, x.len())?;
    if ids.is_empty() {
        return Ok(());
    }
    let function = device.function(A::EMBEDDING)?;
    let config = thread_each(x.len() / 8);
    let (rows, width, vocabulary) = (ids.len() as i32, width as i32, vocabulary as i32);
    let mut launch = device.stream().launch_builder(&function);
    launch.arg(table).arg(ids).arg(x);
    launch.arg(&rows).arg(&width).arg(&vocabulary);
    // SAFETY: lengths were checked, and ids are compared with the length of the table.
    unsafe { launch.launch(config) }.map_err(Error::driver("embedding"))?;
    Ok(())
}

/// `y[r] = x[rows[r]]`: `x` \[T, C\], `rows` \[R\], `y` \[R, C\], both in f32 or bf16; C (`width`) a
/// multiple of 16 bytes. A row beyond `x` becomes NaN.
pub fn gather_rows<T: Output>(
    device: &Device,
    x: &CudaView<'_, T>,
    rows: &CudaView<'_, u32>,
    y: &mut CudaViewMut<'_, T>,
    width: usize,
) -> Result<()> {
    expect_multiple("gather_rows", "C", 16 / size_of::<T>(), width)?;
    let num_rows = x.len() / width;
    expect_len("gather_rows", "x", num_rows * width, x.len())?;
    expect_len("gather_rows", "y", rows.len() * width, y.len())?;
    if rows.is_empty() {
        return Ok(());
    }
    let function = device.function("gather_rows")?;
    // The kernel counts in f32; it moves bits, and half of its NaN is one of bf16.
    let width = width * size_of::<T>() / size_of::<f32>();
    let config = thread_each(rows.len() * width / 4);
    let (wanted, width, num_rows) = (rows.len() as i32, width as i32, num_rows as i32);
    let mut launch = device.stream().launch_builder(&function);
    launch.arg(x).arg(rows).arg(y);
    launch.arg(&wanted).arg(&width).arg(&num_rows);
    // SAFETY: lengths were checked, and rows are compared with the length of `x`.
    unsafe { launch.launch(config) }.map_err(Error::driver("gather_rows"))?;
    Ok(())
}

/// `token_ids[t] = sampled[row]` for each (t, row) of `pairs` \[N, 2\], to run a step ahead of the
/// host; pairs that are out of range (`u32::MAX`) are padding. No t may come twice.
pub fn carry_tokens(
    device: &Device,
    sampled: &CudaView<'_, u32>,
    pairs: &CudaView<'_, u32>,
    token_ids: &mut CudaViewMut<'_, u32>,
) -> Result<()> {
    let num_pairs = pairs.len() / 2;
    expect_len("carry_tokens", "pairs", 2 * num_pairs, pairs.len())?;
    if num_pairs == 0 {
        return Ok(());
    }
    let function = device.function("carry_tokens")?;
    let (pairs_len, rows, tokens) = (
        num_pairs as i32,
        sampled.len() as i32,
        token_ids.len() as i32,
    );
    let mut launch = device.stream().launch_builder(&function);
    launch.arg(sampled).arg(pairs).arg(token_ids);
    launch.arg(&pairs_len).arg(&rows).arg(&tokens);
    // SAFETY: both numbers of a pair are compared with the lengths.
    unsafe { launch.launch(thread_each(num_pairs)) }.map_err(Error::driver("carry_tokens"))?;
    Ok(())
}
