//! What can be wrong with a checkpoint folder, a prompt or a batch, as one error type. Every
//! variant names where (file, key, tensor), what was expected and what was found.

use std::path::{Path, PathBuf};

pub type Result<T, E = ModelError> = std::result::Result<T, E>;

/// A variant exists where a caller may act differently on it: a server tells a bad prompt
/// ([`ModelError::Prompt`]) from a bad folder (the others) from a broken machine
/// ([`ModelError::Io`], [`ModelError::Compute`], [`ModelError::Kernel`]).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        path: PathBuf,
        action: &'static str,
        source: std::io::Error,
    },

    #[error("{}: not valid JSON: {source}", path.display())]
    Json {
        path: PathBuf,
        source: serde_json::Error,
    },

    /// A value in one of the folder's JSON files.
    #[error("{}: {key}: expected {expected}, found {found}", path.display())]
    Value {
        path: PathBuf,
        key: String,
        expected: String,
        found: String,
    },

    /// A tensor in one of the folder's weight files.
    #[error("{}: tensor {tensor}: expected {expected}, found {found}", path.display())]
    Tensor {
        path: PathBuf,
        tensor: String,
        expected: String,
        found: String,
    },

    /// The folder itself: missing, of another format, incomplete.
    #[error("{}: {message}", path.display())]
    Folder { path: PathBuf, message: String },

    /// A file that does not match the folder's manifest.
    #[error("{}: {file}: expected {expected}, found {found}", path.display())]
    Manifest {
        path: PathBuf,
        file: String,
        expected: String,
        found: String,
    },

    #[error("{}: {message}", path.display())]
    Tokenizer { path: PathBuf, message: String },

    #[error("chat template {name}: {message}")]
    Template { name: String, message: String },

    /// The caller's prompt; the sentence is fit to be shown to them.
    #[error("{0}")]
    Prompt(String),

    /// A packed batch that contradicts itself or the model; a bug of the caller.
    #[error("batch: {field}: expected {expected}, found {found}")]
    Batch {
        field: &'static str,
        expected: String,
        found: String,
    },

    #[error("{0}")]
    Compute(#[from] candle_core::Error),

    #[error("{0}")]
    Kernel(#[from] kernels::Error),

    #[error("{0}")]
    Gpu(#[from] cuda::Error),
}

impl ModelError {
    /// For `map_err`: an IO error with the path and what was tried.
    pub(crate) fn io(path: &Path, action: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io {
            path,
            action,
            source,
        }
    }

    pub(crate) fn folder(path: &Path, message: impl Into<String>) -> Self {
        Self::Folder {
            path: path.to_path_buf(),
            message: message.into(),
        }
    }

    pub(crate) fn value(
        path: &Path,
        key: impl Into<String>,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        Self::Value {
            path: path.to_path_buf(),
            key: key.into(),
            expected: expected.into(),
            found: found.into(),
        }
    }

    pub(crate) fn tensor(
        path: &Path,
        tensor: &str,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        Self::Tensor {
            path: path.to_path_buf(),
            tensor: tensor.to_owned(),
            expected: expected.into(),
            found: found.into(),
        }
    }
}
