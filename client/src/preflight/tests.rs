use data::select::{Gate, Policy};

use super::*;
use crate::{
    bootstrap::bootstrap,
    eval::evaluate,
    fake_server::{Act, FakeServer},
    test_support::{context, method, questions},
};

const NUM_QUESTIONS_ASKED: u32 = 200;

/// Right for every question; every `cut_every`-th answer is cut.
fn script(cut_every: u64) -> impl Fn(&str, u32) -> Act + Send + Sync {
    move |text, _| {
        let index: u64 = text.rsplit(' ').next().unwrap().parse().unwrap();
        if index.is_multiple_of(cut_every) {
            Act::Cut("It is 1 + ".to_owned())
        } else {
            Act::Say(format!("So {index}.\n#### {index}"))
        }
    }
}

fn look_of(num_usable: u64, num_cut: u64) -> Look {
    Look {
        num_answers: 64,
        num_usable,
        num_cut,
        max_tokens: 256,
        rule: "numeric".to_owned(),
    }
}

/// Nothing is said of good answers, a doubt is no certainty, and a certainty names its numbers.
#[test]
fn troubles_are_told_from_chance() {
    assert_eq!(look_of(63, 1).troubles(), []);
    let certain =
        |look: Look| -> Vec<bool> { look.troubles().iter().map(|it| it.is_certain).collect() };
    assert_eq!(certain(look_of(61, 3)), [false]);
    assert_eq!(certain(look_of(56, 0)), [false]);
    assert_eq!(certain(look_of(50, 0)), [true]);
    assert_eq!(certain(look_of(53, 11)), [true, false]);
    let text = look_of(40, 11).text();
    assert!(
        text.contains("cut          11/64 = 17.2 %") && text.contains("256 tokens"),
        "{text}"
    );
}

/// A long run whose answers are cut stops after the first ones, keeps them, and goes on from them
/// where the user insists.
#[tokio::test]
async fn a_bad_start_stops_the_run() {
    let server = FakeServer::start(script(4)).await;
    let dir = tempfile::tempdir().unwrap();
    let context = context(&server).await;
    let set = questions(NUM_QUESTIONS_ASKED);
    let run = |context: Context| {
        let set = set.clone();
        let out = dir.path().to_owned();
        async move { evaluate(&context, method(0), &set, &out, "eval").await }
    };
    let error = run(context.clone()).await.unwrap_err().to_string();
    assert!(
        error.contains("16 of the first 64 answers were cut") && error.contains("--no-preflight"),
        "{error}"
    );
    assert_eq!(server.num_requests(), 64);
    let insisting = Context {
        preflight: OnTrouble::Warn,
        ..context
    };
    let summary = run(insisting).await.unwrap();
    assert_eq!(summary.counts.attempts, u64::from(NUM_QUESTIONS_ASKED));
    assert_eq!(summary.counts.truncated, 50);
    let work = summary.work;
    assert_eq!((work.num_made, work.num_resumed), (136, 64));
}

/// A good start is followed by the rest, and nothing is asked twice.
#[tokio::test]
async fn a_good_start_goes_on() {
    let server = FakeServer::start(script(1000)).await;
    let dir = tempfile::tempdir().unwrap();
    let context = context(&server).await;
    let set = questions(NUM_QUESTIONS_ASKED);
    let summary = evaluate(&context, method(0), &set, dir.path(), "eval")
        .await
        .unwrap();
    assert_eq!(server.num_requests(), NUM_QUESTIONS_ASKED as usize);
    let work = summary.work;
    assert_eq!((work.num_made, work.num_resumed), (200, 0));
}

/// The command's two looks at the same answers: to be judged, and to be trained on.
#[tokio::test]
async fn a_probe_looks_twice_and_asks_once() {
    let server = FakeServer::start(|_, _| Act::Say("So 7 of them".to_owned())).await;
    let dir = tempfile::tempdir().unwrap();
    let context = context(&server).await;
    let set = questions(NUM_QUESTIONS_ASKED);
    let probe = probe(&context, (method(0), Gate::Reject), &set, dir.path())
        .await
        .unwrap();
    assert_eq!(server.num_requests(), 64);
    assert_eq!(
        (probe.evaluation.num_usable, probe.training.num_usable),
        (64, 0)
    );
    assert!(
        probe.is_bad() && probe.text().contains("0/64"),
        "{}",
        probe.text()
    );
}

/// Answers without a marker are enough to be judged, but not to be trained on: bootstrapping stops
/// where an evaluation goes on, unless such answers are accepted.
#[tokio::test]
async fn what_is_usable_depends_on_the_plan() {
    let server = FakeServer::start(|text, _| {
        let index = text.rsplit(' ').next().unwrap().to_owned();
        Act::Say(format!("So we have {index} of them"))
    })
    .await;
    let context = context(&server).await;
    let set = questions(NUM_QUESTIONS_ASKED);
    let eval_dir = tempfile::tempdir().unwrap();
    evaluate(&context, method(0), &set, eval_dir.path(), "eval")
        .await
        .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let error = bootstrap(&context, method(0), Policy::sound(), &set, dir.path())
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("only 0 of the first 64"), "{error}");
    let lenient = Policy {
        fallback: Gate::Accept,
        ..Policy::sound()
    };
    let dir = tempfile::tempdir().unwrap();
    bootstrap(&context, method(0), lenient, &set, dir.path())
        .await
        .unwrap();
}
