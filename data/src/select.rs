//! From attempts to the accepted set: a deterministic filter whose counts close.
//!
//! Per question: the forward attempts that were right come first, then the hint attempts that were.
//! Nothing here depends on the order of the log, so the set can be made again from the same attempts
//! at any time, also with another policy.

mod policy;

pub use policy::{Duplicates, Gate, Policy};

use crate::{
    answer::Flag,
    by_question::ByQuestion,
    digest::sha256_u64,
    equation,
    question::Question,
    record::{AcceptedRecord, Attempt, Source, Verdict},
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};

/// What became of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    AcceptedForward,
    AcceptedHint,
    /// Right only after a hint, left out by `max_hint_share`.
    HintShare,
    /// Right without a hint, but in fewer attempts than `min_right`.
    TooFewRight,
    /// Right only after a hint, and leaning on it.
    Leaked,
    /// Right only with an equation that is false.
    FalseEquation,
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

/// What became of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptFate {
    Kept,
    /// The same as one that was kept or is over the cap.
    Duplicate,
    /// Beyond `max_per_question`.
    OverCap,
    /// A hint attempt for a question with a forward attempt that will do.
    HintNotNeeded,
    /// Left out with its question, see [`Outcome::HintShare`].
    HintShare,
    /// Left out with its question, see [`Outcome::TooFewRight`].
    TooFewRight,
    Leaked,
    FalseEquation,
    Fallback,
    Wrong,
    Truncated,
    NoAnswer,
    /// For a question that is not in the set.
    Foreign,
}

/// The accepted set and where every question went.
#[derive(Clone, Debug, PartialEq)]
pub struct Selection {
    /// In the order of the questions.
    pub accepted: Vec<AcceptedRecord>,
    /// Sums to the number of questions; outcomes that did not occur are absent.
    pub outcomes: BTreeMap<Outcome, usize>,
    /// Sums to the number of attempts given; fates that did not occur are absent.
    pub attempts: BTreeMap<AttemptFate, usize>,
}

/// Filters attempts into accepted records.
pub fn select(questions: &[Question], attempts: &[Attempt], policy: &Policy) -> Selection {
    let by_question = ByQuestion::new(questions, attempts);
    let mut picks: Vec<Pick> = questions
        .iter()
        .map(|question| pick(question, by_question.of(question), policy))
        .collect();
    cap_hints(&mut picks, policy.max_hint_share);
    let mut outcomes = BTreeMap::new();
    let mut fates = Fates::new();
    if by_question.num_foreign > 0 {
        fates.insert(AttemptFate::Foreign, by_question.num_foreign);
    }
    for pick in &picks {
        *outcomes.entry(pick.outcome).or_default() += 1;
        for (&fate, &count) in &pick.fates {
            *fates.entry(fate).or_default() += count;
        }
    }
    let accepted = picks.iter().flat_map(Pick::records).collect();
    Selection {
        accepted,
        outcomes,
        attempts: fates,
    }
}

type Fates = BTreeMap<AttemptFate, usize>;

struct Pick<'a> {
    question: &'a Question,
    kept: Vec<&'a Attempt>,
    outcome: Outcome,
    /// Of all attempts for the question.
    fates: Fates,
}

fn pick<'a>(question: &'a Question, attempts: &[&'a Attempt], policy: &Policy) -> Pick<'a> {
    let objections: Vec<Option<Objection>> = attempts
        .iter()
        .map(|attempt| objection(attempt, policy))
        .collect();
    let num_right = attempts
        .iter()
        .zip(&objections)
        .filter(|(attempt, objection)| attempt.source == Source::Forward && objection.is_none())
        .count();
    let mut kept: Vec<&Attempt> = Vec::new();
    let mut seen = HashSet::new();
    let mut fates = Fates::new();
    for (&attempt, objection) in attempts.iter().zip(&objections) {
        let fate = match objection {
            Some(objection) => objection.names().0,
            None if attempt.source == Source::Hint && num_right > 0 => AttemptFate::HintNotNeeded,
            None if num_right > 0 && num_right < policy.min_right => AttemptFate::TooFewRight,
            None if !seen.insert(policy.duplicates.key(&attempt.text)) => AttemptFate::Duplicate,
            None if kept.len() >= policy.max_per_question.max(1) => AttemptFate::OverCap,
            None => AttemptFate::Kept,
        };
        if fate == AttemptFate::Kept {
            kept.push(attempt);
        }
        *fates.entry(fate).or_default() += 1;
    }
    let outcome = match kept.first() {
        Some(attempt) if attempt.source == Source::Forward => Outcome::AcceptedForward,
        Some(_) => Outcome::AcceptedHint,
        None if num_right > 0 => Outcome::TooFewRight,
        // The attempt that came closest names the reason.
        None => objections
            .into_iter()
            .flatten()
            .min()
            .map_or(Outcome::NotAttempted, |closest| closest.names().1),
    };
    Pick {
        question,
        kept,
        outcome,
        fates,
    }
}

/// Why an attempt may not enter, from close to far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Objection {
    Leaked,
    FalseEquation,
    Fallback,
    Wrong,
    Truncated,
    NoAnswer,
}

impl Objection {
    /// What the attempt is counted as, and its question where no attempt came closer.
    fn names(self) -> (AttemptFate, Outcome) {
        match self {
            Objection::Leaked => (AttemptFate::Leaked, Outcome::Leaked),
            Objection::FalseEquation => (AttemptFate::FalseEquation, Outcome::FalseEquation),
            Objection::Fallback => (AttemptFate::Fallback, Outcome::Fallback),
            Objection::Wrong => (AttemptFate::Wrong, Outcome::Wrong),
            Objection::Truncated => (AttemptFate::Truncated, Outcome::Truncated),
            Objection::NoAnswer => (AttemptFate::NoAnswer, Outcome::NoAnswer),
        }
    }
}

/// `None` where an attempt may enter.
fn objection(attempt: &Attempt, policy: &Policy) -> Option<Objection> {
    let is_hint = attempt.source == Source::Hint;
    let is_unverified_allowed = is_hint && policy.unverified_hint == Gate::Accept;
    match attempt.verdict {
        Verdict::Right => {}
        Verdict::Truncated if is_unverified_allowed && policy.truncated == Gate::Accept => {}
        // A forward text that was cut is taken where its number is right all the same.
        Verdict::Truncated
            if policy.truncated == Gate::Accept && attempt.value == Some(attempt.gold) => {}
        Verdict::Truncated => return Some(Objection::Truncated),
        Verdict::Wrong | Verdict::NoAnswer if is_unverified_allowed => {}
        Verdict::Wrong => return Some(Objection::Wrong),
        Verdict::NoAnswer => return Some(Objection::NoAnswer),
    }
    if is_hint && policy.leaked == Gate::Reject && !attempt.leaks.is_empty() {
        return Some(Objection::Leaked);
    }
    let is_checked = !is_hint && policy.false_equations == Gate::Reject;
    if is_checked && equation::first_false(&attempt.text).is_some() {
        return Some(Objection::FalseEquation);
    }
    if policy.fallback == Gate::Reject && attempt.flags.contains(&Flag::Fallback) {
        return Some(Objection::Fallback);
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
            if let Some(count) = pick.fates.remove(&AttemptFate::Kept) {
                pick.fates.insert(AttemptFate::HintShare, count);
            }
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
