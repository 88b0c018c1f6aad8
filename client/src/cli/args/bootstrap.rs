//! The flags of `star bootstrap`.

use std::path::PathBuf;

use clap::{
    Args,
    builder::{RangedI64ValueParser, RangedU64ValueParser},
};

use super::{DatasetArgs, MethodArgs, PolicyArgs, ServerArgs};
use crate::sampling::MAX_SAMPLES;

#[derive(Debug, Args)]
pub struct BootstrapArgs {
    #[command(flatten)]
    pub server: ServerArgs,
    /// Questions: a file (JSONL, JSON or parquet with `question` and `answer`, which ends in `#### n`),
    /// or a name in the Hugging Face cache such as openai/gsm8k:main/test
    #[arg(long, value_name = "FILE|NAME")]
    pub dataset: PathBuf,
    #[command(flatten)]
    pub questions: DatasetArgs,
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
    /// hint, cot-8shot-hint, or a template file with {question} and {gold} [default: hint; preset
    /// star: cot-8shot-hint]
    #[arg(long, value_name = "NAME|FILE")]
    pub hint_prompt: Option<String>,
    /// Forward samples of every question, whatever comes of them (rejection sampling)
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = tries(1))]
    pub samples: u32,
    /// More samples for a question that some of the K got right and some did not
    #[arg(long, value_name = "M", default_value_t = 0, value_parser = tries(0))]
    pub extra_samples: u32,
    /// Forward samples of a question until one will do
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = tries(1))]
    pub forward_attempts: u32,
    /// Hint attempts of a question until one will do; 0 for none
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = tries(0))]
    pub hint_attempts: u32,
    /// Temperature of every sample but a prompt's first
    #[arg(long, default_value_t = 0.7)]
    pub resample_temperature: f32,
    /// top_p of every sample but a prompt's first
    #[arg(long, default_value_t = 0.95)]
    pub resample_top_p: f32,
    #[command(flatten)]
    pub accept: PolicyArgs,
}

/// At least so many tries, and no more than a run can hold.
pub(super) fn tries(min: u32) -> RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(i64::from(min)..=i64::from(MAX_SAMPLES))
}

/// At least one.
pub(super) fn count() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..)
}
