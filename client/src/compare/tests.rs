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

/// Ten discordant questions, all one way: p = 2 / 2^10.
#[tokio::test]
async fn pairs_are_counted() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    run(5, 0, 20, a.path()).await;
    run(15, 0, 20, b.path()).await;
    let (comparison, differences) =
        compare_folders(a.path(), b.path(), Strictness::Refuse).unwrap();
    assert_eq!(differences, []);
    let expected = PairedCounts {
        both_right: 5,
        only_first: 0,
        only_second: 10,
        both_wrong: 5,
    };
    assert_eq!(comparison.counts, expected);
    assert!((comparison.p_value - 2.0 / 1024.0).abs() < 1e-12);
    assert!((comparison.difference - 0.5).abs() < 1e-12);
    assert!(
        comparison.text().contains("+50.00 points"),
        "{}",
        comparison.text()
    );
}

/// Runs with other settings are refused, and the setting is named; --force compares them.
#[tokio::test]
async fn other_methods_are_refused() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    run(5, 0, 8, a.path()).await;
    run(5, 1, 8, b.path()).await;
    let error = compare_folders(a.path(), b.path(), Strictness::Refuse)
        .unwrap_err()
        .to_string();
    assert!(error.contains("seed (0 against 1)"), "{error}");
    let (comparison, differences) = compare_folders(a.path(), b.path(), Strictness::Force).unwrap();
    assert_eq!(differences.len(), 1);
    assert_eq!(comparison.counts.num_questions(), 8);
}

/// Other questions cannot be paired at all.
#[tokio::test]
async fn other_questions_cannot_be_paired() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    run(5, 0, 8, a.path()).await;
    run(5, 0, 9, b.path()).await;
    for strictness in [Strictness::Refuse, Strictness::Force] {
        let error = compare_folders(a.path(), b.path(), strictness).unwrap_err();
        assert!(matches!(error, ClientError::NotComparable(_)), "{error}");
    }
}
