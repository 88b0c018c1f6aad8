//! What a report shows of the answers themselves: their lengths, accuracy by number of reasoning
//! steps, questions that fine-tuning fixed and broke, signs of leaks after a hint.
//!
//! Made once from the attempts and kept in `results.json`. Bounded in size: a histogram, a table and
//! a few examples, however many questions there were.

mod examples;
mod lengths;
mod steps;

use data::{
    leak::LeakReason,
    question::Question,
    record::{Attempt, Source, Verdict},
};
use serde::{Deserialize, Serialize};

pub use examples::{Example, Flips, Output};
pub use lengths::Lengths;
pub use steps::{MAX_STEPS, StepAccuracy, num_steps};

/// A model on the test questions.
#[derive(Debug, Clone, Copy)]
pub struct Evaluated<'a> {
    pub name: &'a str,
    pub attempts: &'a [Attempt],
}

/// What the answers say beyond right and wrong. Of several samples of a question the first counts,
/// so that all counts are counts of questions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Analysis {
    /// In the order in which they were given: the untouched model first.
    pub models: Vec<ModelAnalysis>,
    /// Wrong with the first model, right with the last.
    pub fixed: Flips,
    /// Right with the first model, wrong with the last.
    pub broken: Flips,
    /// `None` where nothing was tried with a hint.
    pub hints: Option<HintAnalysis>,
}

/// One model's answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelAnalysis {
    pub name: String,
    pub lengths: Lengths,
    /// By steps of the gold solution, from 1; the last is [`MAX_STEPS`] and more.
    pub steps: Vec<StepAccuracy>,
    /// Questions whose gold answer has no reasoning to count steps of.
    pub num_without_steps: u64,
}

/// What the leak filter saw in the attempts after a hint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HintAnalysis {
    pub attempts: u64,
    pub right: u64,
    /// Right, and at least one sign of a leak.
    pub right_and_leaking: u64,
    /// An attempt with several signs is in several of them.
    pub reasons: Vec<LeakCount>,
}

/// How often one sign was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeakCount {
    pub reason: LeakReason,
    pub attempts: u64,
    /// Of these the ones that were right, which only the filter kept out of training.
    pub right: u64,
}

/// Looks at the answers of the models to the test questions, and at all attempts of bootstrapping.
pub fn analyse(
    questions: &[Question],
    models: &[Evaluated<'_>],
    bootstrap: &[Attempt],
) -> Analysis {
    let firsts: Vec<(&str, Vec<&Attempt>)> = models
        .iter()
        .map(|model| (model.name, first_samples(model.attempts)))
        .collect();
    let bin_tokens = lengths::bin_tokens(firsts.iter().flat_map(|(_, attempts)| attempts));
    let (before, after) = match (firsts.first(), firsts.last()) {
        (Some((_, before)), Some((_, after))) => (before.as_slice(), after.as_slice()),
        _ => (&[][..], &[][..]),
    };
    let (fixed, broken) = examples::flips(questions, before, after);
    Analysis {
        models: firsts
            .iter()
            .map(|(name, attempts)| {
                let (steps, num_without_steps) = steps::by_steps(questions, attempts);
                ModelAnalysis {
                    name: (*name).to_owned(),
                    lengths: Lengths::of(attempts, bin_tokens),
                    steps,
                    num_without_steps,
                }
            })
            .collect(),
        fixed,
        broken,
        hints: hints(bootstrap),
    }
}

fn first_samples(attempts: &[Attempt]) -> Vec<&Attempt> {
    attempts
        .iter()
        .filter(|attempt| attempt.source == Source::Forward && attempt.sample == 0)
        .collect()
}

fn hints(attempts: &[Attempt]) -> Option<HintAnalysis> {
    let hints: Vec<&Attempt> = attempts
        .iter()
        .filter(|attempt| attempt.source == Source::Hint)
        .collect();
    let right = |attempt: &&&Attempt| attempt.verdict == Verdict::Right;
    let mut reasons: Vec<LeakReason> = hints.iter().flat_map(|it| it.leaks.clone()).collect();
    reasons.sort_unstable();
    reasons.dedup();
    let count = |reason: LeakReason| {
        let with = hints.iter().filter(|it| it.leaks.contains(&reason));
        LeakCount {
            reason,
            attempts: with.clone().count() as u64,
            right: with.filter(right).count() as u64,
        }
    };
    (!hints.is_empty()).then(|| HintAnalysis {
        attempts: hints.len() as u64,
        right: hints.iter().filter(right).count() as u64,
        right_and_leaking: hints
            .iter()
            .filter(right)
            .filter(|attempt| !attempt.leaks.is_empty())
            .count() as u64,
        reasons: reasons.into_iter().map(count).collect(),
    })
}

#[cfg(test)]
pub(super) mod tests;
