use std::{collections::BTreeMap, time::Duration};

use data::record::Decoding;

use super::*;
use crate::{
    fake_server::{Act, FakeServer},
    request::Prompt,
};

fn item(name: &str) -> Item {
    Item {
        request_id: name.to_owned(),
        prompt: Prompt::Text(name.to_owned()),
        decoding: Decoding::greedy(16),
        seed: 0,
    }
}

/// Everything happens at once in tests: waits of a millisecond.
fn quick() -> BulkLimits {
    let ms = Duration::from_millis;
    BulkLimits {
        max_in_flight: 8,
        patience: Duration::from_secs(20),
        stall: Duration::from_secs(20),
        max_tries: 3,
        backoff: Backoff {
            start: ms(1),
            max: ms(4),
        },
    }
}

/// Runs `count` items and gives each one's outcomes.
async fn run(
    server: &FakeServer,
    count: usize,
    limits: BulkLimits,
) -> (Bulk, BTreeMap<String, Vec<Outcome>>) {
    let mut bulk = Bulk::new(server.connect().await, limits);
    for index in 0..count {
        bulk.submit(item(&format!("item-{index}")));
    }
    let mut outcomes: BTreeMap<String, Vec<Outcome>> = BTreeMap::new();
    while let Some(finished) = bulk.next().await.unwrap() {
        outcomes
            .entry(finished.request_id)
            .or_default()
            .push(finished.outcome);
    }
    (bulk, outcomes)
}

fn all_answered_once(outcomes: &BTreeMap<String, Vec<Outcome>>, count: usize) {
    assert_eq!(outcomes.len(), count);
    for (id, outcomes) in outcomes {
        assert!(
            matches!(outcomes.as_slice(), [Outcome::Answer(_)]),
            "{id}: {outcomes:?}"
        );
    }
}

/// Every item is answered once, with its own answer, never more than the limit in flight.
#[tokio::test]
async fn every_item_is_answered_once() {
    let server = FakeServer::start(|text, _| Act::Say(format!("re: {text}"))).await;
    let (bulk, outcomes) = run(&server, 500, quick()).await;
    all_answered_once(&outcomes, 500);
    for (id, outcomes) in &outcomes {
        let [Outcome::Answer(answer)] = outcomes.as_slice() else {
            unreachable!()
        };
        assert_eq!(answer.text, format!("re: {id}"));
    }
    assert_eq!(bulk.counts().num_streams, 1);
    assert_eq!(bulk.counts().num_answered, 500);
}

/// A server's credits are never overdrawn, also after a break, and everything is answered.
#[tokio::test]
async fn credits_are_respected() {
    let server = FakeServer::start(|text, times| match times {
        0 if text == "item-50" => Act::BreakStream,
        0 if text.ends_with('3') => Act::Refuse(Code::ResourceExhausted),
        _ => Act::Say("ok".to_owned()),
    })
    .await;
    server.set_window(3);
    let (bulk, outcomes) = run(&server, 200, quick()).await;
    all_answered_once(&outcomes, 200);
    assert_eq!(server.num_uncovered(), 0);
    assert_eq!(bulk.counts().num_streams, 2);
}

/// An item that somebody ended on the server is not asked again.
#[tokio::test]
async fn aborted_items_stay_aborted() {
    let server = FakeServer::start(|text, times| match (text, times) {
        ("item-1", 0) => Act::Refuse(Code::Cancelled),
        _ => Act::Say("ok".to_owned()),
    })
    .await;
    let (bulk, outcomes) = run(&server, 3, quick()).await;
    assert_eq!(
        (bulk.counts().num_answered, bulk.counts().num_failed),
        (2, 1)
    );
    assert!(matches!(
        outcomes["item-1"][0],
        Outcome::Failed {
            code: "CANCELLED",
            ..
        }
    ));
}

/// A full queue is waited for, however often it refuses.
#[tokio::test]
async fn refused_items_are_asked_again() {
    let server = FakeServer::start(|text, times| match times {
        0..6 if text.ends_with('3') => Act::Refuse(Code::ResourceExhausted),
        0 if text.ends_with('5') => Act::Refuse(Code::Unavailable),
        _ => Act::Say("ok".to_owned()),
    })
    .await;
    let (bulk, outcomes) = run(&server, 60, quick()).await;
    all_answered_once(&outcomes, 60);
    assert_eq!(bulk.counts().num_retries, 6 * 6 + 6);
}

