//! What is made of attempts on disk, without a server: the accepted set under any policy, preference
//! pairs, labels by majority vote. Counts close and are given by reason.

mod made;

pub use made::{Made, Outputs, PairsWanted, make, refuse_overwriting};

use data::record::Source;
use data::select::{AttemptFate, Outcome, Selection};
use serde::{Deserialize, Serialize};

/// How many questions ended so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutcomeCount {
    pub outcome: Outcome,
    pub questions: u64,
}

/// How many attempts ended so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FateCount {
    pub fate: AttemptFate,
    pub attempts: u64,
}

pub(crate) fn outcome_counts(selection: &Selection) -> Vec<OutcomeCount> {
    let count = |(&outcome, &questions)| OutcomeCount {
        outcome,
        questions: questions as u64,
    };
    selection.outcomes.iter().map(count).collect()
}

pub(crate) fn fate_counts(selection: &Selection) -> Vec<FateCount> {
    let count = |(&fate, &attempts)| FateCount {
        fate,
        attempts: attempts as u64,
    };
    selection.attempts.iter().map(count).collect()
}

/// Hint rationales over accepted ones.
pub(crate) fn hint_share(selection: &Selection) -> f64 {
    let hints = selection
        .accepted
        .iter()
        .filter(|record| record.source == Some(Source::Hint))
        .count();
    hints as f64 / selection.accepted.len().max(1) as f64
}

/// `7473 questions = 2310 accepted (forward) + …`
pub(crate) fn question_equation(counts: &[OutcomeCount]) -> String {
    let parts = counts
        .iter()
        .map(|count| (count.questions, outcome_name(count.outcome)));
    sum("questions", parts)
}

/// `9000 attempts = 2310 kept + …`
pub(crate) fn attempt_equation(counts: &[FateCount]) -> String {
    let parts = counts
        .iter()
        .map(|count| (count.attempts, fate_name(count.fate)));
    sum("attempts", parts)
}

/// A sum in words; its parts are all that there is, so its head cannot be another number.
pub(crate) fn sum(what: &str, parts: impl Iterator<Item = (u64, &'static str)>) -> String {
    let parts: Vec<(u64, &str)> = parts.collect();
    let total: u64 = parts.iter().map(|part| part.0).sum();
    let words: Vec<String> = parts
        .iter()
        .map(|(count, name)| format!("{count} {name}"))
        .collect();
    format!("{total} {what} = {}", words.join(" + "))
}

/// An outcome in words.
pub(crate) fn outcome_name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::AcceptedForward => "accepted (forward)",
        Outcome::AcceptedHint => "accepted (hint)",
        Outcome::HintShare => "over the hint share",
        Outcome::TooFewRight => "right too rarely",
        Outcome::Leaked => "leans on the hint",
        Outcome::FalseEquation => "false equation",
        Outcome::Fallback => "right without a marked answer",
        Outcome::Wrong => "wrong",
        Outcome::Truncated => "truncated",
        Outcome::NoAnswer => "no answer found",
        Outcome::NotAttempted => "not attempted",
    }
}

/// A fate in words.
fn fate_name(fate: AttemptFate) -> &'static str {
    match fate {
        AttemptFate::Kept => "kept",
        AttemptFate::Duplicate => "duplicate",
        AttemptFate::OverCap => "over the cap",
        AttemptFate::HintNotNeeded => "hint not needed",
        AttemptFate::HintShare => "over the hint share",
        AttemptFate::TooFewRight => "right too rarely",
        AttemptFate::Leaked => "leans on the hint",
        AttemptFate::FalseEquation => "false equation",
        AttemptFate::Fallback => "right without a marked answer",
        AttemptFate::Wrong => "wrong",
        AttemptFate::Truncated => "truncated",
        AttemptFate::NoAnswer => "no answer found",
        AttemptFate::Foreign => "of other questions",
    }
}

#[cfg(test)]
mod tests;
