//! Holding out questions for validation.
//!
//! Membership is a property of the question alone: a hash of its text and a seed decides. So the
//! split is the same after reordering, on resume, and in every subset of the questions: a set of
//! bootstrapped rationales and the gold set it came from hold out the same questions, and several
//! rationales of one question never fall on both sides.

use crate::digest::sha256_u64;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Which share of questions to hold out, and which ones.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Holdout {
    fraction: f64,
    seed: u64,
}

#[derive(Debug, Error, PartialEq)]
#[error("holdout fraction: expected a number from 0 up to but not including 1, found {found}")]
pub struct FractionError {
    pub found: f64,
}

/// Positions in the list that was split, each side in the list's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    pub train: Vec<usize>,
    pub held_out: Vec<usize>,
}

impl Holdout {
    pub fn new(fraction: f64, seed: u64) -> Result<Holdout, FractionError> {
        if (0.0..1.0).contains(&fraction) {
            Ok(Holdout { fraction, seed })
        } else {
            Err(FractionError { found: fraction })
        }
    }

    /// Whether a question belongs to the held-out side. The side's size is the fraction on average,
    /// not exactly: an exact size would make membership depend on the other questions.
    pub fn holds_out(self, question: &str) -> bool {
        self.place(question) < self.fraction
    }

    /// Splits questions, given by their texts.
    pub fn split<'a>(self, questions: impl IntoIterator<Item = &'a str>) -> Split {
        let mut split = Split {
            train: Vec::new(),
            held_out: Vec::new(),
        };
        for (index, question) in questions.into_iter().enumerate() {
            let side = if self.holds_out(question) {
                &mut split.held_out
            } else {
                &mut split.train
            };
            side.push(index);
        }
        split
    }

    /// A number from 0 up to 1, the same everywhere and always for the same question and seed.
    fn place(self, question: &str) -> f64 {
        let mut bytes = self.seed.to_le_bytes().to_vec();
        bytes.extend_from_slice(question.as_bytes());
        // The upper 53 bits: every value is an f64.
        (sha256_u64(&bytes) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Splits questions, given by their texts: [`Holdout::split`] in one call.
pub fn holdout_by_question<'a>(
    questions: impl IntoIterator<Item = &'a str>,
    fraction: f64,
    seed: u64,
) -> Result<Split, FractionError> {
    Ok(Holdout::new(fraction, seed)?.split(questions))
}

#[cfg(test)]
mod tests;
