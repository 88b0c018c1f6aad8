//! Which texts are paired, and how a pair is written.

use super::{PairOutcome, PairPolicy, PairSet, preference_pairs};
use crate::{
    number::Number,
    prompt::{PromptFormat, PromptTemplate},
    question::Question,
    record::{Attempt, FinishReason, Source, Verdict, tests::attempt},
    select::{Duplicates, Gate},
};

fn question(id: &str) -> Question {
    Question {
        id: id.into(),
        question: format!("{id}?"),
        answer: "#### 18".into(),
        gold: Number::from(18),
    }
}

/// Forward attempts, numbered as samples. A text that ends in `…` was cut.
fn samples(id: &str, texts: &[&str]) -> Vec<Attempt> {
    let numbered = texts.iter().zip(0..);
    let made = numbered.map(|(text, sample)| {
        let made = Attempt {
            sample,
            ..attempt(id, Source::Forward, text, 18)
        };
        if text.ends_with('…') {
            Attempt {
                verdict: Verdict::Truncated,
                finish_reason: FinishReason::Length,
                ..made
            }
        } else {
            made
        }
    });
    made.collect()
}

fn pairs(attempts: &[Attempt], policy: &PairPolicy) -> Vec<(u32, u32)> {
    let set = preference_pairs(&[question("a")], attempts, policy);
    let samples = set.pairs.iter();
    samples
        .map(|pair| (pair.chosen_origin.sample, pair.rejected_origin.sample))
        .collect()
}

/// Every question has one outcome; hints, cut texts and guesses are not paired.
#[test]
fn outcomes_close() {
    use PairOutcome::{NoneRight, NoneUsable, NoneWrong, NotAttempted, Paired};
    let mut attempts = samples("paired", &["#### 17", "#### 18", "#### 18"]);
    attempts.extend(samples("right", &["#### 18", "18", "…"]));
    attempts.extend(samples("wrong", &["#### 17", "eighteen", "…"]));
    attempts.extend(samples("cut", &["…", "it is 18"]));
    attempts.push(attempt("hinted", Source::Hint, "#### 18", 18));
    attempts.push(attempt("stranger", Source::Forward, "#### 18", 18));
    let questions = ["paired", "right", "wrong", "cut", "hinted"].map(question);
    let PairSet { pairs, outcomes } =
        preference_pairs(&questions, &attempts, &PairPolicy::default());
    let expected = [Paired, NoneWrong, NoneRight, NoneUsable, NotAttempted];
    assert_eq!(
        outcomes,
        expected.into_iter().map(|outcome| (outcome, 1)).collect()
    );
    let [pair] = pairs.as_slice() else {
        panic!("{pairs:?}")
    };
    assert_eq!(
        (pair.chosen.as_str(), pair.rejected.as_str()),
        ("#### 18", "#### 17")
    );
    assert_eq!(
        (pair.question_id.as_str(), pair.gold_answer.as_str()),
        ("paired", "18")
    );
}

/// Pairs are all different, and no text is used twice more than another of its side.
#[test]
fn texts_are_used_evenly() {
    for num_right in 1..=6_u32 {
        for num_wrong in 1..=6_u32 {
            let right = (0..num_right).map(|i| format!("way {i}\n#### 18"));
            let wrong = (0..num_wrong).map(|i| format!("way {i}\n#### 17"));
            let texts: Vec<String> = right.chain(wrong).collect();
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            let attempts = samples("a", &texts);
            for max_per_question in 1..=40 {
                let policy = PairPolicy {
                    max_per_question,
                    ..PairPolicy::default()
                };
                let found = pairs(&attempts, &policy);
                let context = format!("{num_right} {num_wrong} {max_per_question}: {found:?}");
                let all = (num_right * num_wrong) as usize;
                assert_eq!(found.len(), all.min(max_per_question), "{context}");
                let different: std::collections::BTreeSet<_> = found.iter().collect();
                assert_eq!(different.len(), found.len(), "{context}");
                let uses = |sample: u32| {
                    let count = |pair: &&(u32, u32)| pair.0 == sample || pair.1 == sample;
                    found.iter().filter(count).count()
                };
                for side in [0..num_right, num_right..num_right + num_wrong] {
                    let (least, most) = (side.clone().map(uses).min(), side.map(uses).max());
                    assert!(most.unwrap() - least.unwrap() <= 1, "{context}");
                }
            }
        }
    }
}

