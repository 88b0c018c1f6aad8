//! From attempts to the accepted set: a deterministic filter whose counts close.
//!
//! Per question: the forward attempts that were right come first, then the hint attempts that were.
//! Nothing here depends on the order of the log, so the set can be made again from the same attempts
//! at any time, also with another policy.

use crate::{
    answer::Flag,
    digest::sha256_u64,
    question::Question,
    record::{AcceptedRecord, Attempt, Source, Verdict},
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Whether a kind of doubtful attempt may enter the accepted set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gate {
    Accept,
    Reject,
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
    /// Most rationales per question; texts that are equal count once.
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
            max_per_question: 1,
            max_hint_share: 1.0,
        }
    }
}

/// What became of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    AcceptedForward,
    AcceptedHint,
    /// Right only after a hint, left out by `max_hint_share`.
    HintShare,
    /// Right only after a hint, and leaning on it.
    Leaked,
    /// Right only by the last number of the text.
    Fallback,
    /// Never right, wrong at least once.
    Wrong,
    /// Neither right nor wrong, cut at least once.
    Truncated,
    NoAnswer,
    /// No attempt in the log.
    NotAttempted,
}

/// The accepted set and where every question went.
#[derive(Clone, Debug, PartialEq)]
pub struct Selection {
    /// In the order of the questions.
    pub accepted: Vec<AcceptedRecord>,
    /// Sums to the number of questions; outcomes that did not occur are absent.
    pub outcomes: BTreeMap<Outcome, usize>,
    /// Attempts for questions that are not in the set. They are left out.
    pub num_foreign_attempts: usize,
}

/// Filters attempts into accepted records.
pub fn select(questions: &[Question], attempts: &[Attempt], policy: &Policy) -> Selection {
    let known: HashSet<&str> = questions
        .iter()
        .map(|question| question.id.as_str())
        .collect();
    let mut by_question: HashMap<&str, Vec<&Attempt>> = HashMap::new();
    let mut num_foreign_attempts = 0;
    for attempt in attempts {
        if known.contains(attempt.question_id.as_str()) {
            by_question
                .entry(&attempt.question_id)
                .or_default()
                .push(attempt);
        } else {
            num_foreign_attempts += 1;
        }
    }
    let mut picks: Vec<Pick> = questions
        .iter()
        .map(|question| pick(question, by_question.remove(question.id.as_str()), policy))
        .collect();
    cap_hints(&mut picks, policy.max_hint_share);
    let mut outcomes = BTreeMap::new();
    for pick in &picks {
        *outcomes.entry(pick.outcome).or_default() += 1;
    }
    let accepted = picks.iter().flat_map(Pick::records).collect();
    Selection {
        accepted,
        outcomes,
        num_foreign_attempts,
    }
}

struct Pick<'a> {
    question: &'a Question,
    kept: Vec<&'a Attempt>,
    outcome: Outcome,
}

fn pick<'a>(
    question: &'a Question,
    attempts: Option<Vec<&'a Attempt>>,
    policy: &Policy,
) -> Pick<'a> {
    let mut attempts = attempts.unwrap_or_default();
    // The text last: two attempts that differ in nothing else still have one order.
    attempts.sort_by(|left, right| rank(left).cmp(&rank(right)));
    let mut texts = HashSet::new();
    let mut kept: Vec<&Attempt> = attempts
        .iter()
        .copied()
        .filter(|attempt| objection(attempt, policy).is_none())
        .filter(|attempt| texts.insert(attempt.text.as_str()))
        .collect();
    if kept.iter().any(|attempt| attempt.source == Source::Forward) {
        kept.retain(|attempt| attempt.source == Source::Forward);
    }
    kept.truncate(policy.max_per_question);
    let outcome = match kept.first() {
        Some(Attempt {
            source: Source::Forward,
            ..
        }) => Outcome::AcceptedForward,
        Some(Attempt {
            source: Source::Hint,
            ..
        }) => Outcome::AcceptedHint,
        // The attempt that came closest names the reason: `Outcome` is ordered by closeness.
        None => attempts
            .iter()
            .filter_map(|attempt| objection(attempt, policy))
            .min()
            .unwrap_or(Outcome::NotAttempted),
    };
    Pick {
        question,
        kept,
        outcome,
    }
}

fn rank(attempt: &Attempt) -> (Source, u32, u32, u64, &str) {
    (
        attempt.source,
        attempt.iteration,
        attempt.sample,
        attempt.seed,
        &attempt.text,
    )
}

/// Why an attempt may not enter, or `None` where it may.
fn objection(attempt: &Attempt, policy: &Policy) -> Option<Outcome> {
    let is_hint = attempt.source == Source::Hint;
    let is_unverified_allowed = is_hint && policy.unverified_hint == Gate::Accept;
    match attempt.verdict {
        Verdict::Right => {}
        Verdict::Truncated if is_unverified_allowed && policy.truncated == Gate::Accept => {}
        // A forward text that was cut is taken where its number is right all the same.
        Verdict::Truncated
            if policy.truncated == Gate::Accept && attempt.value == Some(attempt.gold) => {}
        Verdict::Truncated => return Some(Outcome::Truncated),
        Verdict::Wrong | Verdict::NoAnswer if is_unverified_allowed => {}
        Verdict::Wrong => return Some(Outcome::Wrong),
        Verdict::NoAnswer => return Some(Outcome::NoAnswer),
    }
    if is_hint && policy.leaked == Gate::Reject && !attempt.leaks.is_empty() {
        return Some(Outcome::Leaked);
    }
    if policy.fallback == Gate::Reject && attempt.flags.contains(&Flag::Fallback) {
        return Some(Outcome::Fallback);
    }
    None
}

/// Leaves out hint rationales beyond their share, by the hash of the question's id.
fn cap_hints(picks: &mut [Pick<'_>], max_share: f64) {
    if max_share >= 1.0 {
        return;
    }
    let num_forward: usize = kept_of(picks, Outcome::AcceptedForward);
    // hints / (hints + forward) <= share
    let max_hints = (max_share.max(0.0) / (1.0 - max_share) * num_forward as f64).floor() as usize;
    let mut hints: Vec<&mut Pick<'_>> = picks
        .iter_mut()
        .filter(|pick| pick.outcome == Outcome::AcceptedHint)
        .collect();
    hints.sort_by_cached_key(|pick| sha256_u64(pick.question.id.as_bytes()));
    let mut num_hints = 0;
    for pick in hints {
        num_hints += pick.kept.len();
        if num_hints > max_hints {
            pick.kept.clear();
            pick.outcome = Outcome::HintShare;
        }
    }
}

fn kept_of(picks: &[Pick<'_>], outcome: Outcome) -> usize {
    picks
        .iter()
        .filter(|pick| pick.outcome == outcome)
        .map(|pick| pick.kept.len())
        .sum()
}

impl Pick<'_> {
    fn records(&self) -> impl Iterator<Item = AcceptedRecord> {
        self.kept.iter().map(|attempt| AcceptedRecord {
            question: self.question.question.clone(),
            gold_answer: self.question.gold.to_string(),
            rationale: attempt.text.trim().to_owned(),
            question_id: Some(self.question.id.clone()),
            source: Some(attempt.source),
            iteration: Some(attempt.iteration),
            sample: Some(attempt.sample),
            weights_digest: Some(attempt.weights.digest.clone()),
            prompt_digest: Some(attempt.prompt.digest.clone()),
        })
    }
}

#[cfg(test)]
mod tests;
