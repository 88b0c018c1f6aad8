//! Causal attention over packed documents, and its gradient, for training.
#![expect(
    unsafe_code,
    reason = "kernels are launched with the arguments they are declared with"
)]

use cudarc::driver::{
    CudaFunction, CudaView, CudaViewMut, DeviceRepr, LaunchConfig, PushKernelArg,
};
use half::bf16;

use crate::{
    Device, Heads,
    error::{Error, Result, expect_len},
    launch::blocks,
    paged_attention::{check_heads, for_dim, give_shared},
};

/// Rows of a tile, of queries as of keys.
const TILE: usize = 64;
/// Two stages of what `causal_attention_dkv` wants to know of 64 queries.
const FACTS_BYTES: usize = 2 * 64 * 3 * 4;
/// 4 warps.
const BLOCK_THREADS: u32 = 128;

/// Where each document of a packed batch begins and ends, on the device, where it is not checked.
#[derive(Debug, Clone, Copy)]
pub struct Documents<'a> {
    /// \[T\] the first token of each token's document: [`document_starts`].
    pub starts: &'a CudaView<'a, u32>,
    /// \[N + 1\] running sums of lengths: 0 first, T last.
    pub bounds: &'a CudaView<'a, u32>,
}

/// What [`causal_attention`] saw and gave, for its gradient.
#[derive(Debug, Clone, Copy)]
pub struct CausalSaved<'a> {
    /// \[T, (H + 2G)·D\]
    pub qkv: &'a CudaView<'a, bf16>,
    /// \[T, H·D\]
    pub out: &'a CudaView<'a, bf16>,
    /// \[H, T\]
    pub log_sum_exp: &'a CudaView<'a, f32>,
    pub documents: Documents<'a>,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Shape {
    num_tokens: i32,
    num_heads: i32,
    num_groups: i32,
    scale: f32,
}
// SAFETY: plain numbers, as the kernels declare them.
unsafe impl DeviceRepr for Shape {}

/// For each token of documents with these bounds, the first token of its own.
pub fn document_starts(bounds: &[u32]) -> Vec<u32> {
    let pairs = bounds.windows(2);
    pairs
        .flat_map(|pair| (pair[0]..pair[1]).map(move |_| pair[0]))
        .collect()
}

/// `out[T, H·D] = softmax(q·kᵀ/√D)·v` over the tokens of the same document up to the token itself, as
/// `kernels::causal_attention`; `log_sum_exp` \[H, T\] of the scaled scores. `qkv` \[T, (H + 2G)·D\], queries
/// and keys turned by their positions. D is one of
/// [`HEAD_DIMS`](crate::HEAD_DIMS).
pub fn causal_attention(
    device: &Device,
    qkv: &CudaView<'_, bf16>,
    documents: Documents<'_>,
    heads: Heads,
    (out, log_sum_exp): (&mut CudaViewMut<'_, bf16>, &mut CudaViewMut<'_, f32>),
) -> Result<()> {
    let op = "causal_attention";
    let shape = check(op, qkv.len(), documents, heads)?;
    let num_rows = documents.starts.len() * heads.num_heads;
    expect_len(op, "out", num_rows * heads.head_dim, out.len())?;
    expect_len(op, "log_sum_exp", num_rows, log_sum_exp.len())?;
    if num_rows == 0 {
        return Ok(());
    }
    // Two stages of keys and values.
    let names = [
        "causal_attention_32",
        "causal_attention_64",
        "causal_attention_128",
    ];
    let (function, config) = prepare(device, names, (heads, 4), (&shape, heads.num_heads))?;
    let mut launch = device.stream().launch_builder(&function);
    launch.arg(qkv).arg(documents.starts);
    launch.arg(out).arg(log_sum_exp).arg(&shape);
    // SAFETY: lengths were checked; the documents are the caller's word.
    unsafe { launch.launch(config) }.map_err(Error::driver(op))?;
    Ok(())
}

