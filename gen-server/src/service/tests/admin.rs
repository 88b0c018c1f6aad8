//! `Abort`, `Drain` and the load.

use futures::{StreamExt as _, stream};
use tonic::Code;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_types::StatusExt as _;

use super::*;
use crate::engine::fake::solo_answer;

async fn abort(server: &TestServer, ids: &[&str]) -> u32 {
    let request_ids = ids.iter().map(|&id| id.to_owned()).collect();
    let mut control = server.control().await;
    let aborted = control.abort(pb::AbortRequest { request_ids }).await;
    aborted.unwrap().into_inner().num_aborted
}

async fn drain(server: &TestServer, wait_ms: Option<u32>) -> u32 {
    let mut control = server.control().await;
    let drained = control.drain(pb::DrainRequest { wait_ms }).await;
    drained.unwrap().into_inner().num_unfinished
}

/// Requests are ended by their ids from any connection: a stream, a whole answer, an item of a batch,
/// a score. Each caller hears CANCELLED and why; the others go on, and what was held is free.
#[tokio::test]
async fn aborts_end_requests_of_every_kind() {
    let mut server = Setup::gated().start().await;
    let mut client = server.generation().await;
    let stream = client
        .generate_stream(request("s", &[1], 50))
        .await
        .unwrap();
    let other = client.generate_stream(request("other", &[3], 50)).await;
    let items = ["b", "kept"].map(|id| pb::BatchRequest {
        request: Some(request(id, &[2], 50)),
    });
    let batch = client.generate_batch(stream::iter(items)).await.unwrap();
    let mut batch = batch.into_inner();
    batches::window(&mut batch).await;
    let mut unary_client = client.clone();
    let unary = tokio::spawn(async move { unary_client.generate(request("u", &[1], 50)).await });
    let mut score_client = client.clone();
    let score = pb::ScoreRequest {
        request_id: "score".to_owned(),
        ..scores::of_ids(&[1; 50])
    };
    let score = tokio::spawn(async move { score_client.score(score).await });
    let mut num_aborted = 0;
    while num_aborted < 4 {
        // Until the last of them has arrived.
        num_aborted += abort(&server, &["s", "b", "u", "score", "nobody"]).await;
    }
    assert_eq!(num_aborted, 4);
    let check = |status: &tonic::Status| {
        assert_eq!(status.code(), Code::Cancelled, "{status}");
        assert!(status.message().contains("Abort"), "{status}");
        assert_eq!(status.get_details_error_info().unwrap().reason, "ABORTED");
    };
    check(&collected(stream.into_inner()).await.unwrap_err());
    check(&unary.await.unwrap().unwrap_err());
    check(&score.await.unwrap().unwrap_err());
    let item = batch.message().await.unwrap().unwrap();
    let Some(pb::batch_response::Result::Error(error)) = item.result else {
        panic!("{item:?}")
    };
    assert_eq!(
        (item.request_id.as_str(), error.code),
        ("b", Code::Cancelled as i32)
    );
    server.open_gate();
    let kept = batch.message().await.unwrap().unwrap();
    assert_eq!(kept.request_id, "kept");
    let other = collected(other.unwrap().into_inner()).await.unwrap();
    assert_eq!(other.token_ids, solo_answer(&[3], 50, 1));
    server.wait_until_idle().await;
    assert_eq!(abort(&server, &["s", "b", "u", "score", "other"]).await, 0);
    server.stop().await.unwrap();
}

/// An id that the server chose can be aborted, too; more ids than the limit are refused.
#[tokio::test]
async fn chosen_ids_can_be_aborted() {
    let server = Setup::gated().start().await;
    let mut client = server.generation().await;
    let stream = client.generate_stream(request("", &[1], 50)).await.unwrap();
    let mut stream = stream.into_inner();
    server.steps(2);
    let id = stream.message().await.unwrap().unwrap().request_id;
    assert_eq!(abort(&server, &[&id]).await, 1);
    let status = collected(stream).await.unwrap_err();
    assert_eq!(status.code(), Code::Cancelled);
    let mut control = server.control().await;
    let request_ids = vec![String::new(); 8193];
    let refused = control.abort(pb::AbortRequest { request_ids }).await;
    assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument);
    server.stop().await.unwrap();
}

/// A drain refuses what is new, says so to the health service, and tells what is left; what was
/// admitted ends as it would have, and the server goes on to say so until it is stopped.
#[tokio::test]
async fn drains_tell_what_is_left() {
    let mut server = Setup::gated().start().await;
    let mut client = server.generation().await;
    let running = client.generate_stream(request("a", &[4], 2000)).await;
    let open = stream::iter([pb::BatchRequest {
        request: Some(request("b", &[4], 2000)),
    }])
    .chain(stream::pending());
    let mut batch = client.generate_batch(open).await.unwrap().into_inner();
    batches::window(&mut batch).await;
    wait_for_load(&server, |load| load.num_running + load.num_waiting == 2).await;
    assert_eq!(drain(&server, None).await, 2);
    assert_eq!(drain(&server, Some(20)).await, 2);
    assert_eq!(lifecycle::health(&server).await, ServingStatus::NotServing);
    for code in [
        client
            .generate(request("c", &[4], 12))
            .await
            .unwrap_err()
            .code(),
        client
            .score(scores::of_ids(&[1, 2]))
            .await
            .unwrap_err()
            .code(),
    ] {
        assert_eq!(code, Code::Unavailable);
    }
    server.open_gate();
    assert_eq!(drain(&server, Some(60_000)).await, 0);
    let all = collected(running.unwrap().into_inner()).await.unwrap();
    assert_eq!(all.token_ids, solo_answer(&[4], 2000, 1));
    assert!(batch.message().await.unwrap().unwrap().result.is_some());
    wait_for_load(&server, |load| load.num_finished_total == 2).await;
    server.stop().await.unwrap();
}

/// The load tells what was computed, what was found instead, and how fast it went lately.
#[tokio::test]
async fn the_load_counts_work() {
    let server = Setup::default().start().await;
    let mut client = server.generation().await;
    let prompt: Vec<u32> = (0..64).collect();
    for _ in 0..2 {
        client.generate(request("", &prompt, 10)).await.unwrap();
    }
    server.wait_until_idle().await;
    let load = wait_for_load(&server, |_| true).await;
    assert_eq!(
        (load.num_finished_total, load.num_generated_tokens_total),
        (2, 20)
    );
    let num_prompt = load.num_prompt_tokens_total + load.num_cached_tokens_total;
    assert_eq!((num_prompt, load.num_cached_tokens_total), (128, 48));
    assert!(load.num_steps_total >= 20 && load.num_blocks_cached > 0);
    assert_eq!(load.wait_reason(), pb::WaitReason::Unspecified);
    wait_for_load(&server, |load| {
        load.generated_tokens_per_second > 0.0 && load.prompt_tokens_per_second > 0.0
    })
    .await;
    server.stop().await.unwrap();
}
