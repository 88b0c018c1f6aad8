use std::path::Path;

use super::*;
use crate::{
    eval::evaluate,
    fake_server::{Act, FakeServer},
    test_support::{context, method, questions},
};

/// Right for the first `count` questions.
async fn server(count: u64) -> FakeServer {
    FakeServer::start(move |text, _| {
        let index: u64 = text.rsplit(' ').next().unwrap().parse().unwrap();
        Act::Say(if index < count {
            format!("#### {index}")
        } else {
            "#### -1".to_owned()
        })
    })
    .await
}

async fn run(count: u64, seed: u64, num_questions: u32, dir: &Path) {
    let server = server(count).await;
    let context = context(&server).await;
    evaluate(
        &context,
        method(seed),
        &questions(num_questions),
        dir,
        "eval",
    )
    .await
    .unwrap();
}

fn how(strictness: Strictness) -> How {
    How {
        strictness,
        max_examples: 3,
    }
}

fn compared(a: &Path, b: &Path, strictness: Strictness) -> Result<ComparedRuns, ClientError> {
    Run::read(a)?.against(&Run::read(b)?, how(strictness))
}

fn single(compared: &ComparedRuns) -> &Comparison {
    match &compared.outcome {
        Outcome::Single(comparison) => comparison,
        Outcome::Sampled(comparison) => panic!("{comparison:?}"),
    }
}

/// Ten discordant questions, all one way: p = 2 / 2^10. Some are shown with the ends of both
/// outputs; nothing is called worse.
#[tokio::test]
async fn pairs_are_counted() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    run(5, 0, 20, a.path()).await;
    run(15, 0, 20, b.path()).await;
    let compared = compared(a.path(), b.path(), Strictness::Refuse).unwrap();
    assert_eq!(compared.differences, []);
    let expected = PairedCounts {
        both_right: 5,
        only_first: 0,
        only_second: 10,
        both_wrong: 5,
    };
    let comparison = single(&compared);
    assert_eq!(comparison.counts, expected);
    assert!((comparison.p_value - 2.0 / 1024.0).abs() < 1e-12);
    assert!((comparison.difference - 0.5).abs() < 1e-12);
    assert!((compared.significant, compared.worse) == (true, false));
    assert_eq!((compared.fixed.total, compared.broken.total), (10, 0));
    let text = compared.text();
    assert!(text.contains("+50.00 points"), "{text}");
    assert!(!text.contains("WARNING"), "{text}");
    assert!(text.contains(": 3 of 10 questions"), "{text}");
    // Without the question file the id stands for the question.
    assert!(text.contains("  q10 (gold 10)"), "{text}");
    assert!(text.contains(": wrong: #### -1"), "{text}");
    assert!(text.contains(": right: #### 10"), "{text}");
}

/// A run below the untouched model is called worse, and significantly so only where the paired test
/// says it; JSON says the same.
#[tokio::test]
async fn a_worse_run_is_told() {
    let untouched = tempfile::tempdir().unwrap();
    run(15, 0, 20, untouched.path()).await;
    for (num_right, significant) in [(14, false), (5, true)] {
        let other = tempfile::tempdir().unwrap();
        run(num_right, 0, 20, other.path()).await;
        let compared = compared(untouched.path(), other.path(), Strictness::Refuse).unwrap();
        assert!(compared.worse);
        let text = compared.text();
        let warning = text.lines().next().unwrap();
        assert!(warning.starts_with("WARNING: "), "{text}");
        assert_eq!(
            warning.contains("significantly worse"),
            significant,
            "{text}"
        );
        let json = serde_json::to_value(&compared).unwrap();
        assert_eq!(json["worse"], true);
        assert_eq!(json["significant"], significant);
        assert_eq!(json["counts"]["only_first"], 15 - num_right);
        assert_eq!(json["broken"]["total"], 15 - num_right);
    }
}

