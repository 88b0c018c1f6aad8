//! The Llama network for serving: packed tokens in, logits out, no autograd graph. What a batch is
//! and what a model holds is here; the fast forward pass is in `paged`, its slow twin in `dense`.

use std::path::Path;
use std::sync::Arc;

use candle_core::DType;
use kernels::tensor::f32_view;
use kernels::{Crew, RopeTable, WeightFormat};

use crate::config::LlamaConfig;
use crate::error::{ModelError, Result};
use crate::load::TensorReader;
use crate::weights::{Weights, tensor_specs};

mod dense;
mod packed;
mod paged;
mod rope;

pub use paged::kv_shape;
pub use rope::{inverse_frequencies, rope_table};

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
    weights: packed::PackedWeights,
    digest: String,
    rope: RopeTable,
    format: WeightFormat,
    crew: Arc<Crew>,
}

/// How a Llama is to compute.
#[derive(Debug, Clone)]
pub struct LlamaOptions {
    /// Of the matrices, the embedding included.
    pub format: WeightFormat,
    /// The threads; several models may share them.
    pub crew: Arc<Crew>,
}

impl Llama {
    /// Reads a checkpoint folder. Besides the packed weights one tensor at a time is in memory.
    pub fn load(dir: &Path, config: &LlamaConfig, options: &LlamaOptions) -> Result<Self> {
        config.check(Path::new("config"))?;
        let mut reader = TensorReader::open(dir, config)?;
        let tensors = std::iter::from_fn(|| reader.next()).map(|tensor| Ok(tensor?.1));
        let weights = packed::PackedWeights::pack(config, options.format, tensors)?;
        Ok(Self::assemble(
            config.clone(),
            (weights, reader.digest()),
            options,
        ))
    }

    /// Packs weights in f32, for one thread.
    pub fn new(config: LlamaConfig, weights: Weights) -> Result<Self> {
        let options = LlamaOptions {
            format: WeightFormat::F32,
            crew: Arc::new(Crew::alone()),
        };
        Self::with_options(config, weights, &options)
    }

    /// Checks that `weights` are those of `config`: shapes, f32, contiguous, on the CPU.
    pub fn with_options(
        config: LlamaConfig,
        weights: Weights,
        options: &LlamaOptions,
    ) -> Result<Self> {
        config.check(Path::new("config"))?;
        let (specs, named) = (tensor_specs(&config), weights.named());
        if specs.len() != named.len() {
            let expected = format!("{} tensors", specs.len());
            return Err(wrong_weights("(all)", &expected, named.len().to_string()));
        }
        for (spec, (name, tensor)) in specs.iter().zip(&named) {
            let fits = *name == spec.name && tensor.dims() == spec.shape;
            if !fits || tensor.dtype() != DType::F32 || !tensor.is_contiguous() {
                let expected = format!("{:?}, f32, contiguous", spec.shape);
                let found = format!("{name} {:?}, {:?}", tensor.dims(), tensor.dtype());
                return Err(wrong_weights(&spec.name, &expected, found));
            }
        }
        let digest = weights.digest()?;
        drop(weights);
        // A tensor is gone once it is packed.
        let tensors = named.into_iter().map(|(_, tensor)| {
            let values = f32_view("Llama", "weights", &tensor)?;
            Ok(values.to_vec())
        });
        let weights = packed::PackedWeights::pack(&config, options.format, tensors)?;
        Ok(Self::assemble(config, (weights, digest), options))
    }

    fn assemble(
        config: LlamaConfig,
        (weights, digest): (packed::PackedWeights, String),
        options: &LlamaOptions,
    ) -> Self {
        Self {
            rope: rope::rope_table(&config, config.max_position_embeddings),
            config,
            weights,
            digest,
            format: options.format,
            crew: Arc::clone(&options.crew),
        }
    }

    pub fn config(&self) -> &LlamaConfig {
        &self.config
    }

    /// Of the weights as they were stored (see [`Weights::digest`]), whatever they are served in.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Bytes of weights that every step reads.
    pub fn weight_bytes(&self) -> usize {
        self.weights.num_bytes()
    }
}

fn wrong_weights(tensor: &str, expected: &str, found: String) -> ModelError {
    ModelError::tensor(Path::new("weights"), tensor, expected, found)
}

#[cfg(test)]
mod tests;
