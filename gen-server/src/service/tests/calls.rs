//! One call at a time: answers, streams, refusals, limits.

use tonic::Code;
use tonic_types::StatusExt as _;

use super::*;
use crate::engine::fake::solo_answer;

/// An answer is what the model makes of the prompt, with its counts, seed and weights.
#[tokio::test]
async fn unary_answers() {
    let server = Setup::default().start().await;
    let mut client = server.generation().await;
    let answer = client
        .generate(request("a", &[5, 6, 7], 9))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(answer.request_id, "a");
    let answer = only(answer);
    assert_eq!(answer.token_ids, solo_answer(&[5, 6, 7], 9, 1));
    let finish = answer.finish.unwrap();
    assert_eq!(finish.reason(), pb::FinishReason::Length);
    assert_eq!(
        (finish.num_prompt_tokens, finish.num_generated_tokens),
        (3, 9)
    );
    assert_eq!(finish.weights.unwrap().number, 1);
    server.stop().await.unwrap();
}

/// The pieces of a stream together are the unary answer, and only the last piece has the end.
#[tokio::test]
async fn streamed_pieces_are_the_unary_answer() {
    let server = Setup::default().start().await;
    let mut client = server.generation().await;
    let whole = client
        .generate(request("", &[8, 9], 40))
        .await
        .unwrap()
        .into_inner();
    let mut stream = client
        .generate_stream(request("s", &[8, 9], 40))
        .await
        .unwrap()
        .into_inner();
    let (mut text, mut token_ids, mut ends) = (String::new(), Vec::new(), 0);
    while let Some(chunk) = stream.message().await.unwrap() {
        assert_eq!((chunk.request_id.as_str(), ends), ("s", 0));
        let output = chunk.output.unwrap();
        text += &output.text;
        token_ids.extend(output.token_ids);
        ends += i32::from(output.finish.is_some());
    }
    assert!(!whole.request_id.is_empty(), "the server chose an id");
    let whole = only(whole);
    assert_eq!((text, token_ids, ends), (whole.text, whole.token_ids, 1));
    server.stop().await.unwrap();
}

/// A stop token ends the answer and is its last token.
#[tokio::test]
async fn stop_tokens_end_answers() {
    let server = Setup::default().start().await;
    let mut client = server.generation().await;
    let expected = solo_answer(&[3], 30, 1);
    let mut asked = request("a", &[3], 30);
    asked.stopping.as_mut().unwrap().stop_token_ids = vec![expected[11]];
    let answer = only(client.generate(asked).await.unwrap().into_inner());
    let first = expected
        .iter()
        .position(|token| *token == expected[11])
        .unwrap();
    assert_eq!(answer.token_ids, expected[..=first]);
    let finish = answer.finish.unwrap();
    assert_eq!(finish.reason(), pb::FinishReason::Stop);
    let stop = pb::finish::StopReason::StopTokenId(expected[11]);
    assert_eq!(finish.stop_reason, Some(stop));
    server.stop().await.unwrap();
}

/// What is wrong with a request is told field by field; the engine never sees it.
#[tokio::test]
async fn wrong_requests_are_refused_with_fields() {
    let server = Setup::default().start().await;
    let mut client = server.generation().await;
    let mut wrong = request("a", &[5, 500], 0);
    wrong.sampling = Some(pb::SamplingParams {
        top_p: Some(2.0),
        ..Default::default()
    });
    let status = client.generate(wrong.clone()).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let details = status.get_details_bad_request().unwrap();
    let fields: Vec<_> = details
        .field_violations
        .iter()
        .map(|each| each.field.as_str())
        .collect();
    assert_eq!(
        fields,
        [
            "token_ids.ids[1]",
            "sampling.top_p",
            "stopping.max_new_tokens"
        ]
    );
    assert_eq!(
        client.generate_stream(wrong).await.unwrap_err().code(),
        Code::InvalidArgument
    );
    let long = client
        .generate(request("a", &[1; 256], 1))
        .await
        .unwrap_err();
    assert!(
        long.message()
            .contains("expected 1 to 255 tokens, found 256"),
        "{long}"
    );
    server.stop().await.unwrap();
}

/// Streams that fill the queue make the next request fail at once, with a time to retry after.
#[tokio::test]
async fn a_full_queue_refuses() {
    let server = Setup {
        max_queued_requests: 2,
        ..Setup::gated()
    }
    .start()
    .await;
    let mut client = server.generation().await;
    let _one = client.generate_stream(request("a", &[1], 5)).await.unwrap();
    let two = client.generate_stream(request("b", &[1], 5)).await.unwrap();
    let status = client.generate(request("c", &[1], 5)).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(
        status
            .get_details_retry_info()
            .unwrap()
            .retry_delay
            .is_some()
    );
    drop(two); // its room is free as soon as the server has noticed
    let mut third = client.generate_stream(request("c", &[1], 5)).await;
    while third.is_err() {
        third = client.generate_stream(request("c", &[1], 5)).await;
    }
    server.stop().await.unwrap();
}

/// An id that is being answered is refused on the same connection, not on another.
#[tokio::test]
async fn live_ids_are_refused() {
    let server = Setup::gated().start().await;
    let mut client = server.generation().await;
    let _one = client.generate_stream(request("a", &[1], 5)).await.unwrap();
    let status = client.generate(request("a", &[1], 5)).await.unwrap_err();
    assert_eq!(status.code(), Code::AlreadyExists);
    let mut other = server.generation().await;
    let _two = other.generate_stream(request("a", &[1], 5)).await.unwrap();
    server.stop().await.unwrap();
}

