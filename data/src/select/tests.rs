//! The filter from attempts to the accepted set.

use super::{AttemptFate, Duplicates, Gate, Outcome, Policy, Selection, select};
use crate::{
    leak::LeakReason,
    number::Number,
    question::Question,
    record::{AcceptedRecord, Attempt, FinishReason, Source, Verdict, tests::attempt},
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

fn fates(selection: &Selection) -> Vec<(AttemptFate, usize)> {
    let counts = selection.attempts.iter();
    counts.map(|(fate, count)| (*fate, *count)).collect()
}

/// Every question has one outcome, every attempt one fate; the outcomes sum to the questions, and
/// foreign attempts are counted apart.
#[test]
fn counts_close() {
    use AttemptFate::{Fallback, Foreign, HintNotNeeded, Kept, Leaked, NoAnswer, Truncated, Wrong};
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
    assert_eq!(
        fates(&selection),
        [
            (Kept, 2),
            (HintNotNeeded, 1),
            (Leaked, 1),
            (Fallback, 1),
            (Wrong, 3),
            (Truncated, 2),
            (NoAnswer, 1),
            (Foreign, 1),
        ]
    );
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

fn samples(id: &str, texts: &[&str]) -> Vec<Attempt> {
    let numbered = texts.iter().zip(0..);
    numbered
        .map(|(text, sample)| Attempt {
            sample,
            ..forward(id, text)
        })
        .collect()
}

/// By equations the same solution in other words counts once, by texts it counts twice.
#[test]
fn duplicates() {
    let texts = [
        "9 * 2 = 18\n#### 18",
        "So 9 x 2 = $18.\n#### 18",
        "20 - 2 = 18\n#### 18",
        " 20 - 2 = 18\n#### 18\n",
    ];
    for (duplicates, kept) in [
        (Duplicates::Texts, vec![Some(0), Some(1), Some(2)]),
        (Duplicates::Equations, vec![Some(0), Some(2)]),
    ] {
        let policy = Policy {
            duplicates,
            max_per_question: 9,
            ..Policy::sound()
        };
        let selection = select(&[question("a")], &samples("a", &texts), &policy);
        let found: Vec<Option<u32>> = selection.accepted.iter().map(|r| r.sample).collect();
        assert_eq!(found, kept, "{duplicates:?}");
        assert_eq!(selection.attempts[&AttemptFate::Duplicate], 4 - kept.len());
    }
}

/// A question that is right too rarely is left out, and no hint brings it back; one that is never
/// right without a hint is not touched.
#[test]
fn right_too_rarely() {
    let mut attempts = samples("often", &["a\n#### 18", "b\n#### 18", "#### 17"]);
    attempts.extend(samples("once", &["a\n#### 18", "#### 17", "#### 16"]));
    attempts.push(hint("once", "h\n#### 18"));
    attempts.extend([forward("never", "#### 17"), hint("never", "h\n#### 18")]);
    let policy = Policy {
        min_right: 2,
        ..Policy::sound()
    };
    let questions = ["often", "once", "never"].map(question);
    let selection = select(&questions, &attempts, &policy);
    assert_eq!(
        outcomes(&selection),
        [
            (Outcome::AcceptedForward, 1),
            (Outcome::AcceptedHint, 1),
            (Outcome::TooFewRight, 1)
        ]
    );
    assert_eq!(
        fates(&selection),
        [
            (AttemptFate::Kept, 2),
            (AttemptFate::OverCap, 1),
            (AttemptFate::HintNotNeeded, 1),
            (AttemptFate::TooFewRight, 1),
            (AttemptFate::Wrong, 4),
        ]
    );
}

/// A right answer with a false equation on the way may be turned away.
#[test]
fn false_equations() {
    let attempts = [forward("a", "9 * 3 = 18\n#### 18")];
    let strict = Policy {
        false_equations: Gate::Reject,
        ..Policy::sound()
    };
    for (policy, outcome) in [
        (Policy::sound(), Outcome::AcceptedForward),
        (strict, Outcome::FalseEquation),
    ] {
        let selection = select(&[question("a")], &attempts, &policy);
        assert_eq!(outcomes(&selection), [(outcome, 1)]);
    }
}

/// A policy written before there were these fields means what it meant.
#[test]
fn old_policies_read() {
    let mut written = serde_json::to_value(Policy::sound()).unwrap();
    for later in ["false_equations", "duplicates", "min_right"] {
        written.as_object_mut().unwrap().remove(later).unwrap();
    }
    let read: Policy = serde_json::from_value(written).unwrap();
    assert_eq!(read, Policy::sound());
}

/// A number below `below` from a seed that moves on.
fn draw(state: &mut u64, below: usize) -> usize {
    *state = state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(0x9E37_79B9_7F4A_7C15);
    (*state >> 33) as usize % below
}

fn any_attempt(state: &mut u64) -> Attempt {
    const TEXTS: [&str; 8] = [
        "9 * 2 = 18\n#### 18",
        "18 it is: 9 * 2 = 18\n#### 18",
        "9 * 3 = 18\n#### 18",
        "18",
        "#### 17",
        "eighteen",
        "20 - 2 = 18\n#### 18",
        "the hint says\n#### 18",
    ];
    const IDS: [&str; 6] = ["a", "b", "c", "d", "e", "stranger"];
    let id = IDS[draw(state, IDS.len())];
    let text = TEXTS[draw(state, TEXTS.len())];
    let made = if draw(state, 3) == 0 {
        hint(id, text)
    } else {
        forward(id, text)
    };
    let mut made = Attempt {
        sample: draw(state, 3) as u32,
        seed: draw(state, 2) as u64,
        iteration: draw(state, 2) as u32,
        ..made
    };
    made.weights.digest = format!("w{}", draw(state, 2));
    match draw(state, 8) {
        0 => truncated(made),
        1 if made.source == Source::Hint => leaked(made),
        _ => made,
    }
}

/// Under any policy the counts close, caps hold, and a shuffled log gives the same selection.
#[test]
fn any_log_in_any_order() {
    let questions = ["a", "b", "c", "d", "e"].map(question);
    for seed in 0..2_000 {
        let state = &mut seed.clone();
        let mut attempts: Vec<Attempt> = (0..draw(state, 40)).map(|_| any_attempt(state)).collect();
        let gate = |state: &mut u64| [Gate::Accept, Gate::Reject][draw(state, 2)];
        let policy = Policy {
            truncated: gate(state),
            leaked: gate(state),
            fallback: gate(state),
            unverified_hint: gate(state),
            false_equations: gate(state),
            duplicates: [Duplicates::Texts, Duplicates::Equations][draw(state, 2)],
            min_right: 1 + draw(state, 3),
            max_per_question: 1 + draw(state, 3),
            max_hint_share: [0.0, 0.3, 1.0][draw(state, 3)],
        };
        let first = select(&questions, &attempts, &policy);
        assert_eq!(
            first.outcomes.values().sum::<usize>(),
            questions.len(),
            "seed {seed}"
        );
        assert_eq!(
            first.attempts.values().sum::<usize>(),
            attempts.len(),
            "seed {seed}"
        );
        let num_kept = first.attempts.get(&AttemptFate::Kept).copied();
        assert_eq!(num_kept.unwrap_or(0), first.accepted.len(), "seed {seed}");
        for question in &questions {
            let of_it = |record: &&AcceptedRecord| record.question == question.question;
            let count = first.accepted.iter().filter(of_it).count();
            assert!(count <= policy.max_per_question, "seed {seed}");
        }
        for last in (1..attempts.len()).rev() {
            attempts.swap(last, draw(state, last + 1));
        }
        assert_eq!(select(&questions, &attempts, &policy), first, "seed {seed}");
    }
}
