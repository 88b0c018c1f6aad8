//! The checked settings of a run. [`TrainingConfig`] is everything that can change the numbers: it
//! is stored whole in every checkpoint, and a resumed run must ask for the same. [`RuntimeConfig`]
//! is the rest.

use std::path::PathBuf;
use std::time::Duration;

use data::example::LineFormat;
use data::prompt::PromptFormat;
use model::dtype::StoredDtype;
use serde::{Deserialize, Serialize};

use crate::accuracy::AccuracyCheck;
use crate::best::BestConfig;
use crate::error::{Result, TrainError};
use crate::lora::LoraConfig;
use crate::notify::BearerToken;
use crate::schedule::Schedule;
use crate::train::guard::{GuardConfig, SpikeGuard};

/// AdamW (Loshchilov, Hutter 2019) with global-norm clipping.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OptimizerConfig {
    pub schedule: Schedule,
    pub beta1: f64,
    pub beta2: f64,
    pub eps: f64,
    /// Decoupled; on matrices only, never on norm weights.
    pub weight_decay: f64,
    /// The averaged gradient is scaled down to this global norm.
    pub max_grad_norm: f64,
    pub moments: MomentsDtype,
}

/// What makes one optimizer step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Window {
    /// This many examples (the last window of an epoch may have fewer).
    Examples(usize),
    /// Examples until at least this many input tokens.
    Tokens(usize),
}

/// Whether a layer's activations are kept for the backward pass or computed again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Checkpointing {
    /// Keep them where those of all micro-batches that are computed at once fit into 2 GiB.
    Auto,
    /// Keep only each layer's input: about a third more arithmetic, a fraction of the memory.
    On,
    Off,
}

/// Which weights are trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// All of them.
    Full,
    /// Thin matrices beside frozen ones.
    Lora(LoraConfig),
}

/// What computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum DeviceKind {
    /// All cores.
    #[default]
    Cpu,
    /// One NVIDIA GPU a process.
    Cuda,
}

/// How frozen weights lie in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum BaseFormat {
    F32,
    Bf16,
    /// 8 bits with a scale for each group of inputs (on a GPU: for each output); embedding and head in bf16.
    Int8,
}

impl BaseFormat {
    /// As its flag has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        }
    }
}

/// What trained weights are stored in, and what products round their factors to. Sums, activations
/// and gradients are f32 in each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// Everything in f32.
    F32,
    /// f32 weights (the master), products in bf16.
    Bf16,
    /// bf16 weights without a master, rounded stochastically; products in bf16. Norms stay f32.
    Bf16Weights,
}

impl Precision {
    pub fn compute(self) -> kernels::Compute {
        match self {
            Self::F32 => kernels::Compute::F32,
            Self::Bf16 | Self::Bf16Weights => kernels::Compute::Bf16,
        }
    }
}

/// What the optimizer's running means are stored in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum MomentsDtype {
    #[default]
    F32,
    /// Rounded stochastically.
    Bf16,
    /// Block-wise 8 bits.
    Int8,
}

impl MomentsDtype {
    pub fn format(self) -> kernels::MomentsFormat {
        match self {
            Self::F32 => kernels::MomentsFormat::F32,
            Self::Bf16 => kernels::MomentsFormat::Bf16,
            Self::Int8 => kernels::MomentsFormat::Int8,
        }
    }
}

/// With `--checkpointing auto`, activations of the micro-batches that are computed at once are kept up to
/// this size. 2 GiB leaves
/// room for the weights and moments of a 100 M-parameter model on an 8 GiB machine, and lets a
/// demo-size model (about 150 MB at 2048 tokens) always keep them.
const AUTO_ACTIVATION_BYTES: usize = 2 << 30;

impl Checkpointing {
    /// Whether activations of this size, of all micro-batches that are computed at once, are kept.
    pub fn keeps(self, activation_bytes: usize) -> bool {
        match self {
            Self::On => false,
            Self::Off => true,
            Self::Auto => activation_bytes <= AUTO_ACTIVATION_BYTES,
        }
    }
}

/// Storage type of saved weights; see [`Precision`] for those in training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum SaveDtype {
    F32,
    Bf16,
    F16,
}

impl SaveDtype {
    pub fn stored(self) -> StoredDtype {
        match self {
            Self::F32 => StoredDtype::F32,
            Self::Bf16 => StoredDtype::Bf16,
            Self::F16 => StoredDtype::F16,
        }
    }

    pub fn dtype(self) -> candle_core::DType {
        match self {
            Self::F32 => candle_core::DType::F32,
            Self::Bf16 => candle_core::DType::BF16,
            Self::F16 => candle_core::DType::F16,
        }
    }
}

/// Which turns of a conversation are learned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum TrainOn {
    /// Every turn of the assistant.
    #[default]
    Assistant,
    /// The assistant's last turn only.
    LastAssistant,
}

