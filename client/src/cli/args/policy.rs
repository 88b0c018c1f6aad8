//! The flags that say which rationales become training data.

use clap::{Args, ValueEnum};

/// What is accepted; each flag overrides the preset's.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "What is accepted")]
pub struct PolicyArgs {
    /// Most rationales per question [default: one, or with --samples K as many, at most 10]
    #[arg(long, value_name = "N")]
    pub max_per_question: Option<usize>,
    /// Which rationales of a question count as the same [default: equations with --samples, else
    /// texts]
    #[arg(long, value_enum)]
    pub duplicates: Option<DuplicatesArg>,
    /// Leave out questions with fewer right forward answers than N
    #[arg(long, value_name = "N")]
    pub min_right: Option<usize>,
    /// Largest share of hint rationales in the accepted set, 0 to 1
    #[arg(long, value_name = "SHARE")]
    pub max_hint_share: Option<f64>,
    /// Hint rationales that lean on the hint
    #[arg(long, value_enum, value_name = "GATE")]
    pub leaks: Option<GateArg>,
    /// Hint rationales whose answer is wrong or missing
    #[arg(long, value_enum, value_name = "GATE")]
    pub unverified_hints: Option<GateArg>,
    /// Right answers that no marker points at
    #[arg(long, value_enum, value_name = "GATE")]
    pub fallback: Option<GateArg>,
    /// Texts that were cut
    #[arg(long, value_enum, value_name = "GATE")]
    pub truncated: Option<GateArg>,
    /// Forward rationales with a false equation
    #[arg(long, value_enum, value_name = "GATE")]
    pub false_equations: Option<GateArg>,
}

/// Whether something doubtful may enter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum GateArg {
    Accept,
    Reject,
}

/// What makes two rationales of one question the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DuplicatesArg {
    /// The same text.
    Texts,
    /// The same equations in the same order, whatever words stand around them.
    Equations,
}
