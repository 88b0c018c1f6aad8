//! The flags of the commands that carry server and trainer: `star run`, `star demo`, `star
//! random-model`.

use std::path::PathBuf;

use clap::Args;
use gen_server::Device;

use super::{ConnectionArgs, DatasetArgs, Preset, SettingsArgs};

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
    #[command(flatten)]
    pub hardware: HardwareArgs,
}

/// What the server in this process and the trainer compute on.
#[derive(Debug, Clone, Args)]
pub struct HardwareArgs {
    /// cuda: one NVIDIA GPU, for a program that cuda/build.sh built
    #[arg(long, value_enum, default_value = "cpu")]
    pub device: Device,
    /// Share of the GPU's memory for the server in this process; the trainer needs the rest
    #[arg(long, value_name = "SHARE", default_value_t = 0.35)]
    pub gpu_memory_utilization: f32,
    /// Threads of the server and of the trainer [default: one per core]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
}

#[derive(Debug, Args)]
pub struct RunArgs {
    /// Base model: a folder in Hugging Face layout
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// Training questions: a file (JSONL, JSON or parquet with `question` and `answer`), or a name in
    /// the Hugging Face cache such as openai/gsm8k:main/train
    #[arg(long, value_name = "FILE|NAME")]
    pub train: PathBuf,
    /// Test questions; put once to the untouched model and to what was chosen, and nothing is chosen by
    /// them
    #[arg(long, value_name = "FILE|NAME")]
    pub test: PathBuf,
    #[command(flatten)]
    pub questions: DatasetArgs,
    /// Folder for everything; a run found there goes on
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Settings behind the defaults
    #[arg(long, value_enum, default_value = "default")]
    pub preset: Preset,
    #[command(flatten)]
    pub settings: SettingsArgs,
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
    pub settings: SettingsArgs,
    #[command(flatten)]
    pub hardware: HardwareArgs,
}

#[derive(Debug, Args)]
pub struct RandomModelArgs {
    /// tiny, tiny-704, small, 1b, 3b or llama3-vocab-tiny
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
