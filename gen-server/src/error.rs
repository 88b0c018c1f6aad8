//! What can go wrong with the server as a whole. Errors of single requests live in `request`, of
//! reloads in `swap`; `convert` turns both into status codes.

use std::io;

use crate::config::ConfigError;

/// Why the server did not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("the server's socket failed: {0}")]
    Transport(String),
    #[error("cannot start a thread: {0}")]
    Thread(#[source] io::Error),
}
