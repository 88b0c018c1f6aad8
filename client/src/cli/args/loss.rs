//! The flags of `star loss`.

use std::path::PathBuf;

use clap::Args;

use super::{FormatArg, ServerArgs};

#[derive(Debug, Args)]
pub struct LossArgs {
    #[command(flatten)]
    pub server: ServerArgs,
    /// JSONL as the trainer reads it: question and answer, question and rationale, or prompt and
    /// completion
    #[arg(long, value_name = "FILE")]
    pub dataset: PathBuf,
    /// basic, basic-forward, marked, sft, cot-8shot, llama-8shot-multiturn, or a template file with
    /// {question}; as in training
    #[arg(long, value_name = "NAME|FILE", default_value = "basic")]
    pub prompt: String,
    #[arg(long, value_enum, default_value = "auto")]
    pub prompt_format: FormatArg,
    /// Leave out longer examples, prompt and solution together [default: the server's limit]
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(2..))]
    pub max_length: Option<u32>,
    /// Only the first N examples
    #[arg(long, value_name = "N", value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..))]
    pub limit: Option<usize>,
    /// File for the result as JSON
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,
}
