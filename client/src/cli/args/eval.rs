//! The flags of `star eval` and of what reads its results: `star compare`, `star score`.

use std::path::PathBuf;

use clap::Args;

use super::{AnnotationsArg, DatasetArgs, MethodArgs, ServerArgs, bootstrap::tries};

#[derive(Debug, Args)]
pub struct EvalArgs {
    #[command(flatten)]
    pub server: ServerArgs,
    /// Questions: a file (JSONL, JSON or parquet with `question` and `answer`, which ends in `#### n`),
    /// or a name in the Hugging Face cache such as openai/gsm8k:main/test
    #[arg(long, value_name = "FILE|NAME")]
    pub dataset: PathBuf,
    #[command(flatten)]
    pub questions: DatasetArgs,
    /// Folder for manifest.json, attempts.jsonl and summary.json; a run found there goes on
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    #[command(flatten)]
    pub method: MethodArgs,
    /// Samples of each question; more than one needs --temperature above 0
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = tries(1))]
    pub samples: u32,
    /// Also measure the loss and perplexity of the gold solutions
    #[arg(long)]
    pub loss: bool,
    #[arg(
        long,
        value_enum,
        value_name = "WHAT",
        default_value = "strip",
        requires = "loss"
    )]
    pub annotations: AnnotationsArg,
    /// Print summary.json instead of text
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct CompareArgs {
    /// Folder of the evaluation that the others are compared with: the untouched model's
    pub first: PathBuf,
    /// Folders of the others
    #[arg(required = true, value_name = "OTHER")]
    pub others: Vec<PathBuf>,
    /// Show up to so many questions that became right, and so many that became wrong
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub examples: usize,
    /// Compare also where prompt, rule, limit or template differ
    #[arg(long)]
    pub force: bool,
    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct ScoreArgs {
    /// Folders of `star`'s runs or their attempts.jsonl, or JSONL of any other program with its texts
    /// under the keys below
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Key of the text to judge; dots lead into objects and lists, as in resps.0.0 [default: text]
    #[arg(long, value_name = "KEY")]
    pub text_key: Option<String>,
    /// Key of the gold answer: a number, or a text that ends in `#### n` [default: gold]
    #[arg(long, value_name = "KEY")]
    pub gold_key: Option<String>,
    /// Look the gold answers up in this question file, by one of the three keys below
    #[arg(long, value_name = "FILE|NAME", conflicts_with = "gold_key")]
    pub dataset: Option<PathBuf>,
    #[command(flatten)]
    pub question: QuestionKeyArgs,
    /// Key of how the text ended; what says `length` was cut and is not right
    #[arg(long, value_name = "KEY")]
    pub finish_key: Option<String>,
    /// Only lines whose KEY holds VALUE, such as filter=strict-match
    #[arg(long = "where", value_name = "KEY=VALUE")]
    pub chosen: Option<String>,
    /// Rule to show first: numeric, openai, lm-strict, lm-flexible or report
    #[arg(long, value_name = "RULE")]
    pub rule: Option<String>,
    /// Print JSON instead of tables
    #[arg(long)]
    pub json: bool,
}

/// What a line says of its question. Without --dataset, lines that say the same answer one question.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub struct QuestionKeyArgs {
    /// Key of the question's id; without --dataset it only tells which outputs answer one question
    #[arg(long = "id-key", value_name = "KEY")]
    pub id: Option<String>,
    /// Key of the question's exact text
    #[arg(long = "question-key", value_name = "KEY")]
    pub question: Option<String>,
    /// Key of the question's place in the file, from 0
    #[arg(long = "index-key", value_name = "KEY")]
    pub index: Option<String>,
}
