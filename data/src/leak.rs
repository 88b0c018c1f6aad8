//! The leak filter: hint rationales that lean on the answer they were shown.
//!
//! A rationale written with the answer in view can say "since the answer is 18" or put the number
//! down at the end without a calculation that makes it, or bend a calculation until it arrives there.
//! Trained on, all three teach guessing. The signs
//! below come from such texts; each is counted by its reason, so that what the filter costs is seen.

use crate::{
    equation,
    number::{Number, scan},
};
use serde::{Deserialize, Serialize};

/// Why a hint rationale looks as if it leaned on the hint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeakReason {
    /// "the correct answer", "the given answer", "the known answer", "the provided answer"
    KnownAnswer,
    /// "as given"
    AsGiven,
    /// "we know the answer"
    WeKnow,
    /// "since the answer is"
    SinceTheAnswer,
    /// "the hint"
    TheHint,
    /// An equation is false: its result was bent to the answer.
    FalseEquation,
    /// The final number comes only in the last sentence, and no equation there makes it.
    Underived,
}

/// Words in a row that give a leak away; `answer` may have `final` before it.
const PHRASES: [(LeakReason, &[&str]); 9] = [
    (LeakReason::KnownAnswer, &["the", "correct", "answer"]),
    (LeakReason::KnownAnswer, &["the", "given", "answer"]),
    (LeakReason::KnownAnswer, &["the", "known", "answer"]),
    (LeakReason::KnownAnswer, &["the", "provided", "answer"]),
    (LeakReason::AsGiven, &["as", "given"]),
    (LeakReason::WeKnow, &["we", "know", "the", "answer"]),
    (LeakReason::WeKnow, &["we", "know", "that", "the", "answer"]),
    (
        LeakReason::SinceTheAnswer,
        &["since", "the", "answer", "is"],
    ),
    (LeakReason::TheHint, &["the", "hint"]),
];

/// All signs of a leak in a hint rationale, each once, in a fixed order. Empty: none was seen.
pub fn find_leaks(rationale: &str, gold: Number) -> Vec<LeakReason> {
    let lower = rationale.to_lowercase();
    // "final" is dropped so that "the correct final answer" reads as "the correct answer".
    let words: Vec<&str> = lower
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty() && *word != "final")
        .collect();
    let says = |phrase: &[&str]| words.windows(phrase.len()).any(|window| window == phrase);
    let mut reasons: Vec<LeakReason> = PHRASES
        .iter()
        .filter(|(_, phrase)| says(phrase))
        .map(|(reason, _)| *reason)
        .collect();
    if equation::first_false(rationale).is_some() {
        reasons.push(LeakReason::FalseEquation);
    }
    if is_underived(rationale, gold) {
        reasons.push(LeakReason::Underived);
    }
    reasons.dedup();
    reasons
}

/// Whether the number first comes in the last sentence and no equals sign stands before it there.
fn is_underived(rationale: &str, gold: Number) -> bool {
    let text = rationale.trim_end();
    let Some(first) = scan::numbers(text).find(|found| found.value == Some(gold)) else {
        return false;
    };
    let sentence_start = last_sentence_start(text);
    first.span.start >= sentence_start && !text[sentence_start..first.span.start].contains('=')
}

/// The last sentence or line, whichever is shorter. A text of one sentence is its own last one.
fn last_sentence_start(text: &str) -> usize {
    let line_start = text.rfind('\n').map_or(0, |at| at + 1);
    let line = &text[line_start..];
    let ends = line.match_indices(['.', '!', '?']).map(|(at, _)| at + 1);
    let mut ends = ends.filter(|&end| line[end..].starts_with(char::is_whitespace));
    line_start + ends.next_back().unwrap_or(0)
}

#[cfg(test)]
mod tests;
