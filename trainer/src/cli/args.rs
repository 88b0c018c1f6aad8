//! The flags, grouped by purpose, each with unit and meaning. No logic beyond turning a group into
//! its checked config.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use data::example::LineFormat;
use data::prompt::PromptFormat;

use super::data_args::DataArgs;
use super::device_args::DeviceArgs;
use super::group_args::GroupArgs;
use super::log_args::LogArgs;
use super::loop_args::{BestArgs, GuardArgs, StepArgs};
use super::method::{MergeArgs, MethodArgs, PlanArgs};
use super::optimizer_args::OptimizerArgs;
use crate::config::{Checkpointing, NotifyConfig, SaveDtype, TooLong};
use crate::distributed::Ranks;
use crate::error::Result;
use crate::notify::BearerToken;
use crate::progress::ProgressMode;

/// Fine-tuning and pre-training of Llama models, from JSONL to checkpoint folders.
#[derive(Debug, Parser)]
#[command(name = "trainer", version)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
    /// How progress is shown. `json`: one object per event on stdout.
    #[arg(long, global = true, value_enum, default_value_t)]
    pub progress: ProgressMode,
    /// Threads for the arithmetic. Default: one per core. Results do not depend on it.
    #[arg(long, global = true, value_parser = clap::value_parser!(u16).range(1..))]
    pub threads: Option<u16>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Fine-tunes on questions and answers, prompts and completions, or conversations; the loss is on
    /// what is answered.
    #[command(after_help = SFT_EXAMPLES)]
    Sft(Box<SftArgs>),
    /// Trains a small model from scratch (or goes on from one) on text.
    #[command(after_help = PRETRAIN_EXAMPLES)]
    Pretrain(Box<PretrainArgs>),
    /// Says what a fine-tuning would need and how long it would take, before a weight is read.
    #[command(after_help = PLAN_EXAMPLES)]
    Plan(Box<PlanArgs>),
    /// Makes a plain checkpoint of a base model and a LoRA adapter.
    #[command(after_help = MERGE_EXAMPLES)]
    Merge(MergeArgs),
}

const SFT_EXAMPLES: &str = "\
Examples:
  GSM8K's own solutions, 4 epochs, checkpoints in runs/vanilla/epoch_1 .. epoch_4:
    trainer sft --model models/base --train train.jsonl --out runs/vanilla

  Adapters only, on a base in 8 bits; each epoch's folder is a merged model, with the adapter below:
    trainer sft --model models/base --train train.jsonl --out runs/lora --method lora \\
      --lora-rank 16 --base int8 --precision bf16 --lr 2e-4

  Rationales kept by `star bootstrap`, each epoch's checkpoint loaded into a server whose
  --checkpoint-root is runs:
    trainer sft --model models/base --train accepted.jsonl --out runs/star \\
      --server http://127.0.0.1:50051 --server-checkpoint-prefix star

  All weights on a GPU:
    trainer sft --model models/base --train train.jsonl --out runs/gpu --device cuda

The same command again goes on from the newest complete checkpoint. SIGTERM, SIGINT and SIGUSR1 save
one and end the run with exit code 75: resumable.";

const PLAN_EXAMPLES: &str = "\
Examples:
  The flags of the run that is planned, with `plan` in the place of `sft`:
    trainer plan --model models/base --train train.jsonl --out runs/vanilla --precision bf16";

const MERGE_EXAMPLES: &str = "\
Examples:
  A model that a server can load, from what a LoRA run (or PEFT) has saved:
    trainer merge --model models/base --adapter runs/lora/epoch_3/adapter --out models/merged";

const PRETRAIN_EXAMPLES: &str = "\
Examples:
  One hour from scratch, tokenizer included:
    trainer pretrain --text corpus.jsonl --vocab-size 1024 --hidden-size 128 --num-layers 6 \\
      --tokens 30000000 --time-limit-minutes 60 --save-dtype bf16 --out runs/base

