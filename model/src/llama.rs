//! The Llama network for serving: packed tokens in, logits out, no autograd graph.

use crate::config::LlamaConfig;
use crate::weights::Weights;

/// One step's tokens of all sequences, one after another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PackedBatch {
    /// `[T]`
    pub token_ids: Vec<u32>,
    /// `[T]`: place of each token in its sequence, from 0.
    pub positions: Vec<u32>,
    /// `[T]`: slot of the KV cache each token's key and value go to.
    pub slot_mapping: Vec<u32>,
    /// In the order of their tokens; their `query_len`s add up to T.
    pub sequences: Vec<BatchSequence>,
    /// Which of the T rows logits are wanted for, in the order of the result.
    pub logits_rows: Vec<u32>,
}

/// One sequence's part of a [`PackedBatch`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchSequence {
    /// New tokens in this step: 1 for decode, more for a chunk of prefill.
    pub query_len: u32,
    /// Tokens in all, the new ones included.
    pub context_len: u32,
    /// The sequence's blocks, first to last; at least `context_len` tokens' worth.
    pub block_table: Vec<u32>,
}

/// A Llama ready to run.
#[derive(Debug)]
pub struct Llama {
    config: LlamaConfig,
    weights: Weights,
}

// Follows when the kernels' KvCache has landed:
//   Llama::new(config, weights) -> Result<Llama>
//   llama.new_kv_cache(num_blocks, block_size) -> Result<kernels::KvCache>
//   llama.forward(&PackedBatch, &mut kernels::KvCache) -> Result<Tensor>  [logits_rows, vocab] f32
//   llama.forward_dense(token_ids: &[u32]) -> Result<Tensor>              [T, vocab] f32
