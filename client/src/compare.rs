//! Two evaluations over the same questions, paired: exact McNemar and the difference's interval.
//! Runs that differ in more than their weights are not compared unless the user insists.

use std::{collections::HashMap, path::Path};

use data::{
    append_log::read_log,
    record::{Attempt, Verdict},
    stats::{Interval, PairedCounts},
};
use serde::{Deserialize, Serialize};

use crate::{
    collect::{ATTEMPTS_FILE, MANIFEST_FILE},
    error::ClientError,
    files,
    manifest::{Difference, Manifest},
};

/// The second run against the first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    pub first: String,
    pub second: String,
    pub counts: PairedCounts,
    /// Second minus first, from -1 to 1.
    pub difference: f64,
    /// 95 %.
    pub interval: Interval,
    /// Exact McNemar, two-sided.
    pub p_value: f64,
}

impl Comparison {
    /// Pairs attempts by question. Both runs must hold the same questions.
    pub fn of(
        (first, first_attempts): (&str, &[Attempt]),
        (second, second_attempts): (&str, &[Attempt]),
    ) -> Result<Self, ClientError> {
        let rights = |attempts: &[Attempt]| -> HashMap<String, bool> {
            let right = |attempt: &Attempt| attempt.verdict == Verdict::Right;
            attempts
                .iter()
                .map(|attempt| (attempt.question_id.clone(), right(attempt)))
                .collect()
        };
        let (ours, theirs) = (rights(first_attempts), rights(second_attempts));
        let mut pairs = Vec::with_capacity(ours.len());
        for (id, right) in &ours {
            let Some(other) = theirs.get(id) else {
                let problem = format!("question {id} is in {first} but not in {second}");
                return Err(ClientError::NotComparable(problem));
            };
            pairs.push((*right, *other));
        }
        if theirs.len() != ours.len() {
            let problem = format!(
                "{first} has {} questions, {second} has {}",
                ours.len(),
                theirs.len()
            );
            return Err(ClientError::NotComparable(problem));
        }
        let counts = PairedCounts::from_pairs(pairs);
        Ok(Self {
            first: first.to_owned(),
            second: second.to_owned(),
            counts,
            difference: counts.difference(),
            interval: counts.difference_interval(),
            p_value: counts.mcnemar_exact(),
        })
    }

    /// One line for people.
    pub fn text(&self) -> String {
        format!(
            "{} -> {}: {:+.2} points [{:+.2}, {:+.2}], exact McNemar p = {} (both right {}, only \
             first {}, only second {}, both not {})",
            self.first,
            self.second,
            self.difference * 100.0,
            self.interval.low * 100.0,
            self.interval.high * 100.0,
            p_text(self.p_value),
            self.counts.both_right,
            self.counts.only_first,
            self.counts.only_second,
            self.counts.both_wrong
        )
    }
}

/// Four digits, or an exponent where that would be zero.
pub(crate) fn p_text(p: f64) -> String {
    if p >= 1e-3 {
        format!("{p:.4}")
    } else {
        format!("{p:.2e}")
    }
}

/// Whether differing settings stop a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strictness {
    Refuse,
    Force,
}

/// Compares two evaluation folders. Gives the settings that differ too (none unless forced).
pub fn compare_folders(
    first: &Path,
    second: &Path,
    strictness: Strictness,
) -> Result<(Comparison, Vec<Difference>), ClientError> {
    let manifest = |folder: &Path| files::require_json::<Manifest>(&folder.join(MANIFEST_FILE));
    let differences = manifest(first)?.differences_in_method(&manifest(second)?);
    if strictness == Strictness::Refuse && !differences.is_empty() {
        let all = differences.iter().map(|difference| {
            format!(
                "{} ({} against {})",
                difference.field, difference.left, difference.right
            )
        });
        let all: Vec<String> = all.collect();
        return Err(ClientError::NotComparable(format!(
            "they differ in {}",
            all.join("; ")
        )));
    }
    let attempts = |folder: &Path| read_log::<Attempt>(&folder.join(ATTEMPTS_FILE));
    let (left, right) = (attempts(first)?.records, attempts(second)?.records);
    let name = |folder: &Path| folder.display().to_string();
    let comparison = Comparison::of((&name(first), &left), (&name(second), &right))?;
    Ok((comparison, differences))
}

#[cfg(test)]
mod tests;
