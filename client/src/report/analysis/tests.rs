//! What is seen of answers, on a handful of them.

use data::{
    answer::Rule,
    number::Number,
    record::{Decoding, FinishReason, PromptStamp, WeightsStamp},
};

use super::*;

pub(in crate::report) fn question(index: u32, steps: u32) -> Question {
    let lines: String = (0..steps).map(|step| format!("Step {step}.\n")).collect();
    Question {
        id: format!("q{index}"),
        question: format!("What is <{index}>?"),
        answer: format!("{lines}#### {index}"),
        gold: number(index),
    }
}

fn number(value: u32) -> Number {
    Number::parse(&value.to_string()).unwrap()
}

pub(in crate::report) fn attempt(index: u32, verdict: Verdict, num_tokens: u32) -> Attempt {
    let is_right = verdict == Verdict::Right;
    Attempt {
        dataset_sha256: "ab".repeat(32),
        question_id: format!("q{index}"),
        iteration: 0,
        source: Source::Forward,
        sample: 0,
        weights: WeightsStamp {
            version: 1,
            digest: "cd".repeat(32),
            checkpoint: "base".to_owned(),
        },
        prompt: PromptStamp {
            name: "basic".to_owned(),
            digest: "ef".repeat(32),
        },
        template: None,
        decoding: Decoding::greedy(64),
        seed: 0,
        text: format!("<i>{verdict}</i> {index}"),
        num_tokens,
        finish_reason: if verdict == Verdict::Truncated {
            FinishReason::Length
        } else {
            FinishReason::Stop
        },
        rule: Rule::Numeric,
        value: Some(number(if is_right { index } else { index + 1 })),
        gold: number(index),
        verdict,
        flags: Vec::new(),
        leaks: Vec::new(),
    }
}

pub(in crate::report) fn hint(index: u32, verdict: Verdict, leaks: &[LeakReason]) -> Attempt {
    Attempt {
        source: Source::Hint,
        leaks: leaks.to_vec(),
        ..attempt(index, verdict, 10)
    }
}

/// Every answer is in one bin, cut ones are counted in the same bin, and all models have the same
/// bins, of which there are at most forty.
#[test]
fn lengths_close() {
    let short = vec![
        attempt(0, Verdict::Right, 1),
        attempt(1, Verdict::Wrong, 50),
    ];
    let long = vec![
        attempt(0, Verdict::Right, 51),
        attempt(1, Verdict::Truncated, 256),
        attempt(2, Verdict::Right, 0),
    ];
    let questions: Vec<Question> = (0..3).map(|index| question(index, 1)).collect();
    let models = [("short", &short), ("long", &long)];
    let models = models.map(|(name, attempts)| Evaluated { name, attempts });
    let analysis = analyse(&questions, &models, &[]);
    let [short, long] = &analysis.models[..] else {
        panic!("two models");
    };
    // 256 tokens in 40 bins: more than 5 tokens each, so 10.
    assert_eq!(
        (short.lengths.bin_tokens, long.lengths.bin_tokens),
        (10, 10)
    );
    assert_eq!(short.lengths.bins, [1, 0, 0, 0, 1]);
    assert_eq!((long.lengths.bins.len(), long.lengths.bins[25]), (26, 1));
    assert_eq!(long.lengths.bins[0] + long.lengths.bins[5], 2);
    assert_eq!((long.lengths.num_answers(), long.lengths.num_cut()), (3, 1));
    assert_eq!((long.lengths.cut_bins[25], long.lengths.limit), (1, 64));
    assert_eq!(analysis.hints, None);
}

/// Steps are lines before `####`, or annotations in a single line; an answer that is only a number
/// has none.
#[test]
fn steps_are_lines_or_annotations() {
    for (answer, steps) in [
        ("a\nb\n#### 3", Some(2)),
        ("a\n\n  \nb <<1+1=2>> <<2+2=4>>\n#### 3", Some(2)),
        ("a <<1+1=2>> then <<2+1=3>>\n#### 3", Some(2)),
        ("a\n#### 3", Some(1)),
        ("#### 3", None),
        ("3", None),
    ] {
        assert_eq!(num_steps(answer), steps, "{answer:?}");
    }
}

