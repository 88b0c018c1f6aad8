//! The flags of `star eval` and of what reads its results: `star compare`, `star score`.

use std::path::PathBuf;

use clap::Args;

use super::{MethodArgs, ServerArgs};

#[derive(Debug, Args)]
pub struct EvalArgs {
    #[command(flatten)]
    pub server: ServerArgs,
    /// Questions: JSONL with `question` and `answer` (ending in `#### n`)
    #[arg(long, value_name = "FILE")]
    pub dataset: PathBuf,
    /// Folder for manifest.json, attempts.jsonl and summary.json; a run found there goes on
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    #[command(flatten)]
    pub method: MethodArgs,
    /// Print summary.json instead of text
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct CompareArgs {
    /// Folder of the first evaluation
    pub first: PathBuf,
    /// Folder of the second
    pub second: PathBuf,
    /// Compare also where prompt, rule, limit or template differ
    #[arg(long)]
    pub force: bool,
}

#[derive(Debug, Args)]
pub struct ScoreArgs {
    /// JSONL: attempts of `star`, or objects with the two keys below
    pub file: PathBuf,
    /// Key of the text to judge
    #[arg(long, default_value = "text")]
    pub text_key: String,
    /// Key of the gold answer: a number, or a text that ends in `#### n`
    #[arg(long, default_value = "gold")]
    pub gold_key: String,
}
