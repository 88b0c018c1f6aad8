//! Attention of the newest tokens of many sequences over keys and values in blocks of a cache:
//! what decode and prefill share, and prefill.
#![expect(
    unsafe_code,
    reason = "kernels are launched with the arguments they are declared with"
)]

use cudarc::driver::{
    CudaFunction, CudaView, CudaViewMut, DeviceRepr, LaunchConfig, PushKernelArg,
    sys::CUfunction_attribute,
};

use crate::{
    CacheElement, Device, Float, Heads,
    error::{Error, Result, expect_len, expect_multiple},
};

/// Rows, a token's head each, of a tile of the prefill and of the prefix kernel.
pub(crate) const PREFILL_ROWS: usize = 64;
/// 4 warps.
pub(crate) const BLOCK_THREADS: u32 = 128;

/// The new tokens and their sequences. Whose context is 0 is padding: zeros, and nothing is read. What lies
/// on the device is not checked: starts must rise to T, and the tables name blocks of the cache for every
/// position of a context, the new tokens' own included.
#[derive(Debug, Clone, Copy)]
pub struct PagedQueries<'a, A> {
    /// \[T, `stride`\], of which the first H·D are read.
    pub query: &'a CudaView<'a, A>,
    pub stride: usize,
    /// \[S + 1\]: sequence s has the tokens from `query_start[s]` to `query_start[s + 1]`.
    pub query_start: &'a CudaView<'a, u32>,
    /// \[S\] tokens in the cache, the new ones included.
    pub context_len: &'a CudaView<'a, u32>,
    /// \[S, `max_blocks`\] numbers of blocks.
    pub block_tables: &'a CudaView<'a, u32>,
}

/// One layer's cache, to be read.
#[derive(Debug, Clone, Copy)]
pub struct PagedCache<'a, E> {
    /// \[`num_blocks`, G, `block_size`, D\]
    pub keys: &'a CudaView<'a, E>,
    /// The same.
    pub values: &'a CudaView<'a, E>,
    /// A multiple of 16.
    pub block_size: usize,
    /// What the cache holds is multiplied by these: keys', values'. 1 where it is not e4m3.
    pub scales: [f32; 2],
}

#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) num_heads: i32,
    pub(crate) num_groups: i32,
    pub(crate) query_stride: i32,
    pub(crate) table_stride: i32,
    pub(crate) block_size: i32,
    pub(crate) num_splits: i32,
    pub(crate) num_prefix_splits: i32,
    pub(crate) scale: f32,
    pub(crate) value_scale: f32,
}
// SAFETY: plain numbers, as the kernels declare them.
unsafe impl DeviceRepr for Shape {}

/// As [`paged_decode`](crate::paged_decode), for any number of tokens of each sequence. `work`, from [`prefill_work`], on the device.
pub fn paged_prefill<A: Float, E: CacheElement<A>>(
    device: &Device,
    queries: PagedQueries<'_, A>,
    cache: PagedCache<'_, E>,
    heads: Heads,
    (work, out): (&CudaView<'_, u32>, &mut CudaViewMut<'_, A>),
) -> Result<()> {
    let op = "paged_prefill";
    let shape = check(op, &queries, &cache, heads, out.len())?;
    expect_len(op, "work", work.len() / 2 * 2, work.len())?;
    if work.is_empty() || out.is_empty() {
        return Ok(());
    }
    let function = with_shared(device, for_dim(E::PAGED_PREFILL, heads), heads)?;
    let mut launch = device.stream().launch_builder(&function);
    launch.arg(queries.query).arg(cache.keys).arg(cache.values);
    launch.arg(queries.query_start).arg(queries.context_len);
    launch.arg(queries.block_tables).arg(out);
    launch.arg(work).arg(&shape);
    let config = grid((work.len() / 2, heads.num_groups, 1), heads);
    // SAFETY: lengths were checked; what is on the device is the caller's word.
    unsafe { launch.launch(config) }.map_err(Error::driver(op))?;
    Ok(())
}

/// What the blocks of [`paged_prefill`] do, for sequences of these numbers of new tokens: pairs of a sequence
/// and a tile, those that see most keys first. Pairs of `u32::MAX` and anything may be added: padding.
pub fn prefill_work(query_lens: &[usize], heads: Heads) -> Vec<u32> {
    let group = heads.num_heads / heads.num_groups.max(1);
    let mut pairs: Vec<(usize, usize)> = Vec::new();
    for (sequence, len) in query_lens.iter().enumerate() {
        pairs.extend((0..(len * group).div_ceil(PREFILL_ROWS)).map(|tile| (sequence, tile)));
    }
    pairs.sort_by_key(|(_, tile)| std::cmp::Reverse(*tile));
    pairs
        .into_iter()
        .flat_map(|(sequence, tile)| [sequence as u32, tile as u32])
        .collect()
}

