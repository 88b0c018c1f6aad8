//! `run(listener, config, shutdown)`: everything from a bound socket to a drained server.

use std::future::Future;

use tokio::net::TcpListener;

use crate::{
    config::{ConfigError, ServerConfig},
    error::ServerError,
};

/// Loads the model, serves on `listener` until `shutdown` resolves, then drains: new requests are
/// refused, running ones finish within the grace period. Callers may connect before the model is
/// loaded; their calls wait in the socket's backlog.
pub async fn run(
    listener: TcpListener,
    config: ServerConfig,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ServerError> {
    let mistakes = config.mistakes();
    if !mistakes.is_empty() {
        return Err(ConfigError { mistakes }.into());
    }
    drop(listener);
    shutdown.await;
    Err(ServerError::Transport(
        "serving is not part of this revision yet".to_owned(),
    ))
}
