//! What can go wrong in a training run, as values that name the file, field or tensor.

use std::path::{Path, PathBuf};

/// Every failure of this crate.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    #[error("{path}: {source}")]
    Io {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{flag} = {found}: expected {expected}")]
    BadSetting {
        flag: &'static str,
        found: String,
        expected: String,
    },
    #[error(
        "{path} was trained with {field} = {saved}, this run asks for {requested}; repeat the first \
         run's settings, or give another --out"
    )]
    ConfigChanged {
        path: PathBuf,
        field: String,
        saved: String,
        requested: String,
    },
    #[error("{path}: {what}")]
    BadCheckpoint { path: PathBuf, what: String },
    #[error(
        "another trainer (or a program holding {path}) is writing to this folder; wait for it or give another --out"
    )]
    OutBusy { path: PathBuf },
    #[error("{count} steps in a row were skipped (last: {last}); lower --lr or look at the data")]
    TooManySkipped { count: u32, last: String },
    #[error("{what}: nothing to train on ({details})")]
    NoExamples { what: String, details: String },
    #[error("cannot draw {what}: {cause}")]
    Plot { what: String, cause: String },
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    #[error(
        "the ranks do not go together: {what}; all must run the same program on the same files"
    )]
    BadMessage { what: String },
    #[error(transparent)]
    Group(#[from] crate::distributed::GroupError),
    #[error(transparent)]
    Model(#[from] model::ModelError),
    #[error(transparent)]
    Example(#[from] data::example::ExampleError),
    #[error(transparent)]
    Prompt(#[from] data::prompt::PromptError),
    #[error(transparent)]
    Kernel(#[from] kernels::Error),
    #[error(
        "the GPU has {free_mib} MiB free, this run needs {needed_mib} MiB; what takes less: \
         --checkpointing on, a smaller --max-tokens-per-micro-batch, --precision bf16-weights \
         --moments int8, --method lora"
    )]
    GpuMemory { needed_mib: usize, free_mib: usize },
    #[error(transparent)]
    Gpu(#[from] cuda::Error),
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

/// Result of this crate.
pub type Result<T, E = TrainError> = std::result::Result<T, E>;

impl TrainError {
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self + use<'_> {
        move |source| Self::Io {
            path: path.to_path_buf(),
            source,
        }
    }
}
