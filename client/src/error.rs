//! What can go wrong in a client, each as a sentence that says what to do, and the exit code that
//! belongs to it.

use std::path::PathBuf;

/// Exit code of a run that stopped half-way and goes on with the same command (EX_TEMPFAIL).
pub const EXIT_RESUMABLE: u8 = 75;

/// Every failure of a command.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error(
        "no server answers at {url} ({cause}). Start one with `gen-server --model DIR --listen \
         HOST:PORT`, or point --server (or STAR_SERVER) at the one that runs"
    )]
    Unreachable { url: String, cause: String },
    #[error("--server {value:?}: {problem}. Give http://HOST:PORT or an endpoint file")]
    BadAddress { value: String, problem: String },
    #[error("the server refused to {action} ({code}): {message}")]
    Refused {
        action: &'static str,
        code: String,
        message: String,
    },
    #[error("{num_tokens} tokens are more than the {max_tokens} that the server takes")]
    TooLong { num_tokens: u32, max_tokens: u32 },
    #[error("the server sent an answer that breaks the contract: {0}")]
    BadReply(String),
    #[error(
        "gave up after {seconds} s without one answer; {unfinished} prompts are unanswered. Last \
         cause: {cause}. What is done is kept: look at the server, then run the same command again"
    )]
    GaveUp {
        seconds: u64,
        unfinished: usize,
        cause: String,
    },
    #[error(
        "{count} prompts failed on the server, the first with {code}: {message}. What is done is \
         kept: the same command asks only those again; a prompt that the server refuses as invalid \
         has to be shortened or left out first"
    )]
    ItemsFailed {
        count: usize,
        code: String,
        message: String,
    },
    #[error(
        "the server's weights changed while answers were being collected: expected {expected}, \
         found {found}. One run is one set of weights: reload the expected checkpoint, or start \
         with another --out"
    )]
    WeightsChanged { expected: String, found: String },
    #[error(
        "{path} holds a run with another {field}: it has {expected}, this command asks for {found}. \
         Choose another --out, or use the settings it was started with"
    )]
    OtherSettings {
        path: PathBuf,
        field: String,
        expected: String,
        found: String,
    },
    #[error("cannot {action} {path}: {cause}")]
    File {
        action: &'static str,
        path: PathBuf,
        cause: std::io::Error,
    },
    #[error("{path} is not what it should be: {problem}")]
    BadFile { path: PathBuf, problem: String },
    #[error(transparent)]
    Question(#[from] data::question::QuestionError),
    #[error(transparent)]
    Example(#[from] data::example::ExampleError),
    #[error(transparent)]
    Prompt(#[from] data::prompt::PromptError),
    #[error(transparent)]
    Log(#[from] data::append_log::LogError),
    #[error("{0}")]
    Preflight(String),
    #[error("these two runs cannot be compared: {0}")]
    NotComparable(String),
    #[error(
        "these two runs cannot be compared: they differ in {0}. --force compares them all the \
         same, where both answer the same questions"
    )]
    OtherMethod(String),
    #[error("{count} of {total} requests failed, the first with {code}: {message}")]
    BenchFailed {
        count: usize,
        total: usize,
        code: String,
        message: String,
    },
    #[error("the trainer failed: {0}")]
    Trainer(String),
    #[error("the server in this process failed: {0}")]
    EmbeddedServer(String),
    #[error("cannot draw {what}: {cause}")]
    Plot { what: String, cause: String },
    #[error("{0}")]
    Usage(String),
    #[error("stopped on request; everything finished so far is kept: the same command goes on")]
    Interrupted,
}

impl ClientError {
    /// 2 for a wrong command line, 75 for a run that the same command continues, else 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Interrupted => EXIT_RESUMABLE,
            Self::Usage(_) | Self::BadAddress { .. } | Self::Prompt(_) => 2,
            _ => 1,
        }
    }
}

/// A file operation's failure with its path, for `map_err`.
pub(crate) fn file_error(
    action: &'static str,
    path: &std::path::Path,
) -> impl FnOnce(std::io::Error) -> ClientError {
    let path = path.to_owned();
    move |cause| ClientError::File {
        action,
        path,
        cause,
    }
}
