//! Rotary positions of queries and keys where they lie, for training.
#![expect(
    unsafe_code,
    reason = "kernels are launched with the arguments they are declared with"
)]

use cudarc::driver::{CudaView, CudaViewMut, PushKernelArg};
use half::bf16;

use crate::{
    Device, Heads,
    error::{Error, Result, expect_len, expect_multiple},
    launch::thread_each,
};

/// Which way heads are turned: as the forward pass does, or as its gradient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    Forward,
    Back,
}

/// Angles of every position.
#[derive(Debug, Clone, Copy)]
pub struct Angles<'a> {
    /// \[P, D/2\], as in `kernels::RopeTable`.
    pub cosines: &'a CudaView<'a, f32>,
    /// \[P, D/2\]
    pub sines: &'a CudaView<'a, f32>,
}

/// Turns the queries and keys of `qkv` bf16 \[T, (H + 2G)·D\] by their `positions` \[T\], which are below P
/// (others make NaN). D a multiple of 4.
pub fn rope_train(
    device: &Device,
    qkv: &mut CudaViewMut<'_, bf16>,
    (positions, angles): (&CudaView<'_, u32>, Angles<'_>),
    heads: Heads,
    turn: Turn,
) -> Result<()> {
    let op = "rope_train";
    expect_multiple(op, "D", 4, heads.head_dim)?;
    let num_tokens = positions.len();
    let stride = (heads.num_heads + 2 * heads.num_groups) * heads.head_dim;
    expect_len(op, "qkv", num_tokens * stride, qkv.len())?;
    expect_len(op, "sines", angles.cosines.len(), angles.sines.len())?;
    expect_multiple(op, "cosines", heads.head_dim / 2, angles.cosines.len())?;
    if num_tokens == 0 {
        return Ok(());
    }
    let num_turned = heads.num_heads + heads.num_groups;
    let num_threads = num_tokens * num_turned * heads.head_dim / 4;
    let num_positions = (angles.cosines.len() / (heads.head_dim / 2)) as i32;
    let (tokens, turned) = (num_tokens as i32, num_turned as i32);
    let (dim, stride) = (heads.head_dim as i32, stride as i32);
    let sign = match turn {
        Turn::Forward => 1.0_f32,
        Turn::Back => -1.0,
    };
    let function = device.function(op)?;
    let mut launch = device.stream().launch_builder(&function);
    launch.arg(qkv).arg(positions);
    launch.arg(angles.cosines).arg(angles.sines);
    launch.arg(&tokens).arg(&turned).arg(&dim).arg(&stride);
    launch.arg(&num_positions).arg(&sign);
    // SAFETY: lengths were checked; positions are compared with the table by the kernel.
    unsafe { launch.launch(thread_each(num_threads)) }.map_err(Error::driver(op))?;
    Ok(())
}
