//! The flags that say what is asked and how it is judged.

use clap::{Args, ValueEnum};

use super::{FormatArg, bootstrap::count};

/// Which settings stand behind the defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Preset {
    /// 1024 tokens, the exact numeric rule, verified rationales
    Default,
    /// STaR as published: few-shot prompts, greedy decoding, verified hints
    Star,
    /// What the reference report did: 256 tokens, its rule, hint rationales unchecked
    Report,
}

/// What is asked and how it is judged.
#[derive(Debug, Clone, Args)]
pub struct MethodArgs {
    /// Settings behind the defaults
    #[arg(long, value_enum, default_value = "default")]
    pub preset: Preset,
    /// basic, basic-forward, marked, sft, cot-8shot, llama-8shot-multiturn, or a template file with
    /// {question}: a text, or .json with `messages` or `text`, and `stop`
    #[arg(long, value_name = "NAME|FILE")]
    pub prompt: Option<String>,
    #[arg(long, value_enum, default_value = "auto")]
    pub prompt_format: FormatArg,
    /// Most tokens of an answer [default: 1024; preset report: 256]
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_tokens: Option<u32>,
    /// numeric, openai, lm-strict, lm-flexible or report: which rule decides
    #[arg(long)]
    pub rule: Option<String>,
    /// 0 is greedy
    #[arg(long, default_value_t = 0.0)]
    pub temperature: f32,
    #[arg(long, default_value_t = 1.0)]
    pub top_p: f32,
    /// 0 is all tokens
    #[arg(long, default_value_t = 0)]
    pub top_k: u32,
    /// Generation ends before this text; may be repeated [default: the prompt's own]
    #[arg(long, value_name = "TEXT")]
    pub stop: Vec<String>,
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Only the first N questions
    #[arg(long, value_name = "N", value_parser = count())]
    pub limit: Option<usize>,
    #[command(flatten)]
    pub preflight: PreflightArgs,
}

/// The look at the first answers of a long run.
#[derive(Debug, Clone, Args)]
pub struct PreflightArgs {
    /// Go on, with a warning, where the first 64 answers are cut or hold no answer; preset report always
    /// does
    #[arg(long)]
    pub no_preflight: bool,
}
