//! What the server runs with ([`ServerConfig`]) and what can be wrong with it. With `args` the only
//! reader of arguments and environment; all mistakes are reported at once. Nothing here loads a model.

mod args;
mod gpu;
mod precision;

use std::{fmt, num::NonZeroU32, path::PathBuf, time::Duration};

use clap::ValueEnum;
use model::template::TemplateChoice;

use self::gpu::DEFAULT_GPU_MEMORY_UTILIZATION;
pub use self::{
    args::{Args, LogFormat},
    gpu::{CascadeAttention, GpuConfig, KvCacheDtype, ProductTuning, WeightArenas},
    precision::{Dtype, Precision, Quantization},
};

#[cfg(test)]
mod tests;

/// Slots in a KV block on a CPU: small, since nothing there asks for more and less is wasted.
pub(crate) const DEFAULT_BLOCK_SIZE: u32 = 16;
/// Sequences in one step. Enough that the matrix products of a small model run at full speed.
pub(crate) const DEFAULT_MAX_NUM_SEQS: u32 = 256;
/// Tokens in one step on a CPU: matrix products of so many rows run at full speed, and answers under
/// way wait no longer than such a step takes while others' prompts are computed.
pub(crate) const DEFAULT_MAX_NUM_BATCHED_TOKENS: u32 = 512;
/// GSM8K's 7,473 training questions fit, each as a stream of its own.
pub(crate) const DEFAULT_MAX_QUEUED_REQUESTS: u32 = 8192;
/// Long enough that a reasoned answer is not cut.
pub(crate) const DEFAULT_MAX_TOKENS: u32 = 1024;
/// How long running requests may take to finish after a stop signal.
pub(crate) const DEFAULT_GRACE_MS: u64 = 30_000;
/// An auth token shorter than this can be guessed.
const MIN_AUTH_TOKEN_BYTES: usize = 16;

/// Where the model is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Device {
    /// All cores of this machine.
    Cpu,
    /// An NVIDIA GPU.
    Cuda,
}

/// Sizes of steps and blocks that suit a device.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    block_size: u32,
    max_num_seqs: u32,
    max_num_batched_tokens: u32,
}

impl Device {
    fn default_sizes(self) -> Sizes {
        match self {
            Self::Cpu => Sizes {
                block_size: DEFAULT_BLOCK_SIZE,
                max_num_seqs: DEFAULT_MAX_NUM_SEQS,
                max_num_batched_tokens: DEFAULT_MAX_NUM_BATCHED_TOKENS,
            },
            // A block's keys fill a tile; products of so many rows run at full speed.
            Self::Cuda => Sizes {
                block_size: 32,
                max_num_seqs: 512,
                max_num_batched_tokens: 8192,
            },
        }
    }
}

/// Whether requests share computed prefixes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PrefixCacheMode {
    /// What one request computed, others with the same first tokens read.
    On,
    /// Every request computes its whole prompt.
    Off,
}

/// How large the KV cache is; its memory is allocated once, at start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KvCacheSize {
    /// What `max_num_seqs` sequences of full length need, at most 512 MiB, at least one sequence.
    Auto,
    /// So many blocks.
    Blocks(NonZeroU32),
    /// So many MiB.
    Mebibytes(NonZeroU32),
}

/// A secret that never shows in a log.
#[derive(Clone, PartialEq, Eq)]
pub struct AuthToken(String);

impl AuthToken {
    /// A token of at least 16 printable ASCII characters.
    pub fn new(token: &str) -> Result<Self, Mistake> {
        let found = token.len();
        if found < MIN_AUTH_TOKEN_BYTES || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Mistake {
                option: "--auth-token-file",
                problem: format!(
                    "the token must be at least {MIN_AUTH_TOKEN_BYTES} printable ASCII characters \
                     without spaces, found {found} bytes; `openssl rand -hex 32` makes one"
                ),
            });
        }
        Ok(Self(token.to_owned()))
    }

    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for AuthToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("AuthToken(..)")
    }
}

/// What the server runs with. [`crate::run`] checks it against the model's own limits.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// The model folder.
    pub model_dir: PathBuf,
    /// Folder below which `ReloadCheckpoint` finds checkpoints; `None` refuses every reload.
    pub checkpoint_root: Option<PathBuf>,
    pub device: Device,
    /// With [`Device::Cuda`].
    pub gpu: GpuConfig,
    /// In what numbers the model is computed.
    pub precision: Precision,
    pub kv_cache: KvCacheSize,
    /// Tokens in a KV block.
    pub block_size: u32,
    /// Most sequences computed in one step.
    pub max_num_seqs: u32,
    /// Most tokens computed in one step.
    pub max_num_batched_tokens: u32,
    pub prefix_cache: PrefixCacheMode,
    /// Most tokens guessed ahead by prompt lookup; 0 is no speculation.
    pub speculative_tokens: u32,
    /// Most requests admitted and not yet finished.
    pub max_queued_requests: u32,
    /// `max_tokens` of a request that does not say.
    pub default_max_tokens: u32,
    pub chat_template: TemplateChoice,
    /// Date that the chat template writes; `None` is the template's own.
    pub template_date: Option<String>,
    /// Threads that compute; `None` is one per core.
    pub threads: Option<usize>,
    /// Callers must send it; `None` lets everybody in.
    pub auth_token: Option<AuthToken>,
    /// How long running requests may take to finish after the shutdown signal.
    pub grace: Duration,
}

