//! The filter from attempts to the accepted set.

use super::{Gate, Outcome, Policy, Selection, select};
use crate::{
    leak::LeakReason,
    number::Number,
    question::Question,
    record::{Attempt, FinishReason, Source, Verdict, tests::attempt},
};

fn question(id: &str) -> Question {
    let (question, answer) = (format!("{id}?"), "#### 18".to_owned());
    Question {
        id: id.into(),
        question,
        answer,
        gold: Number::from(18),
    }
}

fn forward(id: &str, text: &str) -> Attempt {
    attempt(id, Source::Forward, text, 18)
}

fn hint(id: &str, text: &str) -> Attempt {
    attempt(id, Source::Hint, text, 18)
}

fn truncated(attempt: Attempt) -> Attempt {
    Attempt {
        verdict: Verdict::Truncated,
        finish_reason: FinishReason::Length,
        ..attempt
    }
}

fn leaked(attempt: Attempt) -> Attempt {
    Attempt {
        leaks: vec![LeakReason::TheHint],
        ..attempt
    }
}

/// One question of each kind, and an attempt for a question that is not in the set.
fn one_of_each() -> (Vec<Question>, Vec<Attempt>) {
    let ids = [
        "right", "hinted", "leaky", "guess", "wrong", "cut", "silent", "new",
    ];
    let attempts = vec![
        forward("right", "#### 18"),
        hint("right", "never needed\n#### 18"),
        forward("hinted", "#### 17"),
        hint("hinted", " by hint\n#### 18 "),
        forward("leaky", "#### 17"),
        leaked(hint("leaky", "#### 18")),
        forward("guess", "18"),
        forward("wrong", "#### 17"),
        truncated(hint("wrong", "#### 18")),
        truncated(forward("cut", "#### 18")),
        forward("silent", "eighteen"),
        forward("stranger", "#### 18"),
    ];
    (ids.map(question).to_vec(), attempts)
}

fn outcomes(selection: &Selection) -> Vec<(Outcome, usize)> {
    selection
        .outcomes
        .iter()
        .map(|(outcome, count)| (*outcome, *count))
        .collect()
}

/// Every question has one outcome, the outcomes sum to the questions, and foreign attempts are
/// counted apart.
#[test]
fn counts_close() {
    let (questions, attempts) = one_of_each();
    let selection = select(&questions, &attempts, &Policy::sound());
    assert_eq!(
        outcomes(&selection),
        [
            (Outcome::AcceptedForward, 1),
            (Outcome::AcceptedHint, 1),
            (Outcome::Leaked, 1),
            (Outcome::Fallback, 1),
            (Outcome::Wrong, 1),
            (Outcome::Truncated, 1),
            (Outcome::NoAnswer, 1),
            (Outcome::NotAttempted, 1),
        ]
    );
    assert_eq!(selection.num_foreign_attempts, 1);
    let rationales: Vec<&str> = selection
        .accepted
        .iter()
        .map(|r| r.rationale.as_str())
        .collect();
    assert_eq!(rationales, ["#### 18", "by hint\n#### 18"]);
}

/// The order of the log does not matter.
#[test]
fn order_does_not_matter() {
    let (questions, mut attempts) = one_of_each();
    attempts.push(forward("right", "another way\n#### 18"));
    let first = select(&questions, &attempts, &Policy::sound());
    for turn in 0..attempts.len() {
        attempts.rotate_left(1);
        assert_eq!(
            select(&questions, &attempts, &Policy::sound()),
            first,
            "after {turn} turns"
        );
    }
}

/// The report's policy stores what the hint prompt gave, checked or not.
#[test]
fn report_policy_takes_unverified_hints() {
    let (questions, attempts) = one_of_each();
    let selection = select(&questions, &attempts, &Policy::report());
    assert_eq!(
        outcomes(&selection),
        [
            // right, guess, and the cut one whose number is right
            (Outcome::AcceptedForward, 3),
            (Outcome::AcceptedHint, 3),
            (Outcome::NoAnswer, 1),
            (Outcome::NotAttempted, 1),
        ]
    );
    let wrong_hint = [forward("a", "#### 17"), hint("a", "#### 16")];
    let one = [question("a")];
    assert_eq!(
        select(&one, &wrong_hint, &Policy::report()).accepted.len(),
        1
    );
    assert_eq!(
        select(&one, &wrong_hint, &Policy::sound()).accepted.len(),
        0
    );
}

/// Several samples: at most so many a question, equal texts once, hints only where no forward one is.
#[test]
fn several_per_question() {
    let sample = |sample, text: &str| Attempt {
        sample,
        ..forward("a", text)
    };
    let attempts = [
        sample(0, "x\n#### 18"),
        sample(1, "x\n#### 18"),
        sample(2, "y\n#### 18"),
        sample(3, "z\n#### 18"),
        hint("a", "h\n#### 18"),
    ];
    let policy = Policy {
        max_per_question: 2,
        ..Policy::sound()
    };
    let accepted = select(&[question("a")], &attempts, &policy).accepted;
    let samples: Vec<Option<u32>> = accepted.iter().map(|record| record.sample).collect();
    assert_eq!(samples, [Some(0), Some(2)]);
}

/// Hints beyond their share are left out by question id and counted; the rest stays.
#[test]
fn hint_share() {
    let ids: Vec<String> = (0..10).map(|i| format!("q{i}")).collect();
    let questions: Vec<Question> = ids.iter().map(|id| question(id)).collect();
    let attempts: Vec<Attempt> = ids
        .iter()
        .enumerate()
        .map(|(i, id)| {
            if i < 6 {
                forward(id, "#### 18")
            } else {
                hint(id, "#### 18")
            }
        })
        .collect();
    let policy = Policy {
        max_hint_share: 0.25,
        ..Policy::sound()
    };
    let selection = select(&questions, &attempts, &policy);
    assert_eq!(
        outcomes(&selection),
        [
            (Outcome::AcceptedForward, 6),
            (Outcome::AcceptedHint, 2),
            (Outcome::HintShare, 2)
        ]
    );
    let none = Policy {
        max_hint_share: 0.0,
        ..Policy::sound()
    };
    assert_eq!(select(&questions, &attempts, &none).accepted.len(), 6);
}

/// Each doubt can be admitted by itself.
#[test]
fn gates() {
    let policy = Policy {
        leaked: Gate::Accept,
        fallback: Gate::Accept,
        ..Policy::sound()
    };
    let attempts = [leaked(hint("a", "so 18"))];
    assert_eq!(
        select(&[question("a")], &attempts, &policy).accepted.len(),
        1
    );
    let half = Policy {
        leaked: Gate::Accept,
        ..Policy::sound()
    };
    assert_eq!(
        outcomes(&select(&[question("a")], &attempts, &half)),
        [(Outcome::Fallback, 1)]
    );
}