/// The head dimensions that attention has kernels for, in the order of their names.
pub const HEAD_DIMS: [usize; 3] = [32, 64, 128];

/// The kernel for D, which [`check_heads`] has seen.
pub(crate) fn for_dim(names: [&'static str; 3], heads: Heads) -> &'static str {
    let index = HEAD_DIMS.iter().position(|dim| *dim == heads.head_dim);
    names[index.unwrap_or_default()]
}

/// Two stages of keys and values (and, of fp8, what they are widened to), for 64 keys of D values.
fn shared_bytes(heads: Heads) -> u32 {
    512 * heads.head_dim as u32
}

/// Lets a kernel have so much shared memory for each block, and an SM as much of it as it can: several blocks
/// are to be resident.
pub(crate) fn give_shared(function: &CudaFunction, num_bytes: u32) -> Result<()> {
    use CUfunction_attribute as Attribute;
    /// Percent.
    const ALL: i32 = 100;
    for (attribute, value) in [
        (
            Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
            num_bytes as i32,
        ),
        (
            Attribute::CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT,
            ALL,
        ),
    ] {
        let set = function.set_attribute(attribute, value);
        set.map_err(Error::driver("shared memory"))?;
    }
    Ok(())
}

pub(crate) fn with_shared(
    device: &Device,
    name: &'static str,
    heads: Heads,
) -> Result<CudaFunction> {
    let function = device.function(name)?;
    give_shared(&function, shared_bytes(heads))?;
    Ok(function)
}

pub(crate) fn grid((x, y, z): (usize, usize, usize), heads: Heads) -> LaunchConfig {
    LaunchConfig {
        grid_dim: (x as u32, y as u32, z as u32),
        block_dim: (BLOCK_THREADS, 1, 1),
        shared_mem_bytes: shared_bytes(heads),
    }
}

pub(crate) fn check<A: Float, E: CacheElement<A>>(
    op: &'static str,
    queries: &PagedQueries<'_, A>,
    cache: &PagedCache<'_, E>,
    heads: Heads,
    out_len: usize,
) -> Result<Shape> {
    let Heads {
        num_heads,
        num_groups,
        head_dim,
    } = heads;
    check_heads(op, heads)?;
    expect_multiple(op, "block size", 16, cache.block_size)?;
    let block_len = num_groups * cache.block_size * head_dim;
    expect_multiple(op, "keys", block_len, cache.keys.len())?;
    expect_len(op, "values", cache.keys.len(), cache.values.len())?;
    let num_tokens = out_len / (num_heads * head_dim);
    expect_len(op, "out", num_tokens * num_heads * head_dim, out_len)?;
    expect_multiple(op, "query stride", 8, queries.stride)?;
    if queries.stride < num_heads * head_dim {
        let expected = format!("at least {}", num_heads * head_dim);
        return Err(Error::argument(
            op,
            "query stride",
            expected,
            queries.stride,
        ));
    }
    expect_len(
        op,
        "query",
        num_tokens * queries.stride,
        queries.query.len(),
    )?;
    let num_sequences = queries.context_len.len();
    expect_len(
        op,
        "query_start",
        num_sequences + 1,
        queries.query_start.len(),
    )?;
    let table_stride = queries.block_tables.len() / num_sequences.max(1);
    let tables_len = table_stride * num_sequences;
    expect_len(op, "block_tables", tables_len, queries.block_tables.len())?;
    Ok(Shape {
        num_heads: num_heads as i32,
        num_groups: num_groups as i32,
        query_stride: queries.stride as i32,
        table_stride: table_stride as i32,
        block_size: cache.block_size as i32,
        num_splits: 1,
        num_prefix_splits: 0,
        scale: cache.scales[0] * std::f32::consts::LOG2_E / (head_dim as f32).sqrt(),
        value_scale: cache.scales[1],
    })
}

/// What attention asks of heads.
pub(crate) fn check_heads(op: &'static str, heads: Heads) -> Result<()> {
    if !HEAD_DIMS.contains(&heads.head_dim) {
        let expected = "32, 64 or 128";
        return Err(Error::argument(op, "D", expected, heads.head_dim));
    }
    expect_multiple(op, "H", heads.num_groups.max(1), heads.num_heads)?;
    if heads.num_groups == 0 {
        return Err(Error::argument(op, "G", "at least 1", 0));
    }
    Ok(())
}
