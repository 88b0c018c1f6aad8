//! Rotary positions, and the way of keys and values into the cache.
#![expect(
    unsafe_code,
    reason = "a kernel is launched with the arguments it is declared with"
)]

use cudarc::driver::{CudaView, CudaViewMut, DeviceRepr, PushKernelArg};

use crate::{
    CacheElement, Device, Float,
    error::{Error, Result, expect_len, expect_multiple},
    launch::thread_each,
};

/// Where each token stands, and the angles of every position.
#[derive(Debug)]
pub struct Positions<'a> {
    /// \[T\] place in the sequence; below P, which the host checks.
    pub positions: &'a CudaView<'a, u32>,
    /// \[T\] place in the cache, block × block size + offset; `u32::MAX` for a row of padding.
    pub slots: &'a CudaView<'a, u32>,
    /// \[P, D/2\] cosines, as in `kernels::RopeTable`.
    pub cosines: &'a CudaView<'a, f32>,
    /// \[P, D/2\] sines.
    pub sines: &'a CudaView<'a, f32>,
}

/// One layer's cache.
#[derive(Debug)]
pub struct Cache<'a, 'b, E> {
    /// \[`num_blocks`, G, `block_size`, D\]
    pub keys: &'a mut CudaViewMut<'b, E>,
    /// The same.
    pub values: &'a mut CudaViewMut<'b, E>,
    pub block_size: usize,
    /// What is kept in e4m3 is divided by these: keys', values'. 1 where it is not e4m3.
    pub scales: [f32; 2],
}

/// H query heads, G heads of keys and values, of D values each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heads {
    pub num_heads: usize,
    pub num_groups: usize,
    pub head_dim: usize,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Shape {
    num_tokens: i32,
    num_heads: i32,
    num_groups: i32,
    head_dim: i32,
    max_positions: i32,
    block_size: i32,
    num_slots: i32,
}
// SAFETY: plain numbers, as the kernel declares them.
unsafe impl DeviceRepr for Shape {}

/// Turns the queries of `qkv` \[T, (H + 2G) D\] by their positions, where they lie, and the
/// keys on their way to the cache; values go there as they are (Su et al. 2021, arXiv 2104.09864,
/// in the half-split layout of `kernels::rope_row`). The keys of `qkv` stay unturned. D a multiple
/// of 16.
pub fn rope_kv<A: Float, E: CacheElement<A>>(
    device: &Device,
    qkv: &mut CudaViewMut<'_, A>,
    at: &Positions<'_>,
    cache: Cache<'_, '_, E>,
    heads: Heads,
) -> Result<()> {
    let shape = check(qkv.len(), at, &cache, heads)?;
    if shape.num_tokens == 0 {
        return Ok(());
    }
    let function = device.function(E::ROPE_KV)?;
    let config = thread_each(qkv.len() / 16);
    let [key_scale, value_scale] = cache.scales;
    let mut launch = device.stream().launch_builder(&function);
    launch.arg(qkv).arg(at.positions).arg(at.slots);
    launch.arg(at.cosines).arg(at.sines);
    launch.arg(cache.keys).arg(cache.values);
    launch.arg(&shape).arg(&key_scale).arg(&value_scale);
    // SAFETY: lengths were checked; positions and slots are compared with them by the kernel.
    unsafe { launch.launch(config) }.map_err(Error::driver("rope_kv"))?;
    Ok(())
}

fn check<E>(
    qkv_len: usize,
    at: &Positions<'_>,
    cache: &Cache<'_, '_, E>,
    heads: Heads,
) -> Result<Shape> {
    const OP: &str = "rope_kv";
    let Heads {
        num_heads,
        num_groups,
        head_dim,
    } = heads;
    expect_multiple(OP, "D", 16, head_dim)?;
    let num_tokens = at.positions.len();
    let all_heads = num_heads + 2 * num_groups;
    expect_len(OP, "qkv", num_tokens * all_heads * head_dim, qkv_len)?;
    expect_len(OP, "slots", num_tokens, at.slots.len())?;
    let max_positions = at.cosines.len() / (head_dim / 2);
    expect_len(
        OP,
        "cosines",
        max_positions * head_dim / 2,
        at.cosines.len(),
    )?;
    expect_multiple(OP, "P", 1, max_positions)?;
    expect_len(OP, "sines", at.cosines.len(), at.sines.len())?;
    let block_len = num_groups * cache.block_size * head_dim;
    expect_multiple(OP, "G · block size", 1, num_groups * cache.block_size)?;
    let num_blocks = cache.keys.len() / block_len;
    expect_len(OP, "keys", num_blocks * block_len, cache.keys.len())?;
    expect_len(OP, "values", cache.keys.len(), cache.values.len())?;
    Ok(Shape {
        num_tokens: num_tokens as i32,
        num_heads: num_heads as i32,
        num_groups: num_groups as i32,
        head_dim: head_dim as i32,
        max_positions: max_positions as i32,
        block_size: cache.block_size as i32,
        num_slots: (num_blocks * cache.block_size) as i32,
    })
}
