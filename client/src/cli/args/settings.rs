//! The flags for every setting of an experiment; each overrides the preset's.

use clap::Args;
use trainer::schedule::ScheduleKind;

use super::{
    FormatArg, PolicyArgs, PreflightArgs,
    bootstrap::{count, tries},
};
use crate::run::{ChooseEpoch, Rationales, Restart, Solutions};

#[derive(Debug, Clone, Args)]
pub struct SettingsArgs {
    #[command(flatten)]
    pub questions: QuestionsArgs,
    #[command(flatten)]
    pub prompts: PromptsArgs,
    #[command(flatten)]
    pub tries: TriesArgs,
    #[command(flatten)]
    pub accept: PolicyArgs,
    #[command(flatten)]
    pub turns: TurnsArgs,
    #[command(flatten)]
    pub tuning: TuningArgs,
    #[arg(long)]
    pub seed: Option<u64>,
    #[command(flatten)]
    pub preflight: PreflightArgs,
}

/// Which questions.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Questions")]
pub struct QuestionsArgs {
    /// Use the first N training questions
    #[arg(long, value_name = "N", value_parser = count())]
    pub num_train: Option<usize>,
    /// Use the first N test questions
    #[arg(long, value_name = "N", value_parser = count())]
    pub num_test: Option<usize>,
    /// Share of the training questions that is held out, to choose epoch and iteration by
    #[arg(long, value_name = "SHARE")]
    pub held_out_fraction: Option<f64>,
    /// Put at most N of the held-out questions
    #[arg(long, value_name = "N")]
    pub max_held_out: Option<usize>,
}

/// What is asked, and how answers are judged.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Prompts and judgement")]
pub struct PromptsArgs {
    /// Prompt of evaluation, bootstrapping and training: a name or a template file
    #[arg(long, value_name = "NAME|FILE")]
    pub prompt: Option<String>,
    /// Prompt of bootstrapping alone
    #[arg(long, value_name = "NAME|FILE")]
    pub bootstrap_prompt: Option<String>,
    /// Prompt of training alone
    #[arg(long, value_name = "NAME|FILE")]
    pub training_prompt: Option<String>,
    /// Prompt that gives the answer away: a name or a template file with {question} and {gold}
    #[arg(long, value_name = "NAME|FILE")]
    pub hint_prompt: Option<String>,
    /// Go on where training and evaluation put different prompts before a question
    #[arg(long)]
    pub allow_prompt_mismatch: bool,
    #[arg(long, value_enum)]
    pub prompt_format: Option<FormatArg>,
    /// Most tokens of an answer
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_tokens: Option<u32>,
    /// numeric, openai, lm-strict, lm-flexible or report: which rule decides
    #[arg(long)]
    pub rule: Option<String>,
}

/// How often a question is tried in bootstrapping.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Bootstrapping")]
pub struct TriesArgs {
    /// Forward samples of a question in any case (rejection sampling)
    #[arg(long, value_name = "K", value_parser = tries(1))]
    pub samples: Option<u32>,
    /// More samples for a question that some of the K got right and some did not
    #[arg(long, value_name = "M", value_parser = tries(0))]
    pub extra_samples: Option<u32>,
    /// Forward samples of a question until one will do
    #[arg(long, value_name = "N", value_parser = tries(1))]
    pub forward_attempts: Option<u32>,
    /// Hint attempts of a question until one will do; 0 for none
    #[arg(long, value_name = "N", value_parser = tries(0))]
    pub hint_attempts: Option<u32>,
    /// Temperature of every sample but a prompt's first
    #[arg(long)]
    pub resample_temperature: Option<f32>,
    /// top_p of every sample but a prompt's first
    #[arg(long)]
    pub resample_top_p: Option<f32>,
}

/// The turns of the STaR loop.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "The STaR loop")]
pub struct TurnsArgs {
    /// Turns of bootstrapping and fine-tuning, at most
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub iterations: Option<u32>,
    /// End the loop after N iterations without more right held-out answers; 0 for never
    #[arg(long, value_name = "N")]
    pub patience: Option<u32>,
    /// What each fine-tuning starts from
    #[arg(long, value_enum)]
    pub restart: Option<Restart>,
    /// What each fine-tuning learns
    #[arg(long, value_enum)]
    pub rationales: Option<Rationales>,
    /// Optimizer steps of the first iteration [default: whole epochs; preset star: 40]
    #[arg(long, value_name = "STEPS", value_parser = clap::value_parser!(u64).range(1..))]
    pub first_steps: Option<u64>,
    /// Each iteration trains so many times as long as the one before
    #[arg(long, value_name = "FACTOR")]
    pub growth: Option<f64>,
    /// Put the test questions to every iteration, not only to the chosen one; nothing is chosen by it
    #[arg(long)]
    pub test_each_iteration: bool,
}

/// Fine-tuning.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Fine-tuning")]
pub struct TuningArgs {
    /// Passes over the examples; where --first-steps counts steps (preset star), of vanilla SFT alone
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub epochs: Option<u32>,
    /// Peak learning rate
    #[arg(long)]
    pub lr: Option<f64>,
    #[arg(long, value_enum)]
    pub lr_schedule: Option<ScheduleKind>,
    /// Steps until the peak
    #[arg(long, value_name = "STEPS")]
    pub warmup_steps: Option<u64>,
    /// Examples per optimizer step
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub batch_size: Option<u32>,
    /// Longest example
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(2..))]
    pub max_length: Option<u32>,
    /// Share of the examples whose loss is only watched
    #[arg(long, value_name = "SHARE")]
    pub validation_fraction: Option<f64>,
    /// Which epoch's checkpoint is used
    #[arg(long, value_enum)]
    pub choose_epoch: Option<ChooseEpoch>,
    /// GSM8K's calculator annotations in the solutions that vanilla SFT learns
    #[arg(long, value_enum)]
    pub annotations: Option<Solutions>,
    /// More flags of `trainer sft`, in one text: --trainer-args "--lora-rank 16 --base int8"
    #[arg(long, value_name = "FLAGS", allow_hyphen_values = true)]
    pub trainer_args: Option<String>,
}
