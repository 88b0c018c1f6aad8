//! Attention of a step: keys and values go into the cache, then those that decode and the chunks of prefill look
//! back at it.

use cuda::{
    Cache, CacheElement, CudaSlice, Device, Float, Heads, PagedCache, PagedPrefixes, PagedQueries,
    Positions,
};

use super::Network;
use crate::config::LlamaConfig;
use crate::error::Result;
use crate::gpu::inputs::{Inputs, StepShape};

impl<A: Float> Network<A> {
    /// From q, k and v to what attention makes of them, by way of the cache.
    pub(super) fn attend_cached<E: CacheElement<A>>(
        &mut self,
        (keys, values): (&mut CudaSlice<E>, &mut CudaSlice<E>),
        block_size: usize,
        inputs: &Inputs<'_>,
    ) -> Result<()> {
        let config = &self.config;
        let num_tokens = inputs.token_ids.len();
        let heads = heads(config);
        let width = config.query_size() + 2 * config.kv_size();
        let mut qkv = self.qkv.slice_mut(..num_tokens * width);
        let at = Positions {
            positions: &inputs.positions,
            slots: &inputs.slots,
            cosines: &self.cosines.as_view(),
            sines: &self.sines.as_view(),
        };
        let cache = Cache {
            keys: &mut keys.as_view_mut(),
            values: &mut values.as_view_mut(),
            block_size,
            scales: [1.0, 1.0],
        };
        cuda::rope_kv(&self.device, &mut qkv, &at, cache, heads)?;
        let cache = PagedCache {
            keys: &keys.as_view(),
            values: &values.as_view(),
            block_size,
            scales: [1.0, 1.0],
        };
        self.attend_decodes(cache, inputs)?;
        self.attend_chunks(cache, inputs)
    }

    fn attend_decodes<E: CacheElement<A>>(
        &mut self,
        cache: PagedCache<'_, E>,
        inputs: &Inputs<'_>,
    ) -> Result<()> {
        let StepShape {
            num_decodes: count,
            table_len,
            num_prefix_tiles,
            ..
        } = inputs.shape;
        if count == 0 {
            return Ok(());
        }
        let heads = heads(&self.config);
        let width = self.config.query_size() + 2 * self.config.kv_size();
        let queries = PagedQueries {
            query: &self.qkv.slice(..count * width),
            stride: width,
            query_start: &inputs.query_starts.slice(..=count),
            context_len: &inputs.context_lens.slice(..count),
            block_tables: &inputs.block_tables.slice(..count * table_len),
        };
        let mut out = self
            .tokens
            .attended
            .slice_mut(..count * self.config.query_size());
        let to = (&mut out, &mut self.scratch.as_view_mut());
        if num_prefix_tiles == 0 {
            return Ok(cuda::paged_decode(&self.device, queries, cache, heads, to)?);
        }
        let prefixes = PagedPrefixes {
            prefix_len: &inputs.prefix_lens,
            work: &inputs.prefix_work,
            members: &inputs.prefix_members,
        };
        let shared = (cache, prefixes);
        Ok(cuda::paged_decode_shared(
            &self.device,
            queries,
            shared,
            heads,
            to,
        )?)
    }

    fn attend_chunks<E: CacheElement<A>>(
        &mut self,
        cache: PagedCache<'_, E>,
        inputs: &Inputs<'_>,
    ) -> Result<()> {
        if inputs.tiles.is_empty() {
            return Ok(());
        }
        let StepShape {
            num_tokens,
            num_decodes: first,
            table_len,
            ..
        } = inputs.shape;
        let heads = heads(&self.config);
        let width = self.config.query_size() + 2 * self.config.kv_size();
        let queries = PagedQueries {
            query: &self.qkv.slice(..num_tokens * width),
            stride: width,
            query_start: &inputs.query_starts.slice(first..),
            context_len: &inputs.context_lens.slice(first..),
            block_tables: &inputs.block_tables.slice(first * table_len..),
        };
        let mut out = self
            .tokens
            .attended
            .slice_mut(..num_tokens * self.config.query_size());
        let to = (&inputs.tiles, &mut out);
        Ok(cuda::paged_prefill(
            &self.device,
            queries,
            cache,
            heads,
            to,
        )?)
    }
}

pub(super) fn heads(config: &LlamaConfig) -> Heads {
    Heads {
        num_heads: config.num_attention_heads,
        num_groups: config.num_key_value_heads,
        head_dim: config.head_dim,
    }
}

/// Enough for steps of any number of decoding sequences up to `most`, with prefixes shared or not.
pub(super) fn scratch_len<A: Float>(
    device: &Device,
    config: &LlamaConfig,
    most: usize,
) -> Result<usize> {
    let mut largest = 0;
    for count in 1..=most {
        let alone = cuda::paged_decode_scratch_len::<A>(device, count, count, heads(config))?;
        largest = largest.max(alone);
        if A::SHARES_PREFIXES {
            let heads = heads(config);
            let len = cuda::paged_decode_shared_scratch_len::<A>(device, count, count, heads)?;
            largest = largest.max(len);
        }
    }
    Ok(largest)
}
