//! Swaps, drains, health, reflection, and an engine that dies.

use futures::{StreamExt as _, stream};
use tonic::Code;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_types::StatusExt as _;

use super::*;
use crate::engine::fake::{FakeRunner, solo_answer};

pub(super) async fn health(server: &TestServer) -> ServingStatus {
    let mut client = HealthClient::new(server.channel().await);
    let service = "genserver.v1.Generation".to_owned();
    client
        .check(HealthCheckRequest { service })
        .await
        .unwrap()
        .into_inner()
        .status()
}

fn reload(checkpoint: &str) -> pb::ReloadCheckpointRequest {
    pb::ReloadCheckpointRequest {
        checkpoint: checkpoint.to_owned(),
        ..Default::default()
    }
}

/// A reload changes what answers are made by; they, and the server, say so.
#[tokio::test]
async fn reloads_change_the_weights() {
    let server = Setup::default().start().await;
    server.write_checkpoint("star/epoch_1", "2");
    let mut control = server.control().await;
    let reloaded = control
        .reload_checkpoint(reload("star/epoch_1"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(reloaded.old_weights.unwrap().number, 1);
    assert_eq!(reloaded.new_weights.unwrap().number, 2);
    let mut client = server.generation().await;
    let answer = client
        .generate(request("a", &[5], 9))
        .await
        .unwrap()
        .into_inner();
    let answer = only(answer);
    assert_eq!(answer.token_ids, solo_answer(&[5], 9, 2));
    assert_eq!(
        answer.finish.unwrap().weights.unwrap().checkpoint,
        "star/epoch_1"
    );
    let info = control
        .get_model_info(pb::GetModelInfoRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(info.weights.unwrap().number, 2);
    server.stop().await.unwrap();
}

/// A reload that is refused says why with its own code, and the old weights go on.
#[tokio::test]
async fn refused_reloads_leave_the_old_weights() {
    let server = Setup::default().start().await;
    server.write_checkpoint("other", "mistral");
    let mut control = server.control().await;
    for (checkpoint, code) in [
        ("../etc", Code::InvalidArgument),
        ("/etc", Code::InvalidArgument),
        ("nowhere", Code::NotFound),
        ("other", Code::FailedPrecondition),
    ] {
        let status = control
            .reload_checkpoint(reload(checkpoint))
            .await
            .unwrap_err();
        assert_eq!(status.code(), code, "{checkpoint}: {status}");
    }
    let info = control
        .get_model_info(pb::GetModelInfoRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(info.weights.unwrap().number, 1);
    server.stop().await.unwrap();
}

/// While a batch runs, swap follows swap: no item fails, and each answer is whole of the one version
/// it names.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn swaps_under_load_fail_and_mix_nothing() {
    let server = Setup::default().start().await;
    for version in 2..12_u64 {
        server.write_checkpoint(&format!("epoch_{version}"), &version.to_string());
    }
    let mut client = server.generation().await;
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    let items = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let mut answers = client.generate_batch(items).await.unwrap().into_inner();
    batches::window(&mut answers).await;
    let feed = tokio::spawn(async move {
        for index in 0_u32.. {
            let request = Some(request(&index.to_string(), &prompt(index), 20));
            if sender.send(pb::BatchRequest { request }).await.is_err() {
                return;
            }
        }
    });
    let mut control = server.control().await;
    let swaps = tokio::spawn(async move {
        for version in 2..12_u64 {
            control
                .reload_checkpoint(reload(&format!("epoch_{version}")))
                .await
                .unwrap();
        }
    });
    let mut newest = 1;
    let mut num_versions = 1;
    while newest < 11 {
        let answer = answers.message().await.unwrap().unwrap();
        let index: u32 = answer.request_id.parse().unwrap();
        let Some(pb::batch_response::Result::Response(response)) = answer.result else {
            panic!("{:?}", answer.result)
        };
        let response = only(response);
        let weights = response.finish.unwrap().weights.unwrap();
        assert_eq!(
            response.token_ids,
            solo_answer(&prompt(index), 20, weights.number)
        );
        assert_eq!(weights.digest, weights.number.to_string());
        num_versions += u32::from(weights.number > newest);
        newest = newest.max(weights.number);
    }
    swaps.await.unwrap();
    assert!(num_versions > 3, "the batch ran across swaps");
    feed.abort();
    server.stop().await.unwrap();
}

/// After the stop signal: what runs ends, what comes is refused with a time to retry, health says so,
/// and then the server returns.
#[tokio::test]
async fn draining_finishes_what_runs() {
    let mut server = Setup::gated().start().await;
    let mut client = server.generation().await;
    assert_eq!(health(&server).await, ServingStatus::Serving);
    let running = client
        .generate_stream(request("a", &[4], 12))
        .await
        .unwrap()
        .into_inner();
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    let items = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let mut batch = client.generate_batch(items).await.unwrap().into_inner();
    batches::window(&mut batch).await;
    server.ask_to_stop();
    while health(&server).await != ServingStatus::NotServing {}
    let status = client.generate(request("b", &[4], 12)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(
        status
            .get_details_retry_info()
            .unwrap()
            .retry_delay
            .is_some()
    );
    sender
        .send(pb::BatchRequest {
            request: Some(request("c", &[4], 12)),
        })
        .await
        .unwrap();
    let item = batch.message().await.unwrap().unwrap();
    assert!(
        matches!(&item.result, Some(pb::batch_response::Result::Error(error))
            if error.code == Code::Unavailable as i32),
        "{item:?}"
    );
    server.open_gate();
    let all = collected(running).await.unwrap();
    assert_eq!(all.token_ids, solo_answer(&[4], 12, 1));
    server.stop().await.unwrap();
}

/// An engine that panics is no healthy server: callers hear of it, and the server ends with an error.
#[tokio::test]
async fn a_dead_engine_ends_the_server() {
    let setup = Setup::default();
    let mut backend = fake_backend(setup.limits, None);
    let mut runner = FakeRunner::new(setup.limits.num_blocks, setup.limits.block_size, 1);
    runner.panicking_step = Some(2);
    backend.runner = Box::new(runner);
    let server = setup.start_backend(backend).await;
    let mut client = server.generation().await;
    let status = client.generate(request("a", &[4], 12)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    let result = server.running.await.unwrap();
    assert!(
        matches!(result, Err(ServerError::EngineStopped)),
        "{result:?}"
    );
}

/// Reflection lists the services, so that generic clients need no proto file.
#[tokio::test]
async fn reflection_lists_the_services() {
    use tonic_reflection::pb::v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    };
    let server = Setup::default().start().await;
    let mut client = ServerReflectionClient::new(server.channel().await);
    let list = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let asked = stream::once(async { list }).chain(stream::pending());
    let mut answers = client
        .server_reflection_info(asked)
        .await
        .unwrap()
        .into_inner();
    let answer = answers.message().await.unwrap().unwrap().message_response;
    let Some(MessageResponse::ListServicesResponse(list)) = answer else {
        panic!("{answer:?}")
    };
    let names: Vec<_> = list
        .service
        .iter()
        .map(|service| service.name.as_str())
        .collect();
    for name in [
        "genserver.v1.Generation",
        "genserver.v1.Control",
        "grpc.health.v1.Health",
    ] {
        assert!(names.contains(&name), "{names:?}");
    }
    drop(answers);
    server.stop().await.unwrap();
}
