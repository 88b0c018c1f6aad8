//! Attention of the newest token (or few) of many sequences over their cached keys and values, those of
//! a prefix that several have in common read once for all of them.
#![expect(
    unsafe_code,
    reason = "kernels are launched with the arguments they are declared with"
)]

use cudarc::driver::{CudaView, CudaViewMut, PushKernelArg};
use half::bf16;

use crate::{
    CacheElement, Device, Heads, PagedCache, PagedQueries,
    error::{Error, Result, expect_len},
    launch::blocks,
    paged_attention::{BLOCK_THREADS, PREFILL_ROWS, Shape, check, grid, index, with_shared},
};

/// Rows, a token's head each, of a warp.
const DECODE_ROWS: usize = 16;
/// How many blocks of `paged_decode` an SM holds: 64 KiB of shared memory and 168 registers a thread each;
/// `paged_prefix` has more registers.
const BLOCKS_PER_SM: usize = 3;
const PREFIX_BLOCKS_PER_SM: usize = 2;
/// A lane of `paged_combine` weighs each of 32.
const MAX_SPLITS: usize = 24;
const MAX_PREFIX_SPLITS: usize = 8;

/// Prefixes that sequences have in common, from [`SharedPrefixes`], on the device.
#[derive(Debug, Clone, Copy)]
pub struct PagedPrefixes<'a> {
    /// \[S\]
    pub prefix_len: &'a CudaView<'a, u32>,
    /// \[W, 4\]; entries of four zeros may be added: padding.
    pub work: &'a CudaView<'a, u32>,
    /// \[M\]; anything may be added.
    pub members: &'a CudaView<'a, u32>,
}

/// What `paged_decode_shared` wants to know of prefixes, put together by the host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SharedPrefixes {
    /// Of each sequence, how many of its first keys are those of a shared prefix.
    pub prefix_len: Vec<u32>,
    /// Of each tile: where its tokens begin in `members`, their number, a sequence, the prefix's length.
    pub work: Vec<u32>,
    /// Tokens, those of one prefix side by side.
    pub members: Vec<u32>,
}

impl SharedPrefixes {
    /// For so many sequences, of which none has a prefix yet.
    pub fn new(num_sequences: usize) -> Self {
        Self {
            prefix_len: vec![0; num_sequences],
            ..Self::default()
        }
    }

    /// These sequences begin with the same blocks, of `prefix_len` tokens together: a multiple of 16, all of
    /// which every new token sees (the caller answers for it). A sequence is named once at most.
    /// `query_start`: as in [`PagedQueries`].
    pub fn share(
        &mut self,
        sequences: &[usize],
        prefix_len: usize,
        query_start: &[u32],
        heads: Heads,
    ) -> Result<()> {
        let op = "SharedPrefixes::share";
        if !prefix_len.is_multiple_of(16) {
            let expected = "a multiple of 16";
            return Err(Error::argument(op, "prefix_len", expected, prefix_len));
        }
        let Some(first) = sequences.first() else {
            return Ok(());
        };
        if prefix_len == 0 {
            return Ok(());
        }
        let from = self.members.len();
        for sequence in sequences {
            let known = self.prefix_len.get(*sequence).copied();
            if known != Some(0) || sequence + 1 >= query_start.len() {
                let expected = "sequences of the batch, once each";
                return Err(Error::argument(op, "sequences", expected, sequence));
            }
            self.prefix_len[*sequence] = prefix_len as u32;
            self.members
                .extend(query_start[*sequence]..query_start[sequence + 1]);
        }
        let tile = (PREFILL_ROWS / (heads.num_heads / heads.num_groups.max(1)).max(1)).max(1);
        for at in (from..self.members.len()).step_by(tile) {
            let count = tile.min(self.members.len() - at);
            self.work
                .extend([at, count, *first, prefix_len].map(|value| value as u32));
        }
        Ok(())
    }
}

/// Over how many blocks a sequence's own keys are split, so that every SM has work, and those of prefixes.
#[derive(Clone, Copy)]
struct Splits {
    own: usize,
    prefix: usize,
}

