//! What the server serves: a runner with its weights, the loader that makes more weights for it, the
//! tokenizer, and what is to be told about the model. The runner and the loader come as a pair, since
//! what the one stages only the other can install.

mod checkpoint;
pub(crate) mod cuda;
mod llama;

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod tests;

use std::{fmt::Debug, path::Path, sync::Arc};

use model::tokenizer::ModelTokenizer;

use crate::{
    config::{Device, PrefixCacheMode, ServerConfig},
    engine::{
        runner::{Runner, StagedWeights},
        scheduler::Limits,
    },
    error::ServerError,
    request::{PrefixCache, WeightsVersion},
};

/// Loads the model that `config` names onto its device. Blocks for as long as that takes.
pub(crate) fn load(config: &ServerConfig) -> Result<Backend, ServerError> {
    match config.device {
        Device::Cpu => llama::load_llama(config),
        Device::Cuda => cuda::load_cuda(config),
    }
}

/// Everything model-specific.
#[derive(Debug)]
pub(crate) struct Backend {
    pub runner: Box<dyn Runner>,
    pub loader: Arc<dyn Loader>,
    pub tokenizer: ModelTokenizer,
    pub model: ModelInfo,
    pub limits: Limits,
    /// Prompt and answer together: what the model and the KV cache can hold.
    pub max_context_tokens: usize,
    pub weights: WeightsVersion,
}

/// What is told about the model; the same for all weights it may be swapped to.
#[derive(Debug, Clone)]
pub(crate) struct ModelInfo {
    pub architecture: String,
    pub num_parameters: u64,
    /// Of the computation.
    pub dtype: String,
    pub vocab_size: u32,
    pub eos_token_ids: Vec<u32>,
}

/// Weights that were loaded and proven.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub weights: StagedWeights,
    /// sha256 over the tensors.
    pub digest: String,
}

/// Why a checkpoint was not loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LoadError {
    /// The folder is not what its manifest says, or not the one that was expected.
    Manifest(String),
    /// Another architecture, vocabulary or tokenizer.
    OtherArchitecture(String),
    /// Unreadable, incomplete or not finite.
    Unusable(String),
}

/// Makes weights for the running runner.
pub(crate) trait Loader: Debug + Send + Sync {
    /// Verifies, loads and proves the checkpoint in `folder`, beside the live weights. Blocks for as
    /// long as that takes.
    fn load(
        &self,
        folder: &Path,
        expected_manifest_sha256: Option<&str>,
    ) -> Result<Loaded, LoadError>;
}

/// What a step may hold, as configured, and so many blocks: two slots at least, for a prompt of one token
/// and its answer.
pub(crate) fn step_limits(config: &ServerConfig, num_blocks: usize) -> Limits {
    Limits {
        block_size: config.block_size as usize,
        num_blocks: u32::try_from(num_blocks).unwrap_or(u32::MAX).max(2),
        max_num_seqs: config.max_num_seqs as usize,
        max_num_batched_tokens: config.max_num_batched_tokens as usize,
        max_draft_tokens: config.speculative_tokens as usize,
        prefix_cache: match config.prefix_cache {
            PrefixCacheMode::On => PrefixCache::Use,
            PrefixCacheMode::Off => PrefixCache::Bypass,
        },
    }
}