/// A broken stream loses nothing and doubles nothing: only unanswered items go out again.
#[tokio::test]
async fn broken_streams_are_survived() {
    let server = FakeServer::start(|text, times| {
        if times == 0 && text.ends_with('7') {
            Act::BreakStream
        } else {
            Act::Say("ok".to_owned())
        }
    })
    .await;
    let (bulk, outcomes) = run(&server, 100, quick()).await;
    all_answered_once(&outcomes, 100);
    assert!(bulk.counts().num_streams > 1);
    assert!(bulk.counts().num_resent > 0);
}

/// A silent server is left alone while it computes; once it does not, what is unanswered is asked
/// again on a new stream.
#[tokio::test]
async fn slow_is_not_stalled() {
    let server = FakeServer::start(|_, times| match times {
        0 => Act::KeepSilent,
        _ => Act::Say("ok".to_owned()),
    })
    .await;
    server.compute_for(3);
    let limits = BulkLimits {
        // A new connection takes its first answer up to 40 ms (delayed acknowledgement).
        stall: Duration::from_millis(200),
        ..quick()
    };
    let (bulk, outcomes) = run(&server, 4, limits).await;
    all_answered_once(&outcomes, 4);
    assert_eq!(server.num_generated_tokens(), 3);
    assert_eq!(bulk.counts().num_streams, 2);
    assert_eq!(bulk.counts().num_resent, 4);
}

/// A wrong request fails at once; one that breaks the engine a few times is given up; the others
/// are answered.
#[tokio::test]
async fn hopeless_items_fail_alone() {
    let server = FakeServer::start(|text, times| match text {
        "item-1" => Act::Refuse(Code::InvalidArgument),
        "item-2" => Act::Refuse(Code::Internal),
        "item-3" if times < 2 => Act::Refuse(Code::Internal),
        _ => Act::Say("ok".to_owned()),
    })
    .await;
    let (bulk, outcomes) = run(&server, 10, quick()).await;
    let failed = |id: &str, expected: &str| matches!(outcomes[id].as_slice(), [Outcome::Failed { code, .. }] if *code == expected);
    assert!(failed("item-1", "INVALID_ARGUMENT"));
    assert!(failed("item-2", "INTERNAL"));
    assert_eq!(bulk.counts().num_answered, 8);
    assert_eq!(bulk.counts().num_failed, 2);
}

/// Work may be added while answers come, also after everything was finished.
#[tokio::test]
async fn items_can_be_added_on_the_way() {
    let server = FakeServer::start(|_, _| Act::Say("ok".to_owned())).await;
    let mut bulk = Bulk::new(server.connect().await, quick());
    bulk.submit(item("first"));
    let mut order = Vec::new();
    while let Some(finished) = bulk.next().await.unwrap() {
        if finished.request_id == "first" {
            bulk.submit(item("second"));
        }
        order.push(finished.request_id);
    }
    bulk.submit(item("third"));
    order.push(bulk.next().await.unwrap().unwrap().request_id);
    assert_eq!(order, ["first", "second", "third"]);
    assert_eq!(bulk.next().await.unwrap(), None);
}

/// A server that never answers ends the run with a sentence, not with a hang.
#[tokio::test]
async fn an_absent_server_ends_the_run() {
    let server = FakeServer::start(|_, _| Act::Refuse(Code::Unavailable)).await;
    let limits = BulkLimits {
        patience: Duration::from_millis(500),
        ..quick()
    };
    let mut bulk = Bulk::new(server.connect().await, limits);
    bulk.submit(item("never"));
    let error = bulk.next().await.unwrap_err();
    assert!(
        matches!(error, ClientError::GaveUp { unfinished: 1, .. }),
        "{error}"
    );
    assert!(error.to_string().contains("UNAVAILABLE"), "{error}");
}

/// Dropping `next` half-way (Ctrl-C, a timer) loses no item.
#[tokio::test]
async fn a_dropped_wait_loses_nothing() {
    let server = FakeServer::start(|_, _| Act::Say("ok".to_owned())).await;
    let mut bulk = Bulk::new(server.connect().await, quick());
    for index in 0..50 {
        bulk.submit(item(&format!("item-{index}")));
    }
    let mut ids = std::collections::BTreeSet::new();
    let mut num_polls = 0;
    while bulk.num_unfinished() > 0 {
        // Polled once or twice, then dropped.
        let next = bulk.next();
        tokio::select! {
            biased;
            finished = next => {
                let finished = finished.unwrap().unwrap();
                assert!(ids.insert(finished.request_id), "answered twice");
            }
            () = tokio::task::yield_now() => num_polls += 1,
        }
    }
    assert_eq!(ids.len(), 50);
    assert!(num_polls > 0, "the wait was never dropped");
}
