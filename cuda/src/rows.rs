//! Rows that are added to rows by index: gradients of an embedding and of a choice of rows.
#![expect(
    unsafe_code,
    reason = "kernels are launched with the arguments they are declared with"
)]

use cudarc::driver::{CudaView, CudaViewMut, PushKernelArg};

use crate::{
    Device,
    error::{Error, Result, expect_len, expect_multiple},
    launch::{blocks, thread_each},
};

/// Tokens grouped by their id, made by the host: those of group g are
/// `order[starts[g]] .. order[starts[g + 1]]`.
#[derive(Debug, Clone, Copy)]
pub struct TokensById<'a> {
    /// \[T\], below V.
    pub ids: &'a CudaView<'a, u32>,
    /// \[T\]
    pub order: &'a CudaView<'a, u32>,
    /// \[N + 1\]: 0 first, T last, rising.
    pub starts: &'a CudaView<'a, u32>,
}

/// `dtable[ids[t]] += dx[t]`: `dx` f32 \[T, C\], `dtable` f32 \[V, C\]; C (`width`) a multiple of 4. The tokens
/// of an id are added in their order. Ids and groups are not checked.
pub fn embedding_backward(
    device: &Device,
    dx: &CudaView<'_, f32>,
    tokens: TokensById<'_>,
    dtable: &mut CudaViewMut<'_, f32>,
    width: usize,
) -> Result<()> {
    let op = "embedding_backward";
    expect_multiple(op, "C", 4, width)?;
    let num_tokens = tokens.ids.len();
    expect_len(op, "dx", num_tokens * width, dx.len())?;
    expect_len(op, "order", num_tokens, tokens.order.len())?;
    expect_multiple(op, "dtable", width, dtable.len())?;
    let num_groups = tokens.starts.len().saturating_sub(1);
    if num_groups == 0 || num_tokens == 0 {
        return Ok(());
    }
    let num_threads = (width / 4).next_multiple_of(32).min(1024) as u32;
    let columns = width as i32;
    let function = device.function(op)?;
    let mut launch = device.stream().launch_builder(&function);
    launch.arg(dx).arg(tokens.ids).arg(tokens.order);
    launch.arg(tokens.starts).arg(dtable).arg(&columns);
    // SAFETY: lengths were checked; the caller's groups are those of the tokens, its ids below V.
    unsafe { launch.launch(blocks(num_groups, num_threads)) }.map_err(Error::driver(op))?;
    Ok(())
}

/// `y[rows[r]] += x[r]`: `x` f32 \[R, C\], `y` f32 \[T, C\]; C (`width`) a multiple of 4. No row may come twice;
/// that they are below T is not checked.
pub fn scatter_rows_add(
    device: &Device,
    x: &CudaView<'_, f32>,
    rows: &CudaView<'_, u32>,
    y: &mut CudaViewMut<'_, f32>,
    width: usize,
) -> Result<()> {
    let op = "scatter_rows_add";
    expect_multiple(op, "C", 4, width)?;
    expect_len(op, "x", rows.len() * width, x.len())?;
    expect_multiple(op, "y", width, y.len())?;
    if rows.is_empty() {
        return Ok(());
    }
    let (num_rows, columns) = (rows.len() as i32, width as i32);
    let function = device.function(op)?;
    let mut launch = device.stream().launch_builder(&function);
    launch.arg(x).arg(rows).arg(y).arg(&num_rows).arg(&columns);
    // SAFETY: lengths were checked; the caller's rows are below T and distinct.
    unsafe { launch.launch(thread_each(x.len() / 4)) }.map_err(Error::driver(op))?;
    Ok(())
}
