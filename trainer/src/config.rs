//! The checked settings of a run. [`TrainingConfig`] is everything that can change the numbers: it
//! is stored whole in every checkpoint, and a resumed run must ask for the same. [`RuntimeConfig`]
//! is the rest.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Result, TrainError};
use crate::notify::BearerToken;
use crate::schedule::Schedule;

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
    /// Keep them where they fit into [`AUTO_ACTIVATION_BYTES`].
    Auto,
    /// Keep only each layer's input: about a third more arithmetic, a fraction of the memory.
    On,
    Off,
}

/// With `--checkpointing auto`, activations of a micro-batch up to this size are kept. 2 GiB leaves
/// room for the weights and moments of a 100 M-parameter model on an 8 GiB machine, and lets a
/// demo-size model (about 150 MB at 2048 tokens) always keep them.
pub const AUTO_ACTIVATION_BYTES: usize = 2 << 30;

/// Storage type of saved weights. Training itself is in f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum SaveDtype {
    F32,
    Bf16,
    F16,
}

impl SaveDtype {
    pub fn dtype(self) -> candle_core::DType {
        match self {
            Self::F32 => candle_core::DType::F32,
            Self::Bf16 => candle_core::DType::BF16,
            Self::F16 => candle_core::DType::F16,
        }
    }
}

/// The shape of a training file's lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DataFormat {
    /// `{"question", "answer"}`: the answer is learned.
    Gsm8k,
    /// `{"question", "gold_answer", "rationale"}`: the rationale is learned.
    Star,
    /// `{"prompt", "completion"}`, both taken as they are.
    PromptCompletion,
}

/// How the prompt reaches the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PromptFormat {
    /// Text, with BOS where the tokenizer adds it.
    Plain,
    /// One user message through the checkpoint's chat template.
    Chat,
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
    pub format: DataFormat,
    pub prompt: String,
    /// sha256 of the prompt's text, so that an edited template file is noticed.
    pub prompt_digest: String,
    pub prompt_format: PromptFormat,
    /// sha256 of the chat template's source and its pinned date, where it is used.
    pub template: Option<TemplateConfig>,
    /// sha256 of `tokenizer.json`.
    pub tokenizer_digest: String,
    pub too_long: TooLong,
    pub max_length: usize,
    pub validation_fraction: f64,
    pub epochs: u32,
    pub window: Window,
    pub max_tokens_per_micro_batch: usize,
    pub optimizer: OptimizerConfig,
    pub checkpointing: Checkpointing,
    pub save_dtype: SaveDtype,
    pub seed: u64,
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
