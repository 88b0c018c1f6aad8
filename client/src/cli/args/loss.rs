//! The flags of `star loss`, and those that other commands share with it.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{DatasetArgs, FormatArg, ServerArgs, bootstrap::count};

#[derive(Debug, Args)]
pub struct LossArgs {
    #[command(flatten)]
    pub server: ServerArgs,
    /// JSONL as the trainer reads it: question and answer, question and rationale, or prompt and
    /// completion; or a question file of another layout, or a name, as for `star eval`
    #[arg(long, value_name = "FILE|NAME")]
    pub dataset: PathBuf,
    #[command(flatten)]
    pub questions: DatasetArgs,
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
    #[arg(long, value_name = "N", value_parser = count())]
    pub limit: Option<usize>,
    #[arg(long, value_enum, value_name = "WHAT", default_value = "strip")]
    pub annotations: AnnotationsArg,
    /// File for the result as JSON
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,
}

/// `--annotations`: what becomes of `<<3*4=12>>` in gold solutions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AnnotationsArg {
    /// Leave calculator annotations out of the answers of question-and-answer lines
    Strip,
    /// Score answers as the file has them
    Keep,
}
