use std::collections::{HashMap, HashSet};

use super::*;

const SIZES: SplitSizes = SplitSizes {
    num_train: 3000,
    num_test: 600,
};

/// Same seed, same files: what is shipped can be made again.
#[test]
fn splits_are_a_function_of_the_seed() {
    let small = SplitSizes {
        num_train: 50,
        num_test: 20,
    };
    assert_eq!(splits(7, small), splits(7, small));
    assert_ne!(splits(7, small), splits(8, small));
}

/// No question occurs twice, within a split or across them.
#[test]
fn no_question_occurs_twice() {
    let Splits { train, test } = splits(1, SIZES);
    let all: HashSet<&str> = train
        .iter()
        .chain(&test)
        .map(|p| p.question.as_str())
        .collect();
    assert_eq!(all.len(), 3600);
}

/// Every annotation `<<a op b=c>>` of a reference answer is arithmetically right, its result stands
/// behind it, and the last one is the answer.
#[test]
fn reference_answers_evaluate() {
    for problem in splits(2, SIZES).train {
        let (steps, gold) = problem.answer.split_once("#### ").unwrap();
        let mut last = None;
        for line in steps.lines() {
            let (_, annotated) = line.split_once("<<").unwrap();
            let (sum, rest) = annotated.split_once(">>").unwrap();
            let (expression, value) = sum.split_once('=').unwrap();
            let value: i64 = value.parse().unwrap();
            assert_eq!(evaluate(expression), value, "{line}");
            assert!(rest.starts_with(&format!("{value} ")), "{line}");
            last = Some(value);
        }
        assert_eq!(steps.lines().count(), problem.num_steps);
        assert_eq!(gold.parse::<i64>().ok(), last, "{problem:?}");
    }
}

fn evaluate(expression: &str) -> i64 {
    let at = expression.find(['+', '-', '*', '/']).unwrap();
    let left: i64 = expression[..at].parse().unwrap();
    let right: i64 = expression[at + 1..].parse().unwrap();
    match &expression[at..=at] {
        "+" => left + right,
        "-" => left - right,
        "*" => left * right,
        _ => {
            assert_eq!(left % right, 0, "{expression}");
            left / right
        }
    }
}

/// Every number that the first use of a step needs is in the question or comes from a step before:
/// the problems can be solved from what they say.
#[test]
fn steps_use_known_numbers() {
    for family in family::KNOWN.iter().chain(family::UNSEEN) {
        for num_steps in 1..=6 {
            let told = family.tell(&mut Rng::new(num_steps as u64), num_steps);
            let mut known: HashSet<i64> = numbers(&told.question).collect();
            // "half", "twice", "doubles", 25% and their like stand for these.
            known.extend([2, 3, 4, 5, 10]);
            for step in &told.steps {
                assert!(known.contains(&step.left), "{} in {told:?}", step.left);
                assert!(known.contains(&step.right), "{} in {told:?}", step.right);
                known.insert(step.value);
            }
        }
    }
}

fn numbers(text: &str) -> impl Iterator<Item = i64> {
    text.split(|c: char| !c.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
}

/// Some families occur in the test split only, and every number of steps from 2 to 6 occurs.
#[test]
fn the_test_split_has_families_of_its_own() {
    let Splits { train, test } = splits(3, SIZES);
    let seen: HashSet<&str> = train.iter().map(|p| p.family).collect();
    let own = test.iter().filter(|p| !seen.contains(p.family)).count();
    assert!(
        (60..=120).contains(&own),
        "{own} of 600 come from unseen families"
    );
    let mut by_steps = HashMap::new();
    for problem in &test {
        *by_steps.entry(problem.num_steps).or_insert(0) += 1;
    }
    for num_steps in 2..=6 {
        assert!(by_steps[&num_steps] >= 50, "{by_steps:?}");
    }
}

/// The pre-training text holds no question of the splits.
#[test]
fn the_corpus_leaves_the_splits_out() {
    let prompt = |name| crate::prompt::PromptTemplate::by_name(name).unwrap();
    let documents = |excluded| {
        Corpus::new(4, (prompt("basic"), prompt("hint")), excluded)
            .unwrap()
            .take(300)
    };
    let question = |document: &String| {
        let (_, after) = document.split_once("Q: ")?;
        Some(after.split('\n').next()?.to_owned())
    };
    let told: HashSet<String> = documents(HashSet::new())
        .filter_map(|document| question(&document))
        .collect();
    assert!(told.len() > 200);
    let clean: HashSet<String> = documents(told.clone())
        .filter_map(|document| question(&document))
        .collect();
    assert!(told.is_disjoint(&clean));
}
