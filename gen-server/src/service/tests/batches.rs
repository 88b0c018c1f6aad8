//! Batches: thousands of items on one stream, errors by item, credits.

use futures::stream;
use tonic::{Code, Streaming};

use super::*;
use crate::engine::fake::solo_answer;

/// The first message of a batch, which carries nothing but its credits.
pub(super) async fn window(answers: &mut Streaming<pb::BatchResponse>) -> u32 {
    let first = answers.message().await.unwrap().unwrap();
    assert_eq!((first.request_id.as_str(), &first.result), ("", &None));
    assert!(first.credits > 0);
    first.credits
}

pub(super) fn items(
    num_items: u32,
) -> impl futures::Stream<Item = pb::BatchRequest> + Send + 'static {
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
    window(&mut answers).await;
    let mut is_answered = vec![false; num_items as usize];
    while let Some(answer) = answers.message().await.unwrap() {
        let index: u32 = answer.request_id.parse().unwrap();
        assert!(!is_answered[index as usize], "{index} is answered twice");
        is_answered[index as usize] = true;
        let Some(pb::batch_response::Result::Response(response)) = answer.result else {
            panic!("{:?}", answer.result)
        };
        let response = only(response);
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
    window(&mut answers).await;
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

/// The window is granted at the start, whether or not an item has come; every end of an item, good or
/// bad, grants one more. Who respects it has all unanswered items within the server.
#[tokio::test]
async fn credits_add_up_to_the_published_window() {
    let server = Setup::gated().start().await;
    let info = server
        .control()
        .await
        .get_server_info(pb::GetServerInfoRequest {})
        .await;
    let published = info
        .unwrap()
        .into_inner()
        .limits
        .unwrap()
        .max_batch_items_under_way;
    let (sender, receiver) = tokio::sync::mpsc::channel(1000);
    let asked = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let mut client = server.generation().await;
    let mut answers = client.generate_batch(asked).await.unwrap().into_inner();
    assert_eq!(window(&mut answers).await, published);
    for index in 0..published {
        let request = Some(request(&index.to_string(), &[1, 2], 400));
        sender.send(pb::BatchRequest { request }).await.unwrap();
    }
    // All of them come into the engine, long before the first of them has ended.
    wait_for_load(&server, |load| {
        load.num_running + load.num_waiting == published
    })
    .await;
    let mut server = server;
    server.open_gate();
    for _ in 0..published {
        let answer = answers.message().await.unwrap().unwrap();
        assert_eq!(answer.credits, 1);
    }
    let wrong = pb::BatchRequest { request: None };
    sender.send(wrong).await.unwrap();
    assert_eq!(answers.message().await.unwrap().unwrap().credits, 1);
    drop(sender);
    assert!(answers.message().await.unwrap().is_none());
    server.stop().await.unwrap();
}

/// Items of several answers come back whole, and more items than there is room for wait for it.
#[tokio::test]
async fn items_of_several_answers_share_the_room() {
    let server = Setup {
        max_queued_requests: 10,
        ..Setup::default()
    }
    .start()
    .await;
    let mut client = server.generation().await;
    let items = (0..40_u32).map(|index| {
        let mut request = request(&index.to_string(), &prompt(index), 6);
        request.sampling = Some(pb::SamplingParams {
            num_sequences: Some(4),
            ..Default::default()
        });
        pb::BatchRequest {
            request: Some(request),
        }
    });
    let items = stream::iter(items.collect::<Vec<_>>());
    let mut answers = client.generate_batch(items).await.unwrap().into_inner();
    window(&mut answers).await;
    let mut num_answers = 0;
    while let Some(answer) = answers.message().await.unwrap() {
        let Some(pb::batch_response::Result::Response(response)) = answer.result else {
            panic!("{:?}", answer.result)
        };
        let index: u32 = answer.request_id.parse().unwrap();
        assert_eq!(response.outputs.len(), 4);
        for output in response.outputs {
            assert_eq!(output.token_ids, solo_answer(&prompt(index), 6, 1));
        }
        num_answers += 1;
    }
    assert_eq!(num_answers, 40);
    server.stop().await.unwrap();
}