/// All answered questions are in the table or among those without steps; many steps share a row.
#[test]
fn steps_close() {
    let mut questions: Vec<Question> = [1, 2, 2, 9, 11]
        .into_iter()
        .zip(0..)
        .map(|(steps, index)| question(index, steps))
        .collect();
    questions.push(question(5, 0));
    let attempts: Vec<Attempt> = (0..6)
        .map(|index| {
            let verdict = [Verdict::Right, Verdict::Wrong][index as usize % 2];
            attempt(index, verdict, 5)
        })
        .collect();
    let model = Evaluated {
        name: "base",
        attempts: &attempts,
    };
    let analysis = analyse(&questions, &[model], &[]);
    let model = &analysis.models[0];
    let rows: Vec<(u32, u64, u64)> = model
        .steps
        .iter()
        .map(|row| (row.steps, row.questions, row.right))
        .collect();
    assert_eq!(rows, [(1, 1, 1), (2, 2, 1), (MAX_STEPS, 2, 1)]);
    let in_table: u64 = model.steps.iter().map(|row| row.questions).sum();
    assert_eq!(in_table + model.num_without_steps, attempts.len() as u64);
}

/// Flips are counted whole and shown in part, the same part whatever the order of the log; long
/// texts lose their middle, between characters.
#[test]
fn flips_are_counted_and_shown() {
    let questions: Vec<Question> = (0..10).map(|index| question(index, 1)).collect();
    let verdicts = |right: &dyn Fn(u32) -> bool| -> Vec<Attempt> {
        let verdict = |index| {
            if right(index) {
                Verdict::Right
            } else {
                Verdict::Wrong
            }
        };
        (0..10)
            .map(|index| attempt(index, verdict(index), 5))
            .collect()
    };
    let before = verdicts(&|index| index < 2);
    let mut after = verdicts(&|index| index > 0);
    for attempt in &mut after {
        attempt.text = "é".repeat(4000);
    }
    let look = |after: &[Attempt]| {
        let models = [("base", &before[..]), ("tuned", after)];
        let models = models.map(|(name, attempts)| Evaluated { name, attempts });
        analyse(&questions, &models, &[])
    };
    let analysis = look(&after);
    assert_eq!(
        (analysis.fixed.num_questions, analysis.fixed.examples.len()),
        (8, 3)
    );
    assert_eq!(
        (
            analysis.broken.num_questions,
            analysis.broken.examples.len()
        ),
        (1, 1)
    );
    let broken = &analysis.broken.examples[0];
    assert_eq!(broken.question_id, "q0");
    assert_eq!(
        (broken.before.verdict, broken.after.verdict),
        (Verdict::Right, Verdict::Wrong)
    );
    assert!(
        broken
            .after
            .text
            .contains("[... 2500 characters left out ...]")
    );
    after.reverse();
    assert_eq!(look(&after), analysis);
    // Of several samples the first counts.
    let mut second = attempt(0, Verdict::Right, 5);
    second.sample = 1;
    after.push(second);
    assert_eq!(look(&after), analysis);
}

/// Leaks are counted by reason, an attempt with two reasons in both, and those that were right apart.
#[test]
fn leaks_are_counted_by_reason() {
    use LeakReason::{KnownAnswer, Underived};
    let attempts = [
        hint(0, Verdict::Right, &[]),
        hint(1, Verdict::Right, &[KnownAnswer, Underived]),
        hint(2, Verdict::Wrong, &[Underived]),
        attempt(3, Verdict::Right, 5),
    ];
    let hints = analyse(&[], &[], &attempts).hints.unwrap();
    assert_eq!(
        (hints.attempts, hints.right, hints.right_and_leaking),
        (3, 2, 1)
    );
    let counts = hints
        .reasons
        .iter()
        .map(|it| (it.reason, it.attempts, it.right));
    assert_eq!(
        counts.collect::<Vec<_>>(),
        [(KnownAnswer, 1, 1), (Underived, 2, 1)]
    );
}

/// The analysis of a test set as large as GSM8K's stays small.
#[test]
fn an_analysis_is_small() {
    let questions: Vec<Question> = (0..1319).map(|index| question(index, index % 9)).collect();
    let attempts = |shift: u32| -> Vec<Attempt> {
        (0..1319)
            .map(|index| {
                let verdict = Verdict::ALL[((index + shift) % 4) as usize];
                let mut attempt = attempt(index, verdict, index % 1025);
                attempt.text = "word ".repeat(1000);
                attempt
            })
            .collect()
    };
    let (before, after) = (attempts(0), attempts(1));
    let models = [("base", &before[..]), ("tuned", &after[..])];
    let models = models.map(|(name, attempts)| Evaluated { name, attempts });
    let analysis = analyse(&questions, &models, &before);
    let bytes = serde_json::to_vec(&analysis).unwrap();
    assert!(bytes.len() < 32_000, "{} bytes", bytes.len());
    let back: Analysis = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(back, analysis);
}