The model is in OUT/model; a run that is stopped has saved it, too, but does not go on: train it
further with --init-from OUT/model and another --out. Lines are {\"text\": ...} or {\"prompt\": ..., \"completion\": ...}.";

/// `trainer sft`.
#[derive(Debug, Clone, Args)]
pub struct SftArgs {
    /// Base model: a folder in Hugging Face layout.
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// Training data, one JSON object per line.
    #[arg(long, value_name = "FILE.jsonl")]
    pub train: PathBuf,
    /// Shape of the lines.
    #[arg(long, value_enum, default_value_t)]
    pub format: FormatChoice,
    /// Folder for epoch_1/ and so on, metrics.jsonl, steps.csv, losses.csv, tensorboard/ and plots/.
    /// A run found there is resumed.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Print memory, steps and time, as `trainer plan` does, and train nothing.
    #[arg(long)]
    pub dry_run: bool,
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    pub epochs: u32,
    /// Examples per optimizer step.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    pub batch_size: u32,
    #[command(flatten)]
    pub data: DataArgs,
    /// Longest example in tokens, prompt and answer together. Default: 1024, or the model's context
    /// where that is shorter.
    #[arg(long, value_parser = clap::value_parser!(u32).range(2..))]
    pub max_length: Option<u32>,
    /// What happens to longer examples. Either way they are counted and listed in dropped.jsonl.
    #[arg(long, value_enum, default_value = "skip")]
    pub too_long: TooLong,
    /// Part of the questions held out for validation loss (split by question, seeded).
    #[arg(long, alias = "val-fraction", default_value_t = 0.1)]
    pub validation_fraction: f64,
    /// Prompt around the question: basic, basic-forward, marked, sft, cot-8shot,
    /// llama-8shot-multiturn, or a template file. The default is the one evaluation uses, so that
    /// training and evaluation prompts have the same token ids.
    #[arg(long, default_value = "basic")]
    pub prompt: String,
    /// Plain text or the checkpoint's chat template.
    #[arg(long, value_enum, default_value_t)]
    pub prompt_format: PromptFormatChoice,
    /// Chat template: auto (the checkpoint's own), none, hf-llama3.2, meta-llama3 or a file. Give
    /// what the server is given, so that both render the same prompt.
    #[arg(long, value_name = "NAME|FILE", default_value = "auto")]
    pub chat_template: String,
    /// Date that the chat template writes, such as "26 Jul 2024". Default: the template's own.
    #[arg(long, value_name = "DATE")]
    pub template_date: Option<String>,
    #[command(flatten)]
    pub method: MethodArgs,
    #[command(flatten)]
    pub optimizer: OptimizerArgs,
    #[command(flatten)]
    pub common: CommonArgs,
    /// Type of saved weights. Default: that of the base model.
    #[arg(long, value_enum)]
    pub save_dtype: Option<SaveDtype>,
    #[command(flatten)]
    pub notify: NotifyArgs,
    #[command(flatten)]
    pub group: GroupArgs,
    /// From the launcher's environment; `None` for a process alone.
    #[arg(skip)]
    pub ranks: Option<Ranks>,
    #[command(flatten)]
    pub steps: StepArgs,
    #[command(flatten)]
    pub best: BestArgs,
}

/// `--format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum FormatChoice {
    /// Told by the keys of the first line.
    #[default]
    Auto,
    /// {"question", "answer"}: the answer is learned.
    Gsm8k,
    /// {"question", "gold_answer", "rationale"}: the rationale is learned.
    Star,
    /// {"prompt", "completion"}, both taken as they are.
    PromptCompletion,
    /// {"messages": [{"role", "content"}, ...]} with roles system, user and assistant: what the
    /// assistant says is learned.
    Messages,
}

impl FormatChoice {
    /// `None`: to be told by the data.
    pub fn format(self) -> Option<LineFormat> {
        match self {
            Self::Auto => None,
            Self::Gsm8k => Some(LineFormat::Gsm8k),
            Self::Star => Some(LineFormat::Star),
            Self::PromptCompletion => Some(LineFormat::PromptCompletion),
            Self::Messages => Some(LineFormat::Messages),
        }
    }
}

/// `--prompt-format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum PromptFormatChoice {
    /// Chat where the checkpoint has a template, else plain.
    #[default]
    Auto,
    /// Text, with BOS where the tokenizer adds it.
    Plain,
    /// One user message through the checkpoint's chat template.
    Chat,
}

impl PromptFormatChoice {
    /// `None`: to be told by the model.
    pub fn format(self) -> Option<PromptFormat> {
        match self {
            Self::Auto => None,
            Self::Plain => Some(PromptFormat::Plain),
            Self::Chat => Some(PromptFormat::Chat),
        }
    }
}