/// `dqkv` \[T, (H + 2G)·D\] for `dout` \[T, H·D\] (Dao 2023, arXiv 2307.08691, algorithm 2). `delta` \[H, T\] is
/// scratch memory. The same bits at every run.
pub fn causal_attention_backward(
    device: &Device,
    saved: CausalSaved<'_>,
    heads: Heads,
    dout: &CudaView<'_, bf16>,
    (dqkv, delta): (&mut CudaViewMut<'_, bf16>, &mut CudaViewMut<'_, f32>),
) -> Result<()> {
    let op = "causal_attention_backward";
    let shape = check(op, saved.qkv.len(), saved.documents, heads)?;
    let num_rows = saved.documents.starts.len() * heads.num_heads;
    expect_len(op, "out", num_rows * heads.head_dim, saved.out.len())?;
    expect_len(op, "dout", num_rows * heads.head_dim, dout.len())?;
    expect_len(op, "log_sum_exp", num_rows, saved.log_sum_exp.len())?;
    expect_len(op, "delta", num_rows, delta.len())?;
    expect_len(op, "dqkv", saved.qkv.len(), dqkv.len())?;
    if num_rows == 0 {
        return Ok(());
    }
    let names = [
        "causal_attention_delta_32",
        "causal_attention_delta_64",
        "causal_attention_delta_128",
    ];
    let function = device.function(for_dim(names, heads))?;
    let mut launch = device.stream().launch_builder(&function);
    launch.arg(dout).arg(saved.out).arg(&mut *delta).arg(&shape);
    let config = blocks(num_rows.div_ceil(4), BLOCK_THREADS);
    // SAFETY: lengths were checked.
    unsafe { launch.launch(config) }.map_err(Error::driver(op))?;

    // Keys and values, and two stages of queries and dout; in the other kernel the other way round.
    let names = [
        "causal_attention_dkv_32",
        "causal_attention_dkv_64",
        "causal_attention_dkv_128",
    ];
    let (function, config) = prepare(device, names, (heads, 6), (&shape, heads.num_groups))?;
    let deltas = delta.as_view();
    let ends = saved.documents.bounds.slice(1..);
    let num_documents = ends.len() as i32;
    let mut launch = device.stream().launch_builder(&function);
    launch.arg(saved.qkv).arg(dout).arg(saved.log_sum_exp);
    launch.arg(&deltas).arg(saved.documents.starts);
    launch.arg(&mut *dqkv).arg(&ends);
    launch.arg(&num_documents).arg(&shape);
    // SAFETY: lengths were checked; the documents are the caller's word.
    unsafe { launch.launch(config) }.map_err(Error::driver(op))?;

    let names = [
        "causal_attention_dq_32",
        "causal_attention_dq_64",
        "causal_attention_dq_128",
    ];
    let (function, config) = prepare(device, names, (heads, 6), (&shape, heads.num_heads))?;
    let mut launch = device.stream().launch_builder(&function);
    launch.arg(saved.qkv).arg(dout).arg(saved.log_sum_exp);
    launch.arg(&deltas).arg(saved.documents.starts);
    launch.arg(dqkv).arg(&shape);
    // SAFETY: as above.
    unsafe { launch.launch(config) }.map_err(Error::driver(op))?;
    Ok(())
}

/// The kernel, with room for `num_tiles` tiles in shared memory, on a grid of tiles by heads.
fn prepare(
    device: &Device,
    names: [&'static str; 3],
    (heads, num_tiles): (Heads, usize),
    (shape, num_heads): (&Shape, usize),
) -> Result<(CudaFunction, LaunchConfig)> {
    let function = device.function(for_dim(names, heads))?;
    let shared_bytes = num_tiles * TILE * heads.head_dim * size_of::<bf16>() + FACTS_BYTES;
    give_shared(&function, shared_bytes as u32)?;
    let num_blocks = (shape.num_tokens as usize).div_ceil(TILE);
    let config = LaunchConfig {
        grid_dim: (num_blocks as u32, num_heads as u32, 1),
        block_dim: (BLOCK_THREADS, 1, 1),
        shared_mem_bytes: shared_bytes as u32,
    };
    Ok((function, config))
}

fn check(
    op: &'static str,
    qkv_len: usize,
    documents: Documents<'_>,
    heads: Heads,
) -> Result<Shape> {
    check_heads(op, heads)?;
    let Heads {
        num_heads,
        num_groups,
        head_dim,
    } = heads;
    let num_tokens = documents.starts.len();
    let row_len = (num_heads + 2 * num_groups) * head_dim;
    expect_len(op, "qkv", num_tokens * row_len, qkv_len)?;
    if documents.bounds.len() < 2 && num_tokens > 0 {
        let found = documents.bounds.len();
        return Err(Error::argument(op, "bounds", "at least 2 values", found));
    }
    Ok(Shape {
        num_tokens: num_tokens as i32,
        num_heads: num_heads as i32,
        num_groups: num_groups as i32,
        scale: std::f32::consts::LOG2_E / (head_dim as f32).sqrt(),
    })
}