/// Where the question file is still the one that was asked, examples have their questions, in its
/// order and whatever its fields are called.
#[tokio::test]
async fn examples_have_their_questions() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("questions.jsonl");
    let line = |index: u32| {
        format!(
            "{{\"id\": \"q{index}\", \"problem\": \"Now {index}\", \"answer\": \"#### {index}\"}}\n"
        )
    };
    std::fs::write(&file, (0..12).rev().map(line).collect::<String>()).unwrap();
    let keys = crate::dataset::Keys {
        question: Some("problem".to_owned()),
        answer: None,
    };
    let questions = crate::session::Questions::read_keys(&file, &keys, None).unwrap();
    for (name, num_right) in [("a", 2), ("b", 12)] {
        let server = server(num_right).await;
        let context = context(&server).await;
        let out = dir.path().join(name);
        evaluate(&context, method(0), &questions, &out, "eval")
            .await
            .unwrap();
    }
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    let shown = || compared(&a, &b, Strictness::Refuse).unwrap().fixed.shown;
    let texts: Vec<Option<String>> = shown().into_iter().map(|it| it.question).collect();
    let expected = ["Now 11", "Now 10", "Now 9"].map(|text| Some(text.to_owned()));
    assert_eq!(texts, expected);
    std::fs::write(&file, line(3)).unwrap();
    assert!(shown().iter().all(|example| example.question.is_none()));
}

/// Several samples: the questions are paired by the shares of their samples, and there is no
/// McNemar.
#[tokio::test]
async fn samples_are_paired_by_question() {
    let dir = tempfile::tempdir().unwrap();
    for (name, always) in [("a", false), ("b", true)] {
        let server = FakeServer::start(move |text, _| {
            let is_first = text.ends_with('0');
            Act::Say(
                if is_first && always {
                    "#### 0"
                } else {
                    "#### 1"
                }
                .to_owned(),
            )
        })
        .await;
        let context = context(&server).await;
        let method = crate::session::Method {
            sampling: crate::sampling::Sampling::only(2),
            ..method(0)
        };
        let out = dir.path().join(name);
        evaluate(&context, method, &questions(3), &out, "eval")
            .await
            .unwrap();
    }
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    let compared = compared(&a, &b, Strictness::Refuse).unwrap();
    let Outcome::Sampled(comparison) = &compared.outcome else {
        panic!("{compared:?}")
    };
    // Differences 1, 0 and 0: mean 1/3, variance of the mean (4/9 + 1/9 + 1/9) / 2 / 3 = 1/9.
    assert!((comparison.difference - 1.0 / 3.0).abs() < 1e-12);
    assert!((comparison.standard_error - 1.0 / 3.0).abs() < 1e-12);
    assert_eq!((comparison.num_better, comparison.num_worse), (1, 0));
    assert!(!compared.significant && !compared.worse);
    let text = compared.text();
    assert!(!text.contains("McNemar"), "{text}");
    assert!(text.contains("1 better, 0 worse, 2 equal"), "{text}");
}

/// Runs with other settings are refused, and each setting is named; --force compares them.
#[tokio::test]
async fn other_methods_are_refused() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    run(5, 0, 8, a.path()).await;
    run(5, 1, 8, b.path()).await;
    let error = compared(a.path(), b.path(), Strictness::Refuse)
        .unwrap_err()
        .to_string();
    assert!(error.contains("seed (0 against 1)"), "{error}");
    let forced = compared(a.path(), b.path(), Strictness::Force).unwrap();
    assert_eq!(forced.differences.len(), 1);
    assert_eq!(single(&forced).counts.num_questions(), 8);
    assert!(
        forced
            .text()
            .starts_with("WARNING: seed differs: 0 against 1")
    );
}

/// Other questions cannot be paired at all.
#[tokio::test]
async fn other_questions_cannot_be_paired() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    run(5, 0, 8, a.path()).await;
    run(5, 0, 9, b.path()).await;
    for (a, b) in [(&a, &b), (&b, &a)] {
        let error = compared(a.path(), b.path(), Strictness::Refuse).unwrap_err();
        assert!(matches!(error, ClientError::OtherMethod(_)), "{error}");
        assert!(error.to_string().contains("8 questions, "), "{error}");
        // Nobody is told to force what cannot be forced.
        let error = compared(a.path(), b.path(), Strictness::Force).unwrap_err();
        assert!(matches!(error, ClientError::NotComparable(_)), "{error}");
        assert!(!error.to_string().contains("--force"), "{error}");
    }
}

/// An evaluation that was stopped half-way has no accuracy to compare.
#[tokio::test]
async fn unfinished_runs_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    run(5, 0, 8, dir.path()).await;
    let log = dir.path().join("attempts.jsonl");
    let lines = std::fs::read_to_string(&log).unwrap();
    let half: String = lines.split_inclusive('\n').take(4).collect();
    std::fs::write(&log, half).unwrap();
    let error = Run::read(dir.path()).unwrap_err().to_string();
    assert!(error.contains("4 of 8 answers are there"), "{error}");
}