/// `trainer pretrain`.
#[derive(Debug, Clone, Args)]
pub struct PretrainArgs {
    /// Text: {"text"} or {"prompt", "completion"} per line; every line is one document.
    #[arg(long, value_name = "FILE.jsonl", required = true, num_args = 1..)]
    pub text: Vec<PathBuf>,
    /// Folder for model/, metrics.jsonl, steps.csv, losses.csv, tensorboard/ and plots/.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Go on from this model (its tokenizer and shape are taken; the optimizer starts anew).
    #[arg(long, value_name = "DIR", conflicts_with_all = ["tokenizer", "vocab_size"])]
    pub init_from: Option<PathBuf>,
    /// Folder with a tokenizer.json to use.
    #[arg(long, value_name = "DIR", conflicts_with = "vocab_size")]
    pub tokenizer: Option<PathBuf>,
    /// Train a byte-level BPE tokenizer (digits split) with this many entries.
    #[arg(long)]
    pub vocab_size: Option<usize>,
    /// Documents the tokenizer is trained on, at most.
    #[arg(long, default_value_t = 50_000)]
    pub tokenizer_documents: usize,
    #[command(flatten)]
    pub shape: ShapeArgs,
    /// Tokens to train on; documents are repeated in a new order as often as needed.
    #[arg(long, conflicts_with = "epochs")]
    pub tokens: Option<u64>,
    /// Passes over the text. Default 1 where --tokens is not given.
    #[arg(long)]
    pub epochs: Option<u32>,
    /// Ends the run cleanly after this long: the learning rate then reaches its floor in time.
    #[arg(long, value_name = "MINUTES")]
    pub time_limit_minutes: Option<f64>,
    /// Tokens per optimizer step.
    #[arg(long, default_value_t = 16_384)]
    pub batch_tokens: usize,
    /// Longest document in tokens; longer ones are cut into pieces of this length.
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(2..))]
    pub max_length: u32,
    /// Part of the documents held out; the loss on them is shown at every save.
    #[arg(long, default_value_t = 0.01)]
    pub eval_fraction: f64,
    /// Write the model this often.
    #[arg(long, default_value_t = 10.0, value_name = "MINUTES")]
    pub save_every_minutes: f64,
    #[command(flatten)]
    pub optimizer: OptimizerArgs,
    #[command(flatten)]
    pub common: CommonArgs,
    #[arg(long, value_enum, default_value = "f32")]
    pub save_dtype: SaveDtype,
}

/// Shape of a new model.
#[derive(Debug, Clone, Args)]
pub struct ShapeArgs {
    #[arg(long, default_value_t = 128)]
    pub hidden_size: usize,
    #[arg(long, default_value_t = 6)]
    pub num_layers: usize,
    #[arg(long, default_value_t = 4)]
    pub num_heads: usize,
    #[arg(long, default_value_t = 2)]
    pub num_kv_heads: usize,
    #[arg(long, default_value_t = 384)]
    pub intermediate_size: usize,
    /// The output head is the embedding matrix.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    pub tie_embeddings: bool,
    #[arg(long, default_value_t = 10_000.0)]
    pub rope_theta: f64,
    /// Longest sequence the model is meant for, in tokens.
    #[arg(long, default_value_t = 1024)]
    pub max_position_embeddings: usize,
}

/// What `sft` and `pretrain` share.
#[derive(Debug, Clone, Args)]
pub struct CommonArgs {
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Most tokens computed at once; examples are packed under it without seeing each other.
    #[arg(long, default_value_t = 2048)]
    pub max_tokens_per_micro_batch: usize,
    /// Keep activations for the backward pass, or compute them again.
    #[arg(long, value_enum, default_value = "auto")]
    pub checkpointing: Checkpointing,
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    #[command(flatten)]
    pub guard: GuardArgs,
    #[command(flatten)]
    pub logs: LogArgs,
}

/// Servers to tell about each epoch's checkpoint. One that does not answer never stops training.
#[derive(Debug, Clone, Args)]
pub struct NotifyArgs {
    /// A generation server that should load each checkpoint; may be repeated.
    #[arg(long, value_name = "URL")]
    pub server: Vec<String>,
    /// Name of OUT below the server's checkpoint root.
    #[arg(long, default_value = "", requires = "server")]
    pub server_checkpoint_prefix: String,
    /// File with the token that the servers were started with.
    #[arg(long, value_name = "FILE", requires = "server")]
    pub server_token_file: Option<PathBuf>,
    /// Time limit for one server, in seconds.
    #[arg(long, default_value_t = 60)]
    pub server_time_limit_s: u64,
}

impl NotifyArgs {
    /// Reads the token file; an unreadable one or one without a token is an error.
    pub fn config(&self) -> Result<NotifyConfig> {
        let token = self.server_token_file.as_deref();
        Ok(NotifyConfig {
            servers: self.server.clone(),
            checkpoint_prefix: self.server_checkpoint_prefix.clone(),
            time_limit: Duration::from_secs(self.server_time_limit_s),
            token: token.map(BearerToken::read).transpose()?,
        })
    }
}
