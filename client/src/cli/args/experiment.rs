//! The flags of the commands that carry server and trainer: `star run`, `star demo`, `star
//! random-model`.

use std::path::PathBuf;

use clap::Args;

use super::{ConnectionArgs, FormatArg, Preset};

/// Where an experiment's server is and how it reaches the checkpoints.
#[derive(Debug, Clone, Args)]
pub struct ExperimentServerArgs {
    /// A running server [default: one in this process]
    #[arg(long, value_name = "URL|FILE", requires = "server_checkpoint_root")]
    pub server: Option<String>,
    /// The server's --checkpoint-root, as a folder of this machine
    #[arg(long, value_name = "DIR", requires = "server")]
    pub server_checkpoint_root: Option<PathBuf>,
    #[command(flatten)]
    pub connection: ConnectionArgs,
    /// Threads of the server and of the trainer [default: one per core]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
}

/// Settings of an experiment; each overrides the preset's.
#[derive(Debug, Clone, Args)]
pub struct TuningArgs {
    /// Use the first N training questions
    #[arg(long, value_name = "N")]
    pub num_train: Option<usize>,
    /// Use the first N test questions
    #[arg(long, value_name = "N")]
    pub num_test: Option<usize>,
    /// Prompt of evaluation, bootstrapping and training: a name or a template file
    #[arg(long, value_name = "NAME|FILE")]
    pub prompt: Option<String>,
    #[arg(long, value_enum)]
    pub prompt_format: Option<FormatArg>,
    /// Most tokens of an answer
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_tokens: Option<u32>,
    /// Forward samples of a question until one will do
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub forward_attempts: Option<u32>,
    /// Hint attempts of a question until one will do
    #[arg(long, value_name = "N")]
    pub hint_attempts: Option<u32>,
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub epochs: Option<u32>,
    /// Peak learning rate
    #[arg(long)]
    pub lr: Option<f64>,
    /// Examples per optimizer step
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub batch_size: Option<u32>,
    #[arg(long)]
    pub seed: Option<u64>,
}

#[derive(Debug, Args)]
pub struct RunArgs {
    /// Base model: a folder in Hugging Face layout
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// Training questions: JSONL with `question` and `answer`
    #[arg(long, value_name = "FILE")]
    pub train: PathBuf,
    /// Test questions; used once per model, at the end
    #[arg(long, value_name = "FILE")]
    pub test: PathBuf,
    /// Folder for everything; a run found there goes on
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Settings behind the defaults
    #[arg(long, value_enum, default_value = "sound")]
    pub preset: Preset,
    #[command(flatten)]
    pub tuning: TuningArgs,
    #[command(flatten)]
    pub server: ExperimentServerArgs,
}

#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Folder with train.jsonl, test.jsonl and model/ [default: data/demo of this repository]
    #[arg(long, value_name = "DIR")]
    pub demo_dir: Option<PathBuf>,
    /// Folder for everything; a run found there goes on [default: runs/demo-<UTC time>]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    #[command(flatten)]
    pub tuning: TuningArgs,
    /// Threads of the server and of the trainer [default: one per core]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
}

#[derive(Debug, Args)]
pub struct RandomModelArgs {
    /// tiny, small, 1b, 3b or llama3-vocab-tiny
    #[arg(long, default_value = "llama3-vocab-tiny")]
    pub preset: String,
    /// Folder with a tokenizer.json to copy [default: one token per byte]
    #[arg(long, value_name = "DIR")]
    pub tokenizer: Option<PathBuf>,
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Folder to write
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}