/// One thing that is wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    pub option: &'static str,
    pub problem: String,
}

/// Everything that is wrong with the configuration, in one message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.sentences())]
pub struct ConfigError {
    pub mistakes: Vec<Mistake>,
}

impl ConfigError {
    fn sentences(&self) -> String {
        let lines: Vec<String> = self
            .mistakes
            .iter()
            .map(|each| format!("{}: {}", each.option, each.problem))
            .collect();
        lines.join("\n")
    }
}

impl ServerConfig {
    /// The defaults, for a model folder and callers on this machine. Fields may be set afterwards.
    pub fn for_model(model_dir: impl Into<PathBuf>) -> Self {
        Self {
            model_dir: model_dir.into(),
            checkpoint_root: None,
            device: Device::Cpu,
            gpu: GpuConfig::default(),
            precision: Precision::default(),
            kv_cache: KvCacheSize::Auto,
            block_size: DEFAULT_BLOCK_SIZE,
            max_num_seqs: DEFAULT_MAX_NUM_SEQS,
            max_num_batched_tokens: DEFAULT_MAX_NUM_BATCHED_TOKENS,
            prefix_cache: PrefixCacheMode::On,
            speculative_tokens: 0,
            max_queued_requests: DEFAULT_MAX_QUEUED_REQUESTS,
            default_max_tokens: DEFAULT_MAX_TOKENS,
            chat_template: TemplateChoice::Auto,
            template_date: None,
            threads: None,
            auth_token: None,
            grace: Duration::from_millis(DEFAULT_GRACE_MS),
        }
    }

    /// The same on another device, with the precision and the sizes of steps that suit it.
    #[must_use]
    pub fn on(self, device: Device) -> Self {
        let sizes = device.default_sizes();
        let precision = match device {
            Device::Cpu => Precision::default(),
            Device::Cuda => Precision::Float(Dtype::Bf16),
        };
        Self {
            device,
            precision,
            block_size: sizes.block_size,
            max_num_seqs: sizes.max_num_seqs,
            max_num_batched_tokens: sizes.max_num_batched_tokens,
            ..self
        }
    }

    /// What is wrong with the values themselves; empty if nothing is.
    pub fn mistakes(&self) -> Vec<Mistake> {
        let mut mistakes = Vec::new();
        if !self.model_dir.is_dir() {
            mistakes.push(Mistake {
                option: "--model",
                problem: format!(
                    "no folder at {}; give a folder with config.json, tokenizer.json and \
                     model.safetensors",
                    self.model_dir.display()
                ),
            });
        }
        if let Some(root) = &self.checkpoint_root
            && !root.is_dir()
        {
            mistakes.push(Mistake {
                option: "--checkpoint-root",
                problem: format!(
                    "no folder at {}; create it before the start",
                    root.display()
                ),
            });
        }
        mistakes.extend(self.out_of_range());
        if self.device == Device::Cuda {
            mistakes.extend(gpu::mistakes(self));
        }
        mistakes
    }

    fn out_of_range(&self) -> Vec<Mistake> {
        let counts = [
            ("--block-size", self.block_size, 1, 1024),
            ("--max-num-seqs", self.max_num_seqs, 1, 65_536),
            (
                "--max-num-batched-tokens",
                self.max_num_batched_tokens,
                1,
                1 << 20,
            ),
            (
                "--max-queued-requests",
                self.max_queued_requests,
                1,
                1 << 20,
            ),
            ("--speculative-tokens", self.speculative_tokens, 0, 64),
            ("--default-max-tokens", self.default_max_tokens, 1, 1 << 20),
        ];
        let mut mistakes: Vec<Mistake> = counts
            .into_iter()
            .filter(|(_, found, min, max)| found < min || found > max)
            .map(|(option, found, min, max)| Mistake {
                option,
                problem: format!("expected {min} to {max}, found {found}"),
            })
            .collect();
        if self.max_num_batched_tokens < self.max_num_seqs {
            mistakes.push(Mistake {
                option: "--max-num-batched-tokens",
                problem: format!(
                    "expected at least --max-num-seqs ({}), since each sequence takes a token of \
                     the step, found {}",
                    self.max_num_seqs, self.max_num_batched_tokens
                ),
            });
        }
        if self.threads == Some(0) {
            mistakes.push(Mistake {
                option: "--threads",
                problem: "expected at least 1, found 0".to_owned(),
            });
        }
        mistakes
    }
}
