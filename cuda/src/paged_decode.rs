//! Attention of the newest token (or few) of many sequences over their cached keys and values, those of
//! a prefix that several have in common read once for all of them.
#![expect(
    unsafe_code,
    reason = "kernels are launched with the arguments they are declared with"
)]

use cudarc::driver::{CudaView, CudaViewMut, PushKernelArg};

use crate::{
    CacheElement, Device, Float, Heads, PagedCache, PagedQueries,
    error::{Error, Result, expect_len},
    launch::blocks,
    paged_attention::{BLOCK_THREADS, PREFILL_ROWS, Shape, check, for_dim, grid, with_shared},
};

/// Rows, a token's head each, of a warp.
const DECODE_ROWS: usize = 16;
/// How many blocks of `paged_decode` an SM holds: 64 KiB of shared memory and 168 registers a thread each;
/// `paged_prefix` has more registers.
const BLOCKS_PER_SM: usize = 3;
const PREFIX_BLOCKS_PER_SM: usize = 2;
const MAX_PREFIX_SPLITS: usize = 8;
const PAGED_COMBINE: [&str; 3] = ["paged_combine_32", "paged_combine_64", "paged_combine_128"];

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
        let mut prefixes = Self::default();
        prefixes.clear(num_sequences);
        prefixes
    }

    /// As new, with the memory it has.
    pub fn clear(&mut self, num_sequences: usize) {
        self.prefix_len.clear();
        self.prefix_len.resize(num_sequences, 0);
        self.work.clear();
        self.members.clear();
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
        let tile = prefix_tile_tokens(heads);
        for at in (from..self.members.len()).step_by(tile) {
            let count = tile.min(self.members.len() - at);
            self.work
                .extend([at, count, *first, prefix_len].map(|value| value as u32));
        }
        Ok(())
    }
}

/// Tokens for which a shared prefix is read once: as many as have 64 rows with the heads of a group.
pub fn prefix_tile_tokens(heads: Heads) -> usize {
    let group = (heads.num_heads / heads.num_groups.max(1)).max(1);
    (PREFILL_ROWS / group).max(1)
}

/// Over how many blocks a sequence's own keys are split, so that every SM has work, and those of prefixes.
#[derive(Clone, Copy)]
struct Splits {
    own: usize,
    prefix: usize,
}

