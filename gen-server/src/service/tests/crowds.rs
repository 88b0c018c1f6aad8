//! Many calls at once: thousands of streams, cancels, readers who do not read.

use std::time::Instant;

use futures::{StreamExt as _, stream};

use super::*;
use crate::engine::fake::solo_answer;

/// As many as GSM8K has training questions.
const NUM_QUESTIONS: u32 = 7_473;

/// Opens [`NUM_QUESTIONS`] streams at once, in turn over `clients`; each must be answered rightly.
async fn check_streams(server: &TestServer, clients: &[GenerationClient<Channel>]) {
    let start = Instant::now();
    let streams = (0..NUM_QUESTIONS).map(|index| {
        let mut client = clients[index as usize % clients.len()].clone();
        async move {
            let asked = request(&index.to_string(), &prompt(index), 64);
            let stream = client.generate_stream(asked).await.unwrap().into_inner();
            let all = collected(stream).await.unwrap();
            assert_eq!(all.token_ids, solo_answer(&prompt(index), 64, 1));
        }
    });
    futures::future::join_all(streams).await;
    eprintln!("{} connections: {:?}", clients.len(), start.elapsed());
    server.wait_until_idle().await;
}

/// A stream for each training question of GSM8K, all at once on one connection: none is lost, and
/// the connection holds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_streams_share_a_connection() {
    let server = Setup::default().start().await;
    let client = server.generation().await;
    check_streams(&server, &[client]).await;
    server.stop().await.unwrap();
}

/// The same over eight connections.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_streams_share_eight_connections() {
    let server = Setup::default().start().await;
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(server.generation().await);
    }
    check_streams(&server, &clients).await;
    server.stop().await.unwrap();
}

/// Readers who do not read, of streams and of a batch, stall nobody, on their own connection or on
/// another, and find their answers whole when they come back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_readers_stall_nobody() {
    let server = Setup::default().start().await;
    // A window of a few messages: the server soon has nowhere to put more.
    let narrow = Endpoint::from_shared(format!("http://{}", server.address)).unwrap();
    let narrow = narrow.initial_stream_window_size(256).connect().await;
    let mut slow = GenerationClient::new(narrow.unwrap());
    let mut streams = Vec::new();
    for index in 0..100_u32 {
        let asked = request(&format!("slow-{index}"), &prompt(index), 200);
        streams.push(slow.generate_stream(asked).await.unwrap().into_inner());
    }
    let mut batch = slow
        .generate_batch(batches::items(1_000))
        .await
        .unwrap()
        .into_inner();
    let mut same_connection = slow.clone();
    let mut other_connection = server.generation().await;
    for index in 0..200_u32 {
        for client in [&mut same_connection, &mut other_connection] {
            let asked = request("", &prompt(index), 20);
            let answer = only(client.generate(asked).await.unwrap().into_inner());
            assert_eq!(answer.token_ids, solo_answer(&prompt(index), 20, 1));
        }
    }
    for (index, stream) in (0..).zip(streams) {
        let all = collected(stream).await.unwrap();
        assert_eq!(all.token_ids, solo_answer(&prompt(index), 200, 1));
    }
    let mut num_answers = 0;
    while let Some(message) = batch.message().await.unwrap() {
        num_answers += u32::from(message.result.is_some());
    }
    assert_eq!(num_answers, 1_000);
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
    let canary = client
        .clone()
        .generate_stream(request("canary", &[1], 50))
        .await
        .unwrap()
        .into_inner();
    let storm: Vec<_> = (0..5_000_u32)
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
    let all = collected(canary).await.unwrap();
    assert_eq!(all.token_ids, solo_answer(&[1], 50, 1));
    server.wait_until_idle().await;
    server.stop().await.unwrap();
}
