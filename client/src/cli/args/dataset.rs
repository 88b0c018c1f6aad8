//! The flags of every command that reads questions.

use clap::Args;

/// How a question file is found and read.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Question files")]
pub struct DatasetArgs {
    /// Field that holds the question [default: question, or what SVAMP has]
    #[arg(long, value_name = "FIELD")]
    pub question_key: Option<String>,
    /// Field that holds the answer: a number, or a text that ends in `#### n` [default: answer]
    #[arg(long, value_name = "FIELD")]
    pub answer_key: Option<String>,
    /// Download a dataset that the local Hugging Face cache lacks (HF_TOKEN for gated ones)
    #[cfg(feature = "hub")]
    #[arg(long)]
    pub download: bool,
}
