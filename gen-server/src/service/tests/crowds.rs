//! Many requests at once: batches, thousands of streams on one connection, cancels.

use futures::{StreamExt as _, stream};
use tonic::Code;

use super::*;
use crate::engine::fake::solo_answer;

fn items(num_items: u32) -> impl futures::Stream<Item = pb::BatchRequest> + Send + 'static {
    stream::iter((0..num_items).map(|index| pb::BatchRequest {
        request: Some(request(&index.to_string(), &prompt(index), 1 + index % 13)),
    }))
}

async fn check_batch(num_items: u32) {
    let server = Setup::default().start().await;
    let mut client = server.generation().await;
    let mut answers = client
        .generate_batch(items(num_items))
        .await
        .unwrap()
        .into_inner();
    let mut is_answered = vec![false; num_items as usize];
    while let Some(answer) = answers.message().await.unwrap() {
        let index: u32 = answer.request_id.parse().unwrap();
        assert!(!is_answered[index as usize], "{index} is answered twice");
        is_answered[index as usize] = true;
        let Some(pb::batch_response::Result::Response(response)) = answer.result else {
            panic!("{:?}", answer.result)
        };
        let expected = solo_answer(&prompt(index), 1 + index as usize % 13, 1);
        assert_eq!(response.token_ids, expected, "item {index}");
    }
    assert!(is_answered.iter().all(|answered| *answered));
    server.wait_until_idle().await;
    server.stop().await.unwrap();
}

/// As many items as GSM8K has training questions, on one stream: each is answered once, rightly.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_answers_every_item_once() {
    check_batch(7_473).await;
}

/// A wrong item, and one with the id of an item that is under way, fail alone.
#[tokio::test]
async fn a_batch_reports_errors_by_item() {
    let mut server = Setup::gated().start().await;
    let mut client = server.generation().await;
    let item = |request| pb::BatchRequest {
        request: Some(request),
    };
    let asked = vec![
        item(request("a", &[1], 3)),
        item(request("a", &[2], 3)),
        item(request("b", &[500], 3)),
        pb::BatchRequest { request: None },
    ];
    let mut answers = client
        .generate_batch(stream::iter(asked))
        .await
        .unwrap()
        .into_inner();
    let mut codes = Vec::new();
    for _ in 0..3 {
        let answer = answers.message().await.unwrap().unwrap();
        let Some(pb::batch_response::Result::Error(error)) = answer.result else {
            panic!("nothing is computed yet")
        };
        codes.push((answer.request_id, Code::from(error.code)));
    }
    codes.sort_by(|one, two| one.0.cmp(&two.0));
    assert_eq!(codes[0], (String::new(), Code::InvalidArgument));
    assert_eq!(codes[1], ("a".to_owned(), Code::AlreadyExists));
    assert_eq!(codes[2], ("b".to_owned(), Code::InvalidArgument));
    server.open_gate();
    let last = answers.message().await.unwrap().unwrap();
    assert!(matches!(
        last.result,
        Some(pb::batch_response::Result::Response(_))
    ));
    assert!(answers.message().await.unwrap().is_none());
    server.stop().await.unwrap();
}

/// 2,000 streams at once on one connection: none is lost, and the connection holds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_streams_share_a_connection() {
    let server = Setup::default().start().await;
    let client = server.generation().await;
    let streams = (0..2_000_u32).map(|index| {
        let mut client = client.clone();
        async move {
            let asked = request(&index.to_string(), &prompt(index), 64);
            let mut stream = client.generate_stream(asked).await.unwrap().into_inner();
            let mut token_ids = Vec::new();
            while let Some(chunk) = stream.message().await.unwrap() {
                token_ids.extend(chunk.token_ids);
            }
            assert_eq!(token_ids, solo_answer(&prompt(index), 64, 1));
        }
    });
    futures::future::join_all(streams).await;
    server.wait_until_idle().await;
    server.stop().await.unwrap();
}

/// A caller that goes away frees its blocks: unary, stream and batch alike, running or waiting.
#[tokio::test]
async fn cancelled_requests_free_their_blocks() {
    let mut server = Setup::gated().start().await;
    let mut client = server.generation().await;
    let stream = client
        .generate_stream(request("s", &[1; 100], 100))
        .await
        .unwrap();
    let batch_items: Vec<_> = (0..100_u32)
        .map(|index| pb::BatchRequest {
            request: Some(request(&index.to_string(), &[1; 50], 100)),
        })
        .collect();
    let open = stream::iter(batch_items).chain(stream::pending());
    let batch = client.generate_batch(open).await.unwrap();
    let mut unary_client = client.clone();
    let unary =
        tokio::spawn(async move { unary_client.generate(request("u", &[1; 50], 100)).await });
    server.steps(3);
    let mut control = server.control().await;
    let mut num_blocks_used = 0;
    while num_blocks_used == 0 {
        let load = control
            .get_load(pb::GetLoadRequest {})
            .await
            .unwrap()
            .into_inner();
        num_blocks_used = load.num_blocks_used;
    }
    drop((stream, batch));
    unary.abort();
    drop(unary.await);
    server.open_gate();
    server.wait_until_idle().await;
    server.stop().await.unwrap();
}

/// Thousands of calls dropped as soon as they are made do not break another on their connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_cancels_leaves_others_alone() {
    let mut server = Setup::gated().start().await;
    let client = server.generation().await;
    let mut canary = client
        .clone()
        .generate_stream(request("canary", &[1], 50))
        .await
        .unwrap()
        .into_inner();
    let storm: Vec<_> = (0..3_000_u32)
        .map(|index| {
            let mut client = client.clone();
            tokio::spawn(async move {
                drop(client.generate(request(&index.to_string(), &[2], 50)).await);
            })
        })
        .collect();
    tokio::task::yield_now().await;
    for call in &storm {
        call.abort();
    }
    for call in storm {
        drop(call.await);
    }
    server.open_gate();
    let mut token_ids = Vec::new();
    while let Some(chunk) = canary.message().await.unwrap() {
        token_ids.extend(chunk.token_ids);
    }
    assert_eq!(token_ids, solo_answer(&[1], 50, 1));
    server.wait_until_idle().await;
    server.stop().await.unwrap();
}