impl Splits {
    fn new(device: &Device, num_sequences: usize, heads: Heads) -> Result<Self> {
        let wanted = device.num_multiprocessors()? * BLOCKS_PER_SM;
        let num_blocks = (num_sequences * heads.num_groups).max(1);
        let own = wanted.div_ceil(num_blocks).clamp(1, MAX_SPLITS);
        Ok(Self { own, prefix: 0 })
    }

    fn with_prefix(self, device: &Device, num_tokens: usize, heads: Heads) -> Result<Self> {
        let wanted = device.num_multiprocessors()? * PREFIX_BLOCKS_PER_SM;
        let group = heads.num_heads / heads.num_groups;
        let num_tiles = (num_tokens * group).div_ceil(PREFILL_ROWS);
        let num_blocks = (num_tiles * heads.num_groups).max(1);
        let prefix = wanted.div_ceil(num_blocks).clamp(1, MAX_PREFIX_SPLITS);
        Ok(Self { prefix, ..self })
    }

    fn num(self) -> usize {
        self.own + self.prefix
    }

    fn scratch_len(self, num_rows: usize, head_dim: usize) -> usize {
        let is_direct = self.num() == 1;
        if is_direct {
            0
        } else {
            self.num() * num_rows * (head_dim + 2)
        }
    }
}

/// How much scratch memory [`paged_decode`] needs for T tokens of S sequences.
pub fn paged_decode_scratch_len(
    device: &Device,
    num_sequences: usize,
    num_tokens: usize,
    heads: Heads,
) -> Result<usize> {
    let splits = Splits::new(device, num_sequences, heads)?;
    Ok(splits.scratch_len(num_tokens * heads.num_heads, heads.head_dim))
}

/// How much [`paged_decode_shared`] needs.
pub fn paged_decode_shared_scratch_len(
    device: &Device,
    num_sequences: usize,
    num_tokens: usize,
    heads: Heads,
) -> Result<usize> {
    let splits = Splits::new(device, num_sequences, heads)?;
    let splits = splits.with_prefix(device, num_tokens, heads)?;
    Ok(splits.scratch_len(num_tokens * heads.num_heads, heads.head_dim))
}

/// `out[T, H·D] = softmax(q·kᵀ/√D)·v` over the cache, causal: the last token of a sequence sees its whole
/// context, the one before it one position less. At most 16 tokens times query heads of a group in each
/// sequence, which the caller answers for (the rest is NaN). `scratch`: see [`paged_decode_scratch_len`].
/// D is 64 or 128. What is computed follows from the device's memory alone, so that a graph stays valid. How sums
/// are split follows from S: the last bits of a result may depend on the size of its batch.
pub fn paged_decode<E: CacheElement>(
    device: &Device,
    queries: PagedQueries<'_>,
    cache: PagedCache<'_, E>,
    heads: Heads,
    (out, scratch): (&mut CudaViewMut<'_, bf16>, &mut CudaViewMut<'_, f32>),
) -> Result<()> {
    let input = (queries, cache, None);
    decode("paged_decode", device, input, heads, (out, scratch))
}

/// The same where sequences begin with the same blocks, which are read once for 64 rows (21 tokens at H/G = 3)
/// instead of once for each sequence.
pub fn paged_decode_shared<E: CacheElement>(
    device: &Device,
    queries: PagedQueries<'_>,
    (cache, prefixes): (PagedCache<'_, E>, PagedPrefixes<'_>),
    heads: Heads,
    (out, scratch): (&mut CudaViewMut<'_, bf16>, &mut CudaViewMut<'_, f32>),
) -> Result<()> {
    let op = "paged_decode_shared";
    let num_sequences = queries.context_len.len();
    expect_len(op, "prefix_len", num_sequences, prefixes.prefix_len.len())?;
    expect_len(op, "work", prefixes.work.len() / 4 * 4, prefixes.work.len())?;
    let input = (queries, cache, Some(prefixes));
    decode(op, device, input, heads, (out, scratch))
}

