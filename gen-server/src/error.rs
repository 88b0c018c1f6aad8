//! What can go wrong, for those who act on it: the server as a whole, and a single request. Errors of
//! reloads live in `swap`. `convert` has the one table from these to status codes.

use std::io;

use model::ModelError;

use crate::{config::ConfigError, request::EngineFailure};

/// Why the server did not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Gpu(#[from] cuda::Error),
    /// The GPU's memory does not hold what is asked for.
    #[error("{0}")]
    GpuMemory(String),
    #[error("the server's socket failed: {0}")]
    Transport(String),
    #[error("cannot start a thread: {0}")]
    Thread(#[source] io::Error),
    #[error("loading the model was interrupted: {0}")]
    Interrupted(String),
    #[error("the engine has stopped, see the log; restart the server")]
    EngineStopped,
}

/// One field of a request that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    /// Path of the field in the request, such as `sampling.top_p`.
    pub field: String,
    /// What is expected and what was found, as a sentence.
    pub problem: String,
}

impl Violation {
    pub(crate) fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            problem: problem.into(),
        }
    }
}

/// Why a request was not answered. A variant exists where a caller acts differently on it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RequestError {
    #[error("{}", sentences(.0))]
    Invalid(Vec<Violation>),
    #[error(
        "prompt: expected {min} to {max} tokens, found {num_tokens}; prompt and answer together have \
         at most {max_context_tokens} tokens here"
    )]
    Length {
        num_tokens: usize,
        min: usize,
        max: usize,
        max_context_tokens: u32,
    },
    #[error(
        "request_id {0:?} is already being answered on this connection; choose another or wait"
    )]
    DuplicateId(String),
    #[error(
        "the queue is full ({max_queued_requests} requests, each counted once for each of its \
         answers); retry later or send fewer at once"
    )]
    QueueFull { max_queued_requests: u32 },
    #[error("the server is shutting down; retry on another or after its restart")]
    Draining,
    #[error("the call's deadline passed; give it more time or ask for fewer tokens")]
    DeadlineExceeded,
    #[error("the request was ended by a call of Abort that named its id")]
    Aborted,
    #[error(transparent)]
    Engine(#[from] EngineFailure),
    #[error("{0}")]
    Internal(String),
}

fn sentences(violations: &[Violation]) -> String {
    let all: Vec<String> = violations
        .iter()
        .map(|each| format!("{}: {}", each.field, each.problem))
        .collect();
    all.join("; ")
}
