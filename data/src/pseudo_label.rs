//! Labels by majority vote: what the samples of a question agree on, in place of a gold answer.
//!
//! For question sets without answers. Where there are answers they are not looked at, but the
//! labels can be held against them afterwards.

use crate::{
    by_question::ByQuestion,
    number::Number,
    question::Question,
    record::{Attempt, Verdict},
    stats::samples::tally,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// When a vote is a label.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VotePolicy {
    /// Fewest votes cast for a question.
    pub min_votes: usize,
    /// Smallest share of the votes cast that the first answer has, 0 to 1.
    pub min_share: f64,
}

/// A question and the answer its samples agree on, as a line that [`crate::question`] reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PseudoLabel {
    pub id: String,
    pub question: String,
    /// `#### 18`
    pub answer: String,
    /// Votes for this answer.
    pub votes_for: usize,
    /// Votes cast.
    pub votes: usize,
}

/// What became of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VoteOutcome {
    Labelled,
    /// Two answers have the most votes. Neither is taken: the order of samples means nothing.
    Tied,
    /// The first answer has less than `min_share` of the votes.
    LowShare,
    TooFewVotes,
    /// No forward attempt in the log.
    NotAttempted,
}

/// The labels and where every question went.
#[derive(Clone, Debug, PartialEq)]
pub struct PseudoLabels {
    /// In the order of the questions.
    pub labels: Vec<PseudoLabel>,
    /// Sums to the number of questions; outcomes that did not occur are absent.
    pub outcomes: BTreeMap<VoteOutcome, usize>,
    /// Labels that are the gold answer. Means nothing for questions whose gold is made up.
    pub num_like_gold: usize,
}

/// Lets the forward attempts of each question vote. One vote an attempt; none where the text was
/// cut (its last number may be a step's) or holds no answer.
pub fn pseudo_label(
    questions: &[Question],
    attempts: &[Attempt],
    policy: &VotePolicy,
) -> PseudoLabels {
    let by_question = ByQuestion::new(questions, attempts);
    let mut result = PseudoLabels {
        labels: Vec::new(),
        outcomes: BTreeMap::new(),
        num_like_gold: 0,
    };
    for question in questions {
        let answers: Vec<Option<Number>> = by_question.forward(question).map(vote).collect();
        let outcome = match elect(&answers, policy) {
            Ok(Elected {
                answer,
                votes_for,
                votes,
            }) => {
                result.labels.push(PseudoLabel {
                    id: question.id.clone(),
                    question: question.question.clone(),
                    answer: format!("#### {answer}"),
                    votes_for,
                    votes,
                });
                result.num_like_gold += usize::from(answer == question.gold);
                VoteOutcome::Labelled
            }
            Err(outcome) => outcome,
        };
        *result.outcomes.entry(outcome).or_default() += 1;
    }
    result
}

fn vote(attempt: &Attempt) -> Option<Number> {
    attempt
        .value
        .filter(|_| attempt.verdict != Verdict::Truncated)
}

struct Elected {
    answer: Number,
    votes_for: usize,
    votes: usize,
}

fn elect(answers: &[Option<Number>], policy: &VotePolicy) -> Result<Elected, VoteOutcome> {
    let mut tally = tally(answers);
    let votes: usize = tally.iter().map(|candidate| candidate.1).sum();
    tally.sort_by_key(|candidate| std::cmp::Reverse(candidate.1));
    match tally.as_slice() {
        _ if answers.is_empty() => Err(VoteOutcome::NotAttempted),
        _ if votes < policy.min_votes => Err(VoteOutcome::TooFewVotes),
        [] => Err(VoteOutcome::TooFewVotes),
        [first, second, ..] if first.1 == second.1 => Err(VoteOutcome::Tied),
        [first, ..] if (first.1 as f64) < policy.min_share * votes as f64 => {
            Err(VoteOutcome::LowShare)
        }
        [first, ..] => Ok(Elected {
            answer: first.0,
            votes_for: first.1,
            votes,
        }),
    }
}

#[cfg(test)]
mod tests;