fn decode<E: CacheElement>(
    op: &'static str,
    device: &Device,
    (queries, cache, prefixes): (
        PagedQueries<'_>,
        PagedCache<'_, E>,
        Option<PagedPrefixes<'_>>,
    ),
    heads: Heads,
    (out, scratch): (&mut CudaViewMut<'_, bf16>, &mut CudaViewMut<'_, f32>),
) -> Result<()> {
    let mut shape = check(op, &queries, &cache, heads, out.len())?;
    let group = heads.num_heads / heads.num_groups;
    if group > DECODE_ROWS {
        let expected = format!("at most {DECODE_ROWS}");
        return Err(Error::argument(op, "H / G", expected, group));
    }
    let num_sequences = queries.context_len.len();
    let num_tokens = out.len() / (heads.num_heads * heads.head_dim);
    let mut splits = Splits::new(device, num_sequences, heads)?;
    if prefixes.is_some() {
        splits = splits.with_prefix(device, num_tokens, heads)?;
    }
    let num_rows = num_tokens * heads.num_heads;
    let needed = splits.scratch_len(num_rows, heads.head_dim);
    if scratch.len() < needed {
        let expected = format!("at least {needed} values");
        return Err(Error::argument(op, "scratch", expected, scratch.len()));
    }
    if num_sequences == 0 || num_tokens == 0 {
        return Ok(());
    }
    shape.num_splits = splits.own as i32;
    shape.num_prefix_splits = splits.prefix as i32;
    let num_sums = needed / (heads.head_dim + 2) * heads.head_dim;
    let (mut sums, mut weights) = scratch.split_at_mut(num_sums);
    let partial = (&mut sums, &mut weights);
    if let Some(prefixes) = prefixes {
        launch_prefix(device, (queries, cache, prefixes), heads, &shape, partial)?;
    }
    let prefix_len = prefixes.map_or(queries.context_len, |prefixes| prefixes.prefix_len);
    let function = with_shared(device, E::PAGED_DECODE[index(heads)], heads)?;
    let tokens = num_tokens as i32;
    let mut launch = device.stream().launch_builder(&function);
    launch.arg(queries.query).arg(cache.keys).arg(cache.values);
    launch.arg(queries.query_start).arg(queries.context_len);
    launch.arg(queries.block_tables).arg(prefix_len);
    launch.arg(&mut *out).arg(&mut sums).arg(&mut weights);
    launch.arg(&tokens).arg(&shape);
    let config = grid((num_sequences, heads.num_groups, splits.own), heads);
    // SAFETY: lengths were checked; what is on the device is the caller's word.
    unsafe { launch.launch(config) }.map_err(Error::driver(op))?;
    if splits.num() == 1 {
        return Ok(());
    }
    let function = device.function(["paged_combine_64", "paged_combine_128"][index(heads)])?;
    let rows = num_rows as i32;
    let mut launch = device.stream().launch_builder(&function);
    launch.arg(&mut sums).arg(&mut weights).arg(out);
    launch.arg(&rows).arg(&shape);
    let config = blocks(num_rows.div_ceil(4), BLOCK_THREADS);
    // SAFETY: the shares of every row were written by the kernels before.
    unsafe { launch.launch(config) }.map_err(Error::driver(op))?;
    Ok(())
}

fn launch_prefix<E: CacheElement>(
    device: &Device,
    (queries, cache, prefixes): (PagedQueries<'_>, PagedCache<'_, E>, PagedPrefixes<'_>),
    heads: Heads,
    shape: &Shape,
    (sums, weights): (&mut CudaViewMut<'_, f32>, &mut CudaViewMut<'_, f32>),
) -> Result<()> {
    let num_entries = prefixes.work.len() / 4;
    if num_entries == 0 {
        return Ok(());
    }
    let function = with_shared(device, E::PAGED_PREFIX[index(heads)], heads)?;
    let tokens = (queries.query.len() / queries.stride) as i32;
    let mut launch = device.stream().launch_builder(&function);
    launch.arg(queries.query).arg(cache.keys).arg(cache.values);
    launch.arg(queries.context_len).arg(queries.block_tables);
    launch.arg(prefixes.work).arg(prefixes.members);
    launch.arg(sums).arg(weights).arg(&tokens).arg(shape);
    let num_splits = shape.num_prefix_splits as usize;
    let config = grid((num_entries, heads.num_groups, num_splits), heads);
    // SAFETY: lengths were checked; what is on the device is the caller's word.
    unsafe { launch.launch(config) }.map_err(Error::driver("paged_prefix"))?;
    Ok(())
}
