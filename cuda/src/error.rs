//! What can go wrong on the way to the GPU.

use std::fmt;

use cudarc::{cublaslt::result::CublasError, driver::DriverError};

pub type Result<T> = std::result::Result<T, Error>;

#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// A library of CUDA is not on this machine.
    #[error("{library} was not found: {hint}")]
    NoLibrary {
        library: &'static str,
        hint: &'static str,
    },
    /// There is a driver, and no such GPU.
    #[error("no GPU number {ordinal}: {reason}")]
    NoDevice { ordinal: usize, reason: String },
    /// Built without feature `image`, or for other GPUs.
    #[error("this program has no kernels for {device} (compute capability {capability}): {hint}")]
    NoKernels {
        device: String,
        capability: String,
        hint: String,
    },
    /// A call of the driver failed.
    #[error("{call}: {}", first_line(*source))]
    Driver {
        call: &'static str,
        source: DriverError,
    },
    /// A matrix product failed.
    #[error("cublasLt, {call}: {source}")]
    Blas {
        call: &'static str,
        source: CublasError,
    },
    /// An argument does not fit the others.
    #[error("{op}: {argument}: expected {expected}, found {found}")]
    Argument {
        op: &'static str,
        argument: &'static str,
        expected: String,
        found: String,
    },
}

impl Error {
    pub(crate) fn driver(call: &'static str) -> impl FnOnce(DriverError) -> Self {
        move |source| Self::Driver { call, source }
    }

    pub(crate) fn blas(call: &'static str) -> impl FnOnce(CublasError) -> Self {
        move |source| Self::Blas { call, source }
    }

    pub(crate) fn argument(
        op: &'static str,
        argument: &'static str,
        expected: impl fmt::Display,
        found: impl fmt::Display,
    ) -> Self {
        Self::Argument {
            op,
            argument,
            expected: format!("{expected}"),
            found: format!("{found}"),
        }
    }
}

/// `Ok` if a buffer has the length that its shape says.
pub(crate) fn expect_len(
    op: &'static str,
    argument: &'static str,
    expected: usize,
    found: usize,
) -> Result<()> {
    if expected == found {
        return Ok(());
    }
    let expected = format!("{expected} values");
    Err(Error::argument(op, argument, expected, found))
}

/// `Ok` if `value` is a multiple of `unit`, and not zero.
pub(crate) fn expect_multiple(
    op: &'static str,
    argument: &'static str,
    unit: usize,
    value: usize,
) -> Result<()> {
    if value > 0 && value.is_multiple_of(unit) {
        return Ok(());
    }
    let expected = format!("a multiple of {unit}");
    Err(Error::argument(op, argument, expected, value))
}

/// `Ok` if `len` values fit into `room`.
pub(crate) fn expect_room(op: &'static str, len: usize, room: usize) -> Result<()> {
    if len <= room {
        return Ok(());
    }
    Err(Error::argument(op, "len", format!("at most {room}"), len))
}

fn first_line(error: DriverError) -> String {
    let text = error.to_string();
    text.lines().next().unwrap_or_default().to_owned()
}
