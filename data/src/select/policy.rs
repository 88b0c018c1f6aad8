//! What may enter the accepted set. Fields that came later have the value that keeps old files'
//! meaning.

use crate::equation;
use serde::{Deserialize, Serialize};

/// Whether a kind of doubtful attempt may enter the accepted set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gate {
    Accept,
    Reject,
}

impl Gate {
    fn accept() -> Gate {
        Gate::Accept
    }
}

/// What makes two rationales of one question the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Duplicates {
    /// The same text, blanks at its ends apart.
    #[default]
    Texts,
    /// The same equations in the same order, whatever words stand around them; see
    /// [`crate::equation::fingerprint`].
    Equations,
}

/// What may enter the accepted set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    /// Texts that were cut.
    pub truncated: Gate,
    /// Hint rationales that lean on the hint.
    pub leaked: Gate,
    /// Right answers that no marker points at: the last number of the text happened to be right.
    pub fallback: Gate,
    /// Hint rationales whose answer is wrong or missing, and texts cut after a hint.
    pub unverified_hint: Gate,
    /// Forward rationales with an equation that is false, see [`crate::equation`]. (For hint
    /// rationales that is one of the signs of a leak.)
    #[serde(default = "Gate::accept")]
    pub false_equations: Gate,
    /// Which rationales of one question count as the same; the first of them stays.
    #[serde(default)]
    pub duplicates: Duplicates,
    /// A question with fewer forward attempts that pass the gates, duplicates counted, is left out:
    /// being right so rarely is more likely luck. Questions without any such attempt are not
    /// touched by this: they may still be accepted by a hint.
    #[serde(default = "one")]
    pub min_right: usize,
    /// Most rationales per question, duplicates counted once; at least 1.
    pub max_per_question: usize,
    /// Largest share of hint rationales in the accepted set, 0 to 1. Which ones stay depends on
    /// the question ids only.
    pub max_hint_share: f64,
}

impl Policy {
    /// Only verified rationales: what training needs.
    pub fn sound() -> Policy {
        Policy {
            truncated: Gate::Reject,
            leaked: Gate::Reject,
            fallback: Gate::Reject,
            unverified_hint: Gate::Reject,
            false_equations: Gate::Accept,
            duplicates: Duplicates::Texts,
            min_right: 1,
            max_per_question: 1,
            max_hint_share: 1.0,
        }
    }

    /// What the reference report did: whatever the hint prompt gave is stored unchecked.
    pub fn report() -> Policy {
        Policy {
            truncated: Gate::Accept,
            leaked: Gate::Accept,
            fallback: Gate::Accept,
            unverified_hint: Gate::Accept,
            false_equations: Gate::Accept,
            duplicates: Duplicates::Texts,
            min_right: 1,
            max_per_question: 1,
            max_hint_share: 1.0,
        }
    }
}

impl Duplicates {
    /// What texts that count as the same have in common.
    pub(crate) fn key(self, text: &str) -> String {
        match self {
            Duplicates::Texts => text.trim().to_owned(),
            Duplicates::Equations => equation::fingerprint(text),
        }
    }
}

fn one() -> usize {
    1
}
