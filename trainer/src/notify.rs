//! Tells generation servers to load a checkpoint. Whatever a server does or does not do ends as one
//! [`Notification`] within the time limit; it never stops training.

use std::path::Path;

use proto::genserver::v1::ReloadCheckpointRequest;
use proto::genserver::v1::control_client::ControlClient;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Endpoint;

use crate::config::NotifyConfig;
use crate::error::{Result as TrainResult, TrainError};
use crate::progress::Event;

/// What a server with a token wants to see with every call; not shown by `Debug`.
#[derive(Debug, Clone)]
pub struct BearerToken(MetadataValue<Ascii>);

impl BearerToken {
    /// The token in a file, without the white space around it.
    pub fn read(path: &Path) -> TrainResult<Self> {
        let text = std::fs::read_to_string(path).map_err(TrainError::io(path))?;
        let token = text.trim();
        let bad = || TrainError::BadSetting {
            flag: "--server-token-file",
            found: path.display().to_string(),
            expected: "a file with one token of printable ASCII characters without spaces"
                .to_string(),
        };
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(bad());
        }
        let mut value: MetadataValue<Ascii> =
            format!("Bearer {token}").parse().map_err(|_| bad())?;
        value.set_sensitive(true);
        Ok(Self(value))
    }

    pub(crate) fn add_to<T>(&self, request: &mut tonic::Request<T>) {
        let metadata = request.metadata_mut();
        metadata.insert("authorization", self.0.clone());
    }
}

/// What became of one server's notification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notification {
    pub server: String,
    /// As the server was asked for it.
    pub checkpoint: String,
    pub outcome: Result<Loaded, String>,
}

/// What the server answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    pub weights_number: u64,
    pub weights_digest: String,
    pub swap_ms: u32,
}

impl From<Notification> for Event {
    fn from(notification: Notification) -> Self {
        let Notification {
            server,
            checkpoint,
            outcome,
        } = notification;
        match outcome {
            Ok(loaded) => Self::Notified {
                server,
                checkpoint,
                ok: true,
                message: format!(
                    "weights version {}, swapped in {} ms",
                    loaded.weights_number, loaded.swap_ms
                ),
                weights_number: Some(loaded.weights_number),
                weights_digest: Some(loaded.weights_digest),
            },
            Err(message) => Self::Notified {
                server,
                checkpoint,
                ok: false,
                message,
                weights_number: None,
                weights_digest: None,
            },
        }
    }
}

/// Asks every server to load `folder` (such as `epoch_2`), all side by side, each under its own
/// time limit.
pub fn notify_all(config: &NotifyConfig, folder: &str, manifest_sha256: &str) -> Vec<Notification> {
    let checkpoint = match config.checkpoint_prefix.trim_end_matches('/') {
        "" => folder.to_string(),
        prefix => format!("{prefix}/{folder}"),
    };
    let request = ReloadCheckpointRequest {
        checkpoint: checkpoint.clone(),
        expected_manifest_sha256: manifest_sha256.to_string(),
        // The same folder content is the same request, however often it is asked for.
        idempotency_key: format!("{checkpoint}@{manifest_sha256}"),
    };
    let outcomes = ask_all(config, &request);
    let pairs = config.servers.iter().zip(outcomes);
    pairs
        .map(|(server, outcome)| Notification {
            server: server.clone(),
            checkpoint: checkpoint.clone(),
            outcome,
        })
        .collect()
}

fn ask_all(
    config: &NotifyConfig,
    request: &ReloadCheckpointRequest,
) -> Vec<Result<Loaded, String>> {
    if config.servers.is_empty() {
        return Vec::new();
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            let problem = Err(format!("no runtime for the call: {error}"));
            return vec![problem; config.servers.len()];
        }
    };
    let calls: Vec<_> = config
        .servers
        .iter()
        .map(|server| runtime.spawn(ask(server.clone(), request.clone(), config.clone())))
        .collect();
    let outcomes = calls.into_iter().map(|call| {
        let outcome = runtime.block_on(call);
        outcome.unwrap_or_else(|error| Err(format!("the call failed: {error}")))
    });
    let outcomes = outcomes.collect();
    // Name resolution may still sit in a blocking thread; do not wait for it.
    runtime.shutdown_background();
    outcomes
}

async fn ask(
    server: String,
    request: ReloadCheckpointRequest,
    config: NotifyConfig,
) -> Result<Loaded, String> {
    let mut request = tonic::Request::new(request);
    if let Some(token) = &config.token {
        token.add_to(&mut request);
    }
    let limit = config.time_limit;
    let outcome = tokio::time::timeout(limit, reload(&server, request)).await;
    outcome.unwrap_or_else(|_| Err(format!("no answer within {} s", limit.as_secs_f64())))
}

/// `host:port` or a URL.
pub(crate) fn endpoint_of(server: &str) -> Result<Endpoint, String> {
    let url = if server.contains("://") {
        server.to_string()
    } else {
        format!("http://{server}")
    };
    Endpoint::from_shared(url).map_err(|error| format!("not a URL: {error}"))
}

pub(crate) fn cannot_connect(error: &tonic::transport::Error) -> String {
    let cause = std::error::Error::source(error).map_or(String::new(), |c| format!(": {c}"));
    format!("cannot connect ({error}{cause})")
}

async fn reload(
    server: &str,
    request: tonic::Request<ReloadCheckpointRequest>,
) -> Result<Loaded, String> {
    let endpoint = endpoint_of(server)?;
    let channel = endpoint
        .connect()
        .await
        .map_err(|error| cannot_connect(&error))?;
    let response = ControlClient::new(channel)
        .reload_checkpoint(request)
        .await
        .map_err(|status| format!("refused: {} ({:?})", status.message(), status.code()))?
        .into_inner();
    let weights = response
        .new_weights
        .ok_or("the answer names no weights version")?;
    Ok(Loaded {
        weights_number: weights.number,
        weights_digest: weights.digest,
        swap_ms: response.swap_ms,
    })
}

#[cfg(test)]
mod tests;