impl Splits {
    fn new<A: Float>(device: &Device, num_sequences: usize, heads: Heads) -> Result<Self> {
        let wanted = device.num_multiprocessors()? * BLOCKS_PER_SM;
        let num_blocks = (num_sequences * heads.num_groups).max(1);
        let own = wanted.div_ceil(num_blocks).clamp(1, A::MAX_SPLITS);
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
pub fn paged_decode_scratch_len<A: Float>(
    device: &Device,
    num_sequences: usize,
    num_tokens: usize,
    heads: Heads,
) -> Result<usize> {
    let splits = Splits::new::<A>(device, num_sequences, heads)?;
    Ok(splits.scratch_len(num_tokens * heads.num_heads, heads.head_dim))
}

/// How much [`paged_decode_shared`] needs.
pub fn paged_decode_shared_scratch_len<A: Float>(
    device: &Device,
    num_sequences: usize,
    num_tokens: usize,
    heads: Heads,
) -> Result<usize> {
    let splits = Splits::new::<A>(device, num_sequences, heads)?;
    let splits = splits.with_prefix(device, num_tokens, heads)?;
    Ok(splits.scratch_len(num_tokens * heads.num_heads, heads.head_dim))
}

/// `out[T, H·D] = softmax(q·kᵀ/√D)·v` over the cache, causal: the last token of a sequence sees its whole
/// context, the one before it one position less. At most 16 tokens times query heads of a group in each
/// sequence, which the caller answers for (the rest is NaN). `scratch`: see [`paged_decode_scratch_len`].
/// D is one of [`HEAD_DIMS`](crate::HEAD_DIMS). What is computed follows from the device's memory alone, so that a
/// graph stays valid. How sums are split follows from S: the last bits of a result may depend on the size of its
/// batch.
pub fn paged_decode<A: Float, E: CacheElement<A>>(
    device: &Device,
    queries: PagedQueries<'_, A>,
    cache: PagedCache<'_, E>,
    heads: Heads,
    (out, scratch): (&mut CudaViewMut<'_, A>, &mut CudaViewMut<'_, f32>),
) -> Result<()> {
    let op = "paged_decode";
    let splits = Splits::new::<A>(device, queries.context_len.len(), heads)?;
    let lens = (out.len(), scratch.len());
    let plan = Plan::new(op, (&queries, &cache), (heads, splits), lens)?;
    let partial = &mut scratch.split_at_mut(plan.num_sums);
    plan.decode(device, (queries, cache, None), out, partial)
}

/// The same where sequences begin with the same blocks, which are read once for 64 rows (21 tokens at H/G = 3)
/// instead of once for each sequence. There are no kernels for f32.
pub fn paged_decode_shared<A: Float, E: CacheElement<A>>(
    device: &Device,
    queries: PagedQueries<'_, A>,
    (cache, prefixes): (PagedCache<'_, E>, PagedPrefixes<'_>),
    heads: Heads,
    (out, scratch): (&mut CudaViewMut<'_, A>, &mut CudaViewMut<'_, f32>),
) -> Result<()> {
    let op = "paged_decode_shared";
    let num_sequences = queries.context_len.len();
    expect_len(op, "prefix_len", num_sequences, prefixes.prefix_len.len())?;
    expect_len(op, "work", prefixes.work.len() / 4 * 4, prefixes.work.len())?;
    let num_tokens = out.len() / (heads.num_heads * heads.head_dim).max(1);
    let splits = Splits::new::<A>(device, num_sequences, heads)?;
    let splits = splits.with_prefix(device, num_tokens, heads)?;
    let lens = (out.len(), scratch.len());
    let plan = Plan::new(op, (&queries, &cache), (heads, splits), lens)?;
    let partial = &mut scratch.split_at_mut(plan.num_sums);
    plan.prefix(device, (queries, cache, prefixes), partial)?;
    let input = (queries, cache, Some(prefixes.prefix_len));
    plan.decode(device, input, out, partial)
}

/// Sums and weights of shares.
type Partial<'a> = (CudaViewMut<'a, f32>, CudaViewMut<'a, f32>);

/// Arguments that were checked.
struct Plan {
    op: &'static str,
    heads: Heads,
    splits: Splits,
    shape: Shape,
    num_tokens: usize,
    /// Of the scratch memory, what sums take.
    num_sums: usize,
}

impl Plan {
    fn new<A: Float, E: CacheElement<A>>(
        op: &'static str,
        (queries, cache): (&PagedQueries<'_, A>, &PagedCache<'_, E>),
        (heads, splits): (Heads, Splits),
        (out_len, scratch_len): (usize, usize),
    ) -> Result<Self> {
        let mut shape = check(op, queries, cache, heads, out_len)?;
        let group = heads.num_heads / heads.num_groups;
        if group > DECODE_ROWS {
            let expected = format!("at most {DECODE_ROWS}");
            return Err(Error::argument(op, "H / G", expected, group));
        }
        let num_tokens = out_len / (heads.num_heads * heads.head_dim);
        let needed = splits.scratch_len(num_tokens * heads.num_heads, heads.head_dim);
        if scratch_len < needed {
            let expected = format!("at least {needed} values");
            return Err(Error::argument(op, "scratch", expected, scratch_len));
        }
        shape.num_splits = splits.own as i32;
        shape.num_prefix_splits = splits.prefix as i32;
        Ok(Self {
            op,
            heads,
            splits,
            shape,
            num_tokens,
            num_sums: needed / (heads.head_dim + 2) * heads.head_dim,
        })
    }

    fn decode<A: Float, E: CacheElement<A>>(
        &self,
        device: &Device,
        (queries, cache, prefix_len): (
            PagedQueries<'_, A>,
            PagedCache<'_, E>,
            Option<&CudaView<'_, u32>>,
        ),
        out: &mut CudaViewMut<'_, A>,
        (sums, weights): &mut Partial<'_>,
    ) -> Result<()> {
        let num_sequences = queries.context_len.len();
        if num_sequences == 0 || self.num_tokens == 0 {
            return Ok(());
        }
        let heads = self.heads;
        let function = with_shared(device, for_dim(E::PAGED_DECODE, heads), heads)?;
        let tokens = self.num_tokens as i32;
        let mut launch = device.stream().launch_builder(&function);
        launch.arg(queries.query).arg(cache.keys).arg(cache.values);
        launch.arg(queries.query_start).arg(queries.context_len);
        launch.arg(queries.block_tables);
        launch.arg(prefix_len.unwrap_or(queries.context_len));
        launch.arg(&mut *out).arg(&mut *sums).arg(&mut *weights);
        launch.arg(&tokens).arg(&self.shape);
        let config = grid((num_sequences, heads.num_groups, self.splits.own), heads);
        // SAFETY: lengths were checked; what is on the device is the caller's word.
        unsafe { launch.launch(config) }.map_err(Error::driver(self.op))?;
        if self.splits.num() == 1 {
            return Ok(());
        }
        let function = device.function(for_dim(PAGED_COMBINE, heads))?;
        let num_rows = self.num_tokens * heads.num_heads;
        let rows = num_rows as i32;
        let mut launch = device.stream().launch_builder(&function);
        launch.arg(&mut *sums).arg(&mut *weights).arg(out);
        launch.arg(&rows).arg(&self.shape);
        let config = blocks(num_rows.div_ceil(4), BLOCK_THREADS);
        // SAFETY: the shares of every row were written by the kernels before; in f32 there is one share only.
        unsafe { launch.launch(config) }.map_err(Error::driver(self.op))?;
        Ok(())
    }

    fn prefix<A: Float, E: CacheElement<A>>(
        &self,
        device: &Device,
        (queries, cache, prefixes): (PagedQueries<'_, A>, PagedCache<'_, E>, PagedPrefixes<'_>),
        (sums, weights): &mut Partial<'_>,
    ) -> Result<()> {
        let Some(names) = E::PAGED_PREFIX else {
            return Err(Error::argument(self.op, "query", "bf16", "f32"));
        };
        let num_entries = prefixes.work.len() / 4;
        if num_entries == 0 || self.num_tokens == 0 {
            return Ok(());
        }
        let heads = self.heads;
        let function = with_shared(device, for_dim(names, heads), heads)?;
        let tokens = self.num_tokens as i32;
        let mut launch = device.stream().launch_builder(&function);
        launch.arg(queries.query).arg(cache.keys).arg(cache.values);
        launch.arg(queries.context_len).arg(queries.block_tables);
        launch.arg(prefixes.work).arg(prefixes.members);
        launch.arg(sums).arg(weights).arg(&tokens).arg(&self.shape);
        let config = grid((num_entries, heads.num_groups, self.splits.prefix), heads);
        // SAFETY: lengths were checked; what is on the device is the caller's word.
        unsafe { launch.launch(config) }.map_err(Error::driver("paged_prefix"))?;
        Ok(())
    }
}