/// Equal texts count once; by equations, other words are no other text.
#[test]
fn duplicates_count_once() {
    let attempts = samples(
        "a",
        &[
            "9 * 2 = 18\n#### 18",
            "So 9 x 2 = 18.\n#### 18",
            "9 * 2 = 18\n#### 18 ",
            "9 * 3 = 27\n#### 27",
        ],
    );
    let policy = PairPolicy {
        max_per_question: 9,
        ..PairPolicy::default()
    };
    assert_eq!(pairs(&attempts, &policy), [(0, 3), (1, 3)]);
    let by_equations = PairPolicy {
        duplicates: Duplicates::Equations,
        ..policy
    };
    assert_eq!(pairs(&attempts, &by_equations), [(0, 3)]);
}

/// Cut texts are rejected ones, and guesses chosen ones, only where that is asked for.
#[test]
fn gates() {
    let attempts = samples("a", &["18", "9 * 2 …", " "]);
    assert_eq!(pairs(&attempts, &PairPolicy::default()), []);
    let open = PairPolicy {
        fallback: Gate::Accept,
        truncated: Gate::Accept,
        max_per_question: 9,
        ..PairPolicy::default()
    };
    assert_eq!(pairs(&attempts, &open), [(0, 1)]);
}

/// The log's order does not matter.
#[test]
fn order_does_not_matter() {
    let mut attempts = samples(
        "a",
        &["#### 18", "so #### 18", "#### 17", "#### 16", "#### 17"],
    );
    let policy = PairPolicy {
        max_per_question: 3,
        ..PairPolicy::default()
    };
    let first = pairs(&attempts, &policy);
    for _ in 0..attempts.len() {
        attempts.rotate_left(1);
        assert_eq!(pairs(&attempts, &policy), first);
    }
}

/// As text, chosen and rejected follow the prompt as a completion does in training; as a chat all
/// three are lists of messages.
#[test]
fn rendered_for_training() {
    let attempts = samples("a", &["Answer: 18", "Answer: 17 "]);
    let set = preference_pairs(&[question("a")], &attempts, &PairPolicy::default());
    let template = PromptTemplate::from_text("t", "Q: {question}\nA:").unwrap();
    let json = |format| {
        let rendered = set.pairs[0].render(&template, format).unwrap();
        serde_json::to_string(&rendered).unwrap()
    };
    assert_eq!(
        json(PromptFormat::Plain),
        r#"{"prompt":"Q: a?\nA:","chosen":" Answer: 18","rejected":" Answer: 17"}"#
    );
    assert_eq!(
        json(PromptFormat::Chat),
        r#"{"prompt":[{"role":"user","content":"Q: a?\nA:"}],"#.to_owned()
            + r#""chosen":[{"role":"assistant","content":"Answer: 18"}],"#
            + r#""rejected":[{"role":"assistant","content":"Answer: 17"}]}"#
    );
    let hint = PromptTemplate::by_name("hint").unwrap();
    assert!(set.pairs[0].render(&hint, PromptFormat::Plain).is_err());
}

/// A pair's line has the report's names first.
#[test]
fn written_as_a_line() {
    let attempts = samples("a", &["Answer: 18", "Answer: 17"]);
    let set = preference_pairs(&[question("a")], &attempts, &PairPolicy::default());
    let line = serde_json::to_string(&set.pairs[0]).unwrap();
    let start = concat!(
        r#"{"question":"a?","gold_answer":"18","chosen":"Answer: 18","rejected":"Answer: 17","#,
        r#""question_id":"a","chosen_origin":{"iteration":0,"sample":0,"seed":0,"#
    );
    assert!(line.starts_with(start), "{line}");
    let read: super::PreferencePair = serde_json::from_str(&line).unwrap();
    assert_eq!(read, set.pairs[0]);
}
