//! The flags of `star bootstrap`.

use std::path::PathBuf;

use clap::Args;

use super::{MethodArgs, ServerArgs};

#[derive(Debug, Args)]
pub struct BootstrapArgs {
    #[command(flatten)]
    pub server: ServerArgs,
    /// Questions: JSONL with `question` and `answer` (ending in `#### n`)
    #[arg(long, value_name = "FILE")]
    pub dataset: PathBuf,
    /// Folder for manifest.json, attempts.jsonl, accepted.jsonl and summary.json; a run found there
    /// goes on
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    #[command(flatten)]
    pub method: MethodArgs,
    #[command(flatten)]
    pub samples: SampleArgs,
    /// Turn of the STaR loop, for the records
    #[arg(long, default_value_t = 0)]
    pub iteration: u32,
    /// Print summary.json instead of text
    #[arg(long)]
    pub json: bool,
}

/// How often a question is tried.
#[derive(Debug, Clone, Args)]
pub struct SampleArgs {
    /// hint, or a template file with {question} and {gold}
    #[arg(long, value_name = "NAME|FILE", default_value = "hint")]
    pub hint_prompt: String,
    /// Forward samples of a question until one will do
    #[arg(long, value_name = "N", default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..))]
    pub forward_attempts: u32,
    /// Hint attempts of a question until one will do; 0 for none
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub hint_attempts: u32,
    /// Temperature of every sample but a prompt's first
    #[arg(long, default_value_t = 0.7)]
    pub resample_temperature: f32,
    /// top_p of every sample but a prompt's first
    #[arg(long, default_value_t = 0.95)]
    pub resample_top_p: f32,
    /// Largest share of hint rationales in the accepted set
    #[arg(long, value_name = "SHARE", default_value_t = 1.0)]
    pub max_hint_share: f64,
}
