//! GSM8K itself, where it is at hand: the crate's reading of all 8,792 items.

mod common;

use common::gsm8k;
use data::{
    annotation,
    answer::{Rule, extract, extract_all},
    equation,
    number::{Number, scan},
    question::{Question, QuestionSet},
};

fn count(set: &QuestionSet, test: impl Fn(&Question) -> bool) -> usize {
    set.questions
        .iter()
        .filter(|question| test(question))
        .count()
}

/// All golds are integers; counts, extremes and digests are those of the published files.
#[test]
fn golds() {
    let Some([train, test]) = gsm8k() else { return };
    assert_eq!((train.questions.len(), test.questions.len()), (7473, 1319));
    assert!(train.sha256.starts_with("17f347dc") && train.sha256.ends_with("3465"));
    assert!(test.sha256.starts_with("3730d312") && test.sha256.ends_with("9d14"));
    for (set, commas, negatives, low, high) in [
        (&train, 79, 3, -47, 192_000_000),
        (&test, 14, 2, -10, 2_880_000),
    ] {
        assert!(
            set.questions
                .iter()
                .all(|question| question.gold.is_integer())
        );
        let gold_text =
            |question: &Question| question.answer.rsplit("####").next().map(str::to_owned);
        assert_eq!(
            count(set, |question| gold_text(question).unwrap().contains(',')),
            commas
        );
        assert_eq!(
            count(set, |question| question.gold.numerator() < 0),
            negatives
        );
        let golds = || {
            set.questions
                .iter()
                .map(|question| question.gold.numerator())
        };
        assert_eq!((golds().min(), golds().max()), (Some(low), Some(high)));
    }
    assert_eq!(train.questions[5715].gold, Number::from(-7));
    assert_eq!(test.questions[489].gold, Number::from(-10));
}

/// Every question has an id of its own, also across the two files.
#[test]
fn ids_are_unique() {
    let Some([train, test]) = gsm8k() else { return };
    let all = train.questions.iter().chain(&test.questions);
    let ids: std::collections::HashSet<&str> = all.map(|question| question.id.as_str()).collect();
    assert_eq!(ids.len(), 8792);
}

/// Every rule reads every gold answer rightly: the files are in the form that all of them know.
#[test]
fn all_rules_agree_on_gold_answers() {
    let Some(sets) = gsm8k() else { return };
    for question in sets.iter().flat_map(|set| &set.questions) {
        for extraction in extract_all(&question.answer) {
            assert!(
                extraction.is_right(question.gold),
                "{}: {extraction:?}",
                question.id
            );
        }
    }
}

/// Each annotation evaluates, and holds exactly: a free oracle for the arithmetic.
#[test]
fn annotations_hold() {
    let Some(sets) = gsm8k() else { return };
    for (set, num_annotations, num_without) in [(&sets[0], 23_716, 95), (&sets[1], 4_282, 18)] {
        let mut num_found = 0;
        for question in &set.questions {
            for found in annotation::annotations(&question.answer) {
                num_found += 1;
                assert_eq!(found.holds(), Some(true), "{}: {found:?}", question.id);
            }
        }
        assert_eq!(num_found, num_annotations);
        assert_eq!(
            count(set, |question| !question.answer.contains("<<")),
            num_without
        );
    }
}

/// Without their annotations the answers still give the same number, and hold none.
#[test]
fn stripped_answers() {
    let Some(sets) = gsm8k() else { return };
    for question in sets.iter().flat_map(|set| &set.questions) {
        let stripped = annotation::strip(&question.answer);
        assert!(!stripped.contains("<<") && !stripped.contains(">>"));
        assert_eq!(extract(&stripped, Rule::Numeric).value, Some(question.gold));
        assert!(!question.solution().contains("####"));
    }
}

/// The number after each annotation is its right side, also where that is a fraction (`3/4=3/4`).
#[test]
fn annotations_state_what_follows() {
    let Some(sets) = gsm8k() else { return };
    let questions = sets.iter().flat_map(|set| &set.questions);
    let mut others = Vec::new();
    for question in questions {
        for found in annotation::annotations(&question.answer) {
            let mut after = scan::numbers(&question.answer).starting_at(found.span.end);
            let next = after
                .next()
                .filter(|next| next.span.start == found.span.end);
            if next.and_then(|next| next.value) != annotation::evaluate(found.result) {
                others.push(&question.answer[found.span]);
            }
        }
    }
    assert_eq!(others, [""; 0]);
}

/// An annotation and the equation it stands in are one.
#[test]
fn annotations_count_once() {
    let Some(sets) = gsm8k() else { return };
    for question in sets.iter().flat_map(|set| &set.questions) {
        let annotated = equation::list(&question.answer).len();
        let plain = equation::list(&annotation::strip(&question.answer)).len();
        let num_annotations = annotation::annotations(&question.answer).count();
        assert!(
            plain <= annotated && annotated <= plain + num_annotations,
            "{}",
            question.id
        );
    }
}

/// Of 28,757 equations in the gold reasoning 29 are found false. Each was looked at: 23 are slips
/// of their writers (`6/3=.5`, `14*20=140`), 6 are true only with what stands around them
/// (`day 1 * 2 = 20`, `14, 400 / 80 = 180`).
#[test]
fn false_equations_of_gold_solutions() {
    let Some(sets) = gsm8k() else { return };
    let found = sets.map(|set| {
        let (mut num_false, mut num_equations) = (0, 0);
        for solution in set.questions.iter().map(Question::solution) {
            num_equations += equation::list(&solution).len();
            if let Some(span) = equation::first_false(&solution) {
                eprintln!("{}", &solution[span]);
                num_false += 1;
            }
        }
        (num_false, num_equations)
    });
    assert_eq!(found, [(27, 24_349), (2, 4_408)]);
}
