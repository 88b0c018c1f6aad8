//! Votes and what they are worth.

use super::{PseudoLabels, VoteOutcome, VotePolicy, pseudo_label};
use crate::{
    number::Number,
    question::{Question, parse_questions},
    record::{Attempt, FinishReason, Source, Verdict, tests::attempt},
};
use std::path::Path;

fn question(id: &str) -> Question {
    Question {
        id: id.into(),
        question: format!("{id}?"),
        answer: "#### 18".into(),
        gold: Number::from(18),
    }
}

/// One forward attempt an answer, numbered as samples.
fn votes(id: &str, answers: &[&str]) -> Vec<Attempt> {
    let numbered = answers.iter().zip(0..);
    numbered
        .map(|(answer, sample)| Attempt {
            sample,
            ..attempt(id, Source::Forward, answer, 18)
        })
        .collect()
}

const POLICY: VotePolicy = VotePolicy {
    min_votes: 3,
    min_share: 0.6,
};

/// Every question has one outcome. A tie is no label, whatever was seen first.
#[test]
fn outcomes_close() {
    let mut attempts = votes("clear", &["#### 18", "#### 18.00", "#### 7"]);
    attempts.extend(votes("wrong", &["#### 7", "#### 7", "#### 7", "none"]));
    attempts.extend(votes("tied", &["#### 18", "#### 7", "#### 7", "#### 18"]));
    attempts.extend(votes("split", &["#### 18", "#### 18", "#### 7", "#### 6"]));
    attempts.extend(votes("few", &["#### 18", "#### 18", "none"]));
    attempts.extend(votes("stranger", &["#### 18"]));
    attempts.push(attempt("hinted", Source::Hint, "#### 18", 18));
    let questions = ["clear", "wrong", "tied", "split", "few", "hinted"].map(question);
    let PseudoLabels {
        labels,
        outcomes,
        num_like_gold,
    } = pseudo_label(&questions, &attempts, &POLICY);
    let expected = [
        (VoteOutcome::Labelled, 2),
        (VoteOutcome::Tied, 1),
        (VoteOutcome::LowShare, 1),
        (VoteOutcome::TooFewVotes, 1),
        (VoteOutcome::NotAttempted, 1),
    ];
    assert_eq!(outcomes, expected.into_iter().collect());
    let labels: Vec<_> = labels
        .iter()
        .map(|label| {
            (
                label.id.as_str(),
                label.answer.as_str(),
                label.votes_for,
                label.votes,
            )
        })
        .collect();
    assert_eq!(
        labels,
        [("clear", "#### 18", 2, 3), ("wrong", "#### 7", 3, 3)]
    );
    assert_eq!(num_like_gold, 1);
}

/// A cut text has no vote: its last number may be a step's.
#[test]
fn cut_texts_do_not_vote() {
    let mut attempts = votes("a", &["#### 18", "#### 18", "#### 18"]);
    attempts[1].verdict = Verdict::Truncated;
    attempts[1].finish_reason = FinishReason::Length;
    let outcomes = pseudo_label(&[question("a")], &attempts, &POLICY).outcomes;
    assert_eq!(
        outcomes.into_iter().collect::<Vec<_>>(),
        [(VoteOutcome::TooFewVotes, 1)]
    );
}

/// A share is reached by being equal to it.
#[test]
fn shares() {
    let attempts = votes("a", &["#### 18", "#### 18", "#### 18", "#### 7", "#### 6"]);
    for (min_share, outcome) in [
        (0.0, VoteOutcome::Labelled),
        (0.6, VoteOutcome::Labelled),
        (0.61, VoteOutcome::LowShare),
        (1.0, VoteOutcome::LowShare),
    ] {
        let policy = VotePolicy {
            min_share,
            ..POLICY
        };
        let outcomes = pseudo_label(&[question("a")], &attempts, &policy).outcomes;
        assert_eq!(
            outcomes.into_iter().collect::<Vec<_>>(),
            [(outcome, 1)],
            "{min_share}"
        );
    }
    let nothing = VotePolicy {
        min_votes: 0,
        ..POLICY
    };
    let silent = votes("a", &["none"]);
    let outcomes = pseudo_label(&[question("a")], &silent, &nothing).outcomes;
    assert_eq!(
        outcomes.into_iter().collect::<Vec<_>>(),
        [(VoteOutcome::TooFewVotes, 1)]
    );
}

/// The labels are a question set, with the ids they had, and do not depend on the log's order.
#[test]
fn labels_are_questions() {
    let mut attempts = votes("a", &["#### 3/4", "#### .75", "#### 7"]);
    attempts.extend(votes("b", &["#### 1,450", "#### 1450", "#### -1450"]));
    let questions = ["a", "b"].map(question);
    let labels = pseudo_label(&questions, &attempts, &POLICY);
    let lines: Vec<String> = labels
        .labels
        .iter()
        .map(|label| serde_json::to_string(label).unwrap())
        .collect();
    let read = parse_questions(lines.join("\n").as_bytes(), Path::new("labels")).unwrap();
    let read: Vec<(String, String)> = read
        .questions
        .into_iter()
        .map(|question| (question.id, question.gold.to_string()))
        .collect();
    assert_eq!(
        read,
        [("a".into(), "0.75".into()), ("b".into(), "1450".into())]
    );
    attempts.reverse();
    assert_eq!(pseudo_label(&questions, &attempts, &POLICY), labels);
}
