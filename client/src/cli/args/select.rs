//! The flags of `star select`.

use std::path::PathBuf;

use clap::Args;

use super::{DatasetArgs, PolicyArgs, PolicyPreset, PromptFormatArg, bootstrap::count};

#[derive(Debug, Args)]
pub struct SelectArgs {
    /// Folders of bootstrapping runs, or their attempts.jsonl
    #[arg(required = true, value_name = "DIR|FILE")]
    pub logs: Vec<PathBuf>,
    /// The questions that the attempts were made from: a file, or a name in the Hugging Face cache
    #[arg(long, value_name = "FILE|NAME")]
    pub dataset: PathBuf,
    #[command(flatten)]
    pub questions: DatasetArgs,
    /// File for the accepted rationales, as the trainer reads them
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// What stands behind the defaults
    #[arg(long, value_enum, default_value = "sound")]
    pub policy: PolicyPreset,
    #[command(flatten)]
    pub accept: PolicyArgs,
    #[command(flatten)]
    pub pairs: PairsArgs,
    #[command(flatten)]
    pub labels: LabelsArgs,
    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,
}

/// Right against wrong answers, for DPO.
#[derive(Debug, Args)]
#[command(next_help_heading = "Preference pairs")]
pub struct PairsArgs {
    /// File for pairs of a right and a wrong answer: prompt, chosen, rejected
    #[arg(long, value_name = "FILE")]
    pub pairs: Option<PathBuf>,
    /// Prompt before them: a name or a template file
    #[arg(
        long,
        value_name = "NAME|FILE",
        default_value = "basic",
        requires = "pairs"
    )]
    pub prompt: String,
    /// Texts, or lists of messages
    #[arg(long, value_enum, default_value = "plain", requires = "pairs")]
    pub prompt_format: PromptFormatArg,
    /// Most pairs per question
    #[arg(long, value_name = "N", default_value_t = 1, requires = "pairs", value_parser = count())]
    pub max_pairs: usize,
    /// Answers that were cut may be rejected ones, too
    #[arg(long, requires = "pairs")]
    pub reject_truncated: bool,
}

/// What the samples of a question agree on.
#[derive(Debug, Args)]
#[command(next_help_heading = "Labels by majority vote")]
pub struct LabelsArgs {
    /// File for the questions with the answer that most of their samples gave
    #[arg(long, value_name = "FILE")]
    pub pseudo_labels: Option<PathBuf>,
    /// Fewest votes for a label
    #[arg(
        long,
        value_name = "N",
        default_value_t = 2,
        requires = "pseudo_labels",
        value_parser = count()
    )]
    pub min_votes: usize,
    /// Smallest share of the votes that a label has, 0 to 1
    #[arg(
        long,
        value_name = "SHARE",
        default_value_t = 0.5,
        requires = "pseudo_labels"
    )]
    pub min_share: f64,
}