/// A time limit ends a request that still waits for the engine, and one that is running, with what
/// there is.
#[tokio::test]
async fn time_limits_end_requests() {
    let server = Setup::gated().start().await;
    let mut client = server.generation().await;
    let limited = |id: &str| pb::GenerateRequest {
        time_limit_ms: Some(300),
        ..request(id, &[1], 100)
    };
    let queued = only(client.generate(limited("a")).await.unwrap().into_inner());
    assert_eq!(queued.finish.unwrap().reason(), pb::FinishReason::TimeLimit);
    assert!(queued.token_ids.is_empty());
    let stream = client.generate_stream(limited("b")).await.unwrap();
    server.steps(4);
    let all = collected(stream.into_inner()).await.unwrap();
    assert_eq!(all.finish.unwrap().reason(), pb::FinishReason::TimeLimit);
    assert!(
        (1..=4).contains(&all.token_ids.len()),
        "{:?}",
        all.token_ids
    );
    server.stop().await.unwrap();
}

/// A call's own deadline also bounds an open stream, which tonic alone would let run on, and a batch
/// with all its items; whole answers and scores as well. Nothing of them is left behind.
#[tokio::test]
async fn call_deadlines_bound_calls_of_every_kind() {
    fn soon<T>(message: T) -> tonic::Request<T> {
        let mut call = tonic::Request::new(message);
        call.set_timeout(Duration::from_millis(300));
        call
    }
    // tonic itself answers CANCELLED where it is first.
    let is_over = |code: Code| matches!(code, Code::DeadlineExceeded | Code::Cancelled);
    // With no step at all they wait in the queue; with a few they run.
    for num_steps in [0, 5] {
        let server = Setup::gated().start().await;
        let client = server.generation().await;
        let (mut one, mut two) = (client.clone(), client.clone());
        let (mut three, mut four) = (client.clone(), client);
        server.steps(num_steps);
        let stream = async {
            let stream = one.generate_stream(soon(request("s", &[1], 100))).await;
            collected(stream.unwrap().into_inner())
                .await
                .unwrap_err()
                .code()
        };
        let unary = async { two.generate(soon(request("u", &[1; 50], 100))).await };
        let batch = async {
            let items = (0..5).map(|index| pb::BatchRequest {
                request: Some(request(&index.to_string(), &[2], 100)),
            });
            let items = futures::stream::iter(items.collect::<Vec<_>>());
            let answers = three.generate_batch(soon(items)).await;
            let mut answers = answers.unwrap().into_inner();
            loop {
                if let Err(status) = answers.message().await {
                    break status.code();
                }
            }
        };
        // Longer than a step takes, so that it is not over at once.
        let score = async { four.score(soon(scores::of_ids(&[1; 200]))).await };
        let (stream, unary, batch, score) = tokio::join!(stream, unary, batch, score);
        assert_eq!(stream, Code::DeadlineExceeded);
        assert_eq!(batch, Code::DeadlineExceeded);
        assert!(is_over(unary.unwrap_err().code()));
        assert!(num_steps > 0 || is_over(score.unwrap_err().code()));
        let mut server = server;
        server.open_gate();
        server.wait_until_idle().await;
        server.stop().await.unwrap();
    }
}

/// With a token, calls without it or with another are refused; the health service stays open.
#[tokio::test]
async fn tokens_are_checked() {
    let token = AuthToken::new("0123456789abcdef").unwrap();
    let server = Setup {
        auth_token: Some(token),
        ..Setup::default()
    }
    .start()
    .await;
    let call = |token: Option<&str>| {
        let mut call = tonic::Request::new(request("", &[1], 1));
        if let Some(token) = token {
            let value = format!("Bearer {token}").parse().unwrap();
            call.metadata_mut().insert("authorization", value);
        }
        call
    };
    let mut client = server.generation().await;
    for wrong in [None, Some("0123456789abcdeX"), Some("0123"), Some("")] {
        let status = client.generate(call(wrong)).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated, "{wrong:?}");
    }
    client
        .generate(call(Some("0123456789abcdef")))
        .await
        .unwrap();
    let info = server
        .control()
        .await
        .get_server_info(pb::GetServerInfoRequest {})
        .await;
    assert_eq!(info.unwrap_err().code(), Code::Unauthenticated);
    lifecycle::health(&server).await;
    server.stop().await.unwrap();
}

/// Larger messages than the published limit are refused.
#[tokio::test]
async fn large_messages_are_refused() {
    let server = Setup::default().start().await;
    let info = server
        .control()
        .await
        .get_server_info(pb::GetServerInfoRequest {})
        .await;
    let max = info.unwrap().into_inner().limits.unwrap().max_message_bytes as usize;
    let mut client = server.generation().await;
    let text = |num_bytes: usize| pb::GenerateRequest {
        prompt: Some(Asked::Text("a".repeat(num_bytes))),
        ..Default::default()
    };
    assert_eq!(
        client.generate(text(max)).await.unwrap_err().code(),
        Code::OutOfRange
    );
    let long = client.generate(text(max / 2)).await.unwrap_err();
    assert_eq!(long.code(), Code::InvalidArgument);
    server.stop().await.unwrap();
}
