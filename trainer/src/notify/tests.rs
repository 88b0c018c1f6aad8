use std::time::Duration;

use proto::genserver::v1::control_server::{Control, ControlServer};
use proto::genserver::v1::{
    AbortRequest, AbortResponse, DrainRequest, DrainResponse, GetLoadRequest, GetLoadResponse,
    GetModelInfoRequest, GetModelInfoResponse, GetServerInfoRequest, GetServerInfoResponse,
    ReloadCheckpointResponse, WeightsVersion,
};
use tonic::{Request, Response, Status};

use super::*;

/// Loads `good/epoch_1` with the right manifest, refuses others, never answers for `slow`, and wants a
/// token for `private/epoch_1`.
struct FakeServer;

#[tonic::async_trait]
impl Control for FakeServer {
    async fn reload_checkpoint(
        &self,
        request: Request<ReloadCheckpointRequest>,
    ) -> Result<Response<ReloadCheckpointResponse>, Status> {
        let token = request.metadata().get("authorization");
        let has_token = token.is_some_and(|value| value == "Bearer 0123456789abcdef");
        let request = request.into_inner();
        if request.checkpoint.starts_with("private") && !has_token {
            return Err(Status::unauthenticated("no token"));
        }
        if request.checkpoint.starts_with("slow") {
            std::future::pending::<()>().await;
        }
        if !["good/epoch_1", "private/epoch_1"].contains(&request.checkpoint.as_str())
            || request.expected_manifest_sha256 != "abc"
        {
            return Err(Status::not_found("no such folder"));
        }
        let weights = WeightsVersion {
            number: 2,
            digest: "d".into(),
            checkpoint: String::new(),
        };
        Ok(Response::new(ReloadCheckpointResponse {
            old_weights: None,
            new_weights: Some(weights),
            load_ms: 1,
            swap_ms: 3,
        }))
    }

    async fn get_server_info(
        &self,
        _: Request<GetServerInfoRequest>,
    ) -> Result<Response<GetServerInfoResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn get_model_info(
        &self,
        _: Request<GetModelInfoRequest>,
    ) -> Result<Response<GetModelInfoResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn get_load(
        &self,
        _: Request<GetLoadRequest>,
    ) -> Result<Response<GetLoadResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn abort(&self, _: Request<AbortRequest>) -> Result<Response<AbortResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn drain(&self, _: Request<DrainRequest>) -> Result<Response<DrainResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}

/// Asks a fake server to load `<prefix>/epoch_1`, without a token.
fn notified(prefix: &str) -> Notification {
    notified_with(prefix, None)
}

fn notified_with(prefix: &str, token: Option<BearerToken>) -> Notification {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let listener = runtime
        .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
        .unwrap();
    let address = listener.local_addr().unwrap();
    let service = tonic::transport::Server::builder().add_service(ControlServer::new(FakeServer));
    runtime
        .spawn(service.serve_with_incoming(tonic::transport::server::TcpIncoming::from(listener)));
    let config = NotifyConfig {
        servers: vec![address.to_string()],
        checkpoint_prefix: prefix.to_string(),
        time_limit: Duration::from_millis(if prefix == "slow" { 200 } else { 20_000 }),
        token,
    };
    let mut all = notify_all(&config, "epoch_1", "abc");
    assert_eq!(all.len(), 1);
    all.remove(0)
}

/// The server's new version is reported.
#[test]
fn success_names_the_version() {
    let notification = notified("good/");
    assert_eq!(notification.checkpoint, "good/epoch_1");
    let expected = Loaded {
        weights_number: 2,
        weights_digest: "d".into(),
        swap_ms: 3,
    };
    assert_eq!(notification.outcome, Ok(expected));
}

/// A refusal is passed on in the server's words.
#[test]
fn refusal_is_a_sentence() {
    let error = notified("other").outcome.unwrap_err();
    assert!(error.contains("no such folder"), "{error}");
}

/// A server that does not answer costs the time limit, no more.
#[test]
fn silence_ends_at_the_time_limit() {
    let error = notified("slow").outcome.unwrap_err();
    assert!(error.contains("no answer within"), "{error}");
}

/// The token in the file goes along with the call, without its line end; it is not shown.
#[test]
fn token_is_sent() {
    let error = notified("private").outcome.unwrap_err();
    assert!(error.contains("no token"), "{error}");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, "0123456789abcdef\n").unwrap();
    let token = BearerToken::read(&file).unwrap();
    assert!(!format!("{token:?}").contains("0123"), "{token:?}");
    notified_with("private", Some(token)).outcome.unwrap();
    std::fs::write(&file, "\n").unwrap();
    let error = BearerToken::read(&file).unwrap_err().to_string();
    assert!(error.contains("--server-token-file"), "{error}");
}

/// Servers are asked side by side: one that does not answer holds up no other. (Here each hangs up
/// only when both have been called; one after the other, the first would use up its time limit.)
#[test]
fn servers_are_asked_side_by_side() {
    let listeners = [0; 2].map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    let addresses = listeners.each_ref().map(|one| one.local_addr().unwrap());
    let both = std::sync::Barrier::new(2);
    let config = NotifyConfig {
        servers: addresses.map(|address| address.to_string()).to_vec(),
        time_limit: Duration::from_secs(30),
        ..NotifyConfig::default()
    };
    let all = std::thread::scope(|scope| {
        for listener in listeners {
            let both = &both;
            scope.spawn(move || {
                let _connection = listener.accept().unwrap();
                both.wait();
            });
        }
        notify_all(&config, "epoch_1", "abc")
    });
    assert_eq!(all.len(), 2);
    for (notification, address) in all.into_iter().zip(addresses) {
        assert_eq!(notification.server, address.to_string());
        let error = notification.outcome.unwrap_err();
        assert!(!error.contains("no answer within"), "{error}");
    }
}
