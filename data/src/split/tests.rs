//! Hold-out splits.

use super::{FractionError, Holdout, holdout_by_question};

fn questions() -> Vec<String> {
    (0..1000).map(|i| format!("question {i}")).collect()
}

fn held_out<'a>(questions: &[&'a str], seed: u64) -> Vec<&'a str> {
    let split = holdout_by_question(questions.iter().copied(), 0.1, seed).unwrap();
    split
        .held_out
        .into_iter()
        .map(|index| questions[index])
        .collect()
}

/// The same questions are held out after reordering and in any subset.
#[test]
fn membership_is_the_questions_own() {
    let questions = questions();
    let all: Vec<&str> = questions.iter().map(String::as_str).collect();
    let out = held_out(&all, 1);
    let mut reversed: Vec<&str> = all.iter().rev().copied().collect();
    let mut from_reversed = held_out(&reversed, 1);
    from_reversed.reverse();
    assert_eq!(from_reversed, out);

    reversed.retain(|question| question.ends_with('7'));
    let subset = held_out(&reversed, 1);
    assert!(subset.iter().all(|question| out.contains(question)));
    assert_eq!(
        subset.len(),
        out.iter()
            .filter(|question| question.ends_with('7'))
            .count()
    );
}

/// About the fraction asked for, another seed another side, and both sides together are everything.
#[test]
fn sizes() {
    let questions = questions();
    let split = holdout_by_question(questions.iter().map(String::as_str), 0.1, 1).unwrap();
    assert!(
        (70..130).contains(&split.held_out.len()),
        "{}",
        split.held_out.len()
    );
    let mut all = [split.train.clone(), split.held_out.clone()].concat();
    all.sort_unstable();
    assert_eq!(all, (0..1000).collect::<Vec<_>>());
    let other = holdout_by_question(questions.iter().map(String::as_str), 0.1, 2).unwrap();
    assert_ne!(other, split);
    let none = holdout_by_question(questions.iter().map(String::as_str), 0.0, 1).unwrap();
    assert!(none.held_out.is_empty());
}

/// Several rationales of one question stay together.
#[test]
fn a_question_is_on_one_side() {
    let split = holdout_by_question(["a", "b", "a", "a"], 0.5, 3).unwrap();
    let sides = [
        split.train.contains(&0),
        split.train.contains(&2),
        split.train.contains(&3),
    ];
    assert!(sides == [true; 3] || sides == [false; 3]);
}

/// The membership of a question never changes between versions of this software.
#[test]
fn membership_is_pinned() {
    let holdout = Holdout::new(0.1, 7).unwrap();
    let out: Vec<usize> = (0..60)
        .filter(|i| holdout.holds_out(&format!("question {i}")))
        .collect();
    expect_test::expect!["[19, 27, 28, 32, 35, 36, 53]"].assert_eq(&format!("{out:?}"));
}

/// A fraction that leaves nothing to train on, or is no number, is refused.
#[test]
fn bad_fractions() {
    for found in [1.0, -0.1, 1.5] {
        assert_eq!(Holdout::new(found, 0), Err(FractionError { found }));
    }
    assert!(Holdout::new(f64::NAN, 0).is_err());
}
