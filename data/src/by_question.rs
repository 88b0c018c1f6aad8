//! The attempts of each question, in an order that does not depend on the log's.

use crate::{
    question::Question,
    record::{Attempt, Source},
};
use std::collections::HashMap;

/// Attempts sorted by question.
pub(crate) struct ByQuestion<'a> {
    attempts: HashMap<&'a str, Vec<&'a Attempt>>,
    /// Attempts for questions that are not in the set.
    pub num_foreign: usize,
}

impl<'a> ByQuestion<'a> {
    pub(crate) fn new(questions: &'a [Question], attempts: &'a [Attempt]) -> ByQuestion<'a> {
        let mut lists: HashMap<&str, Vec<&Attempt>> = questions
            .iter()
            .map(|question| (question.id.as_str(), Vec::new()))
            .collect();
        let mut num_foreign = 0;
        for attempt in attempts {
            match lists.get_mut(attempt.question_id.as_str()) {
                Some(list) => list.push(attempt),
                None => num_foreign += 1,
            }
        }
        for list in lists.values_mut() {
            list.sort_by(|left, right| rank(left).cmp(&rank(right)));
        }
        ByQuestion {
            attempts: lists,
            num_foreign,
        }
    }

    /// All attempts for a question, forward ones first.
    pub(crate) fn of(&self, question: &Question) -> &[&'a Attempt] {
        self.attempts
            .get(question.id.as_str())
            .map_or(&[], Vec::as_slice)
    }

    /// The attempts made without a hint.
    pub(crate) fn forward(&self, question: &Question) -> impl Iterator<Item = &'a Attempt> {
        let attempts = self.of(question).iter().copied();
        attempts.filter(|attempt| attempt.source == Source::Forward)
    }
}

/// Source, iteration and sample first. Attempts of equal rank differ in nothing that gets into a
/// record.
fn rank(attempt: &Attempt) -> impl Ord + '_ {
    (
        attempt.source,
        attempt.iteration,
        attempt.sample,
        attempt.seed,
        attempt.text.as_str(),
        attempt.weights.digest.as_str(),
        attempt.prompt.digest.as_str(),
    )
}
