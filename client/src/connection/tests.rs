use futures::StreamExt;
use tonic::Code;

use super::*;
use crate::{
    fake_server::{Act, FakeServer},
    request::Prompt,
};

/// No server: the error says where it looked and what to start.
#[tokio::test]
async fn an_absent_server_is_named() {
    // Bound and dropped: nobody listens there.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let address = ServerAddress::Url(format!("http://127.0.0.1:{port}"));
    let error = Server::connect(address, BearerToken::default())
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains(&port.to_string()), "{error}");
    assert!(error.contains("gen-server --model"), "{error}");
}

/// A refused reload carries the server's own sentence.
#[tokio::test]
async fn a_refused_reload_says_why() {
    let server = FakeServer::start(|_, _| Act::Say(String::new())).await;
    let client = server.connect().await;
    let error = client.reload("broken").await.unwrap_err().to_string();
    assert!(error.contains("FAILED_PRECONDITION"), "{error}");
    assert!(error.contains("hidden_size differs"), "{error}");
    let swap = client.reload("star/epoch_1").await.unwrap();
    assert_eq!((swap.old.version, swap.new.version), (1, 2));
    assert_eq!(
        client.model().await.unwrap().weights.checkpoint,
        "star/epoch_1"
    );
}

/// A streamed answer comes in pieces and ends with its facts.
#[tokio::test]
async fn a_stream_ends_with_its_facts() {
    let server = FakeServer::start(|_, _| Act::Say("one two three".to_owned())).await;
    let client = server.connect().await;
    let item = Item {
        request_id: "x".to_owned(),
        prompt: Prompt::Text("count".to_owned()),
        decoding: data::record::Decoding::greedy(8),
        seed: 0,
    };
    let mut pieces = client.generate_stream(&item).await.unwrap();
    let mut text = String::new();
    let mut finish = None;
    while let Some(piece) = pieces.next().await {
        match piece.unwrap() {
            Piece::Text(more) => text.push_str(&more),
            Piece::Finished(answer) => finish = Some(answer.finish),
        }
    }
    assert_eq!(text, "one two three");
    assert_eq!(finish, Some(data::record::FinishReason::Stop));
}

/// A refusal before the first token is an error of its own, not an empty answer.
#[tokio::test]
async fn a_refused_stream_is_an_error() {
    let server = FakeServer::start(|_, _| Act::Refuse(Code::ResourceExhausted)).await;
    let client = server.connect().await;
    let item = Item {
        request_id: "x".to_owned(),
        prompt: Prompt::Text(String::new()),
        decoding: data::record::Decoding::greedy(8),
        seed: 0,
    };
    let error = client
        .generate_stream(&item)
        .await
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("RESOURCE_EXHAUSTED"), "{error}");
}