/// What happens to an example longer than the maximum length. A prompt that alone is too long is
/// always skipped. Both are counted and listed in `dropped.jsonl`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum TooLong {
    Skip,
    /// Keep the prompt whole and cut the answer (it then has no end-of-text label).
    TruncateAnswer,
}

/// Everything that can change the numbers of a fine-tuning run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainingConfig {
    /// sha256 over the base model's tensors.
    pub model_digest: String,
    pub train_sha256: String,
    pub format: LineFormat,
    #[serde(default)]
    pub train_on: TrainOn,
    pub prompt: String,
    /// sha256 of the prompt's text, so that an edited template file is noticed.
    pub prompt_digest: String,
    pub prompt_format: PromptFormat,
    /// sha256 of the chat template's source and its pinned date, where it is used.
    pub template: Option<TemplateConfig>,
    /// sha256 of `tokenizer.json`.
    pub tokenizer_digest: String,
    /// sha256 of what `config.json` says of the network, and of the tokens that begin and end texts.
    pub architecture_digest: String,
    pub too_long: TooLong,
    pub max_length: usize,
    pub validation_fraction: f64,
    pub epochs: u32,
    pub window: Window,
    pub max_tokens_per_micro_batch: usize,
    /// Sums have another order on another device.
    #[serde(default)]
    pub device: DeviceKind,
    /// Of all processes together: sums, packing and dropout follow from it, so a run goes on with a
    /// number of processes that gives the same.
    pub num_lanes: usize,
    pub method: Method,
    pub precision: Precision,
    pub label_smoothing: f64,
    pub optimizer: OptimizerConfig,
    pub checkpointing: Checkpointing,
    pub save_dtype: SaveDtype,
    pub seed: u64,
    pub spike_guard: Option<SpikeGuard>,
}

impl TrainingConfig {
    /// Tokens of the largest micro-batch that may come: a single example may be longer than what is
    /// packed.
    pub fn largest_micro_batch(&self) -> usize {
        self.max_tokens_per_micro_batch.max(self.max_length)
    }
}

/// The chat template that prompts go through.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateConfig {
    pub digest: String,
    pub date: String,
}

/// Settings that cannot change the numbers.
#[derive(Debug, Clone)]
pub struct RuntimeConfig {
    pub out: PathBuf,
    pub notify: NotifyConfig,
    pub steps: StepSaving,
    pub guard: GuardConfig,
    pub best: BestConfig,
    pub accuracy: Option<AccuracyCheck>,
    /// What the MFU in the logs is measured against.
    pub peak_tflops: f64,
}

/// Checkpoints between epochs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepSaving {
    /// After every so many optimizer steps.
    pub every: Option<u64>,
    /// The newest so many `step_<n>` folders stay.
    pub max_kept: usize,
    /// Whether the servers load them, too.
    pub servers: StepServers,
}

/// Whether servers are told of a checkpoint between epochs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepServers {
    Told,
    NotTold,
}

/// Which servers load each epoch's checkpoint.
#[derive(Debug, Clone, Default)]
pub struct NotifyConfig {
    /// Such as `http://127.0.0.1:50051`.
    pub servers: Vec<String>,
    /// Put before `epoch_<n>` to name the folder below the server's checkpoint root.
    pub checkpoint_prefix: String,
    /// For one server and one checkpoint, connection included.
    pub time_limit: Duration,
    /// For servers that answer only those who have it.
    pub token: Option<BearerToken>,
}

impl OptimizerConfig {
    /// Checks ranges; the flag at fault is named.
    pub fn check(&self) -> Result<()> {
        let positive = |value: f64| value.is_finite() && value > 0.0;
        let unit = |value: f64| (0.0..1.0).contains(&value);
        require("--lr", self.schedule.peak_lr, "a number > 0", positive)?;
        require(
            "--min-lr-ratio",
            self.schedule.min_lr_ratio,
            "0 to 1",
            |x| (0.0..=1.0).contains(&x),
        )?;
        require("--beta1", self.beta1, "0 <= beta1 < 1", unit)?;
        require("--beta2", self.beta2, "0 <= beta2 < 1", unit)?;
        require("--eps", self.eps, "a number > 0", positive)?;
        require("--weight-decay", self.weight_decay, "a number >= 0", |x| {
            x.is_finite() && x >= 0.0
        })?;
        require("--max-grad-norm", self.max_grad_norm, "a number > 0", |x| {
            x > 0.0
        })
    }
}

/// Errors with the flag's name unless `holds(value)`.
pub(crate) fn require<T: std::fmt::Display + Copy>(
    flag: &'static str,
    value: T,
    expected: &str,
    holds: impl FnOnce(T) -> bool,
) -> Result<()> {
    if holds(value) {
        return Ok(());
    }
    Err(TrainError::BadSetting {
        flag,
        found: value.to_string(),
        expected: expected.to_string(),
    })
}
