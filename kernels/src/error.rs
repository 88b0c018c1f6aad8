//! What can be wrong with a call: every variant names the operation and the argument.

use candle_core::DType;

/// Why a kernel refused its arguments.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A tensor, slice or list has the wrong size.
    #[error("{op}: {argument} has shape {found:?}, expected {expected}")]
    Shape {
        op: &'static str,
        argument: &'static str,
        expected: String,
        found: Vec<usize>,
    },

    /// Kernels read rows in place, so a strided view has to be made contiguous by its owner.
    #[error("{op}: {argument} is not contiguous (shape {shape:?}, strides {strides:?})")]
    NotContiguous {
        op: &'static str,
        argument: &'static str,
        shape: Vec<usize>,
        strides: Vec<usize>,
    },

    /// A tensor has another element type than the kernel reads.
    #[error("{op}: {argument} has dtype {found:?}, expected {expected:?}")]
    DType {
        op: &'static str,
        argument: &'static str,
        expected: DType,
        found: DType,
    },

    /// The tensor lies on a device that has no kernels in this build.
    #[error("{op}: {argument} lies on {found}, this build has kernels for the CPU only")]
    Device {
        op: &'static str,
        argument: &'static str,
        found: String,
    },

    /// An index or a number lies outside its range.
    #[error("{op}: {argument} is {found}, expected {expected}")]
    Value {
        op: &'static str,
        argument: &'static str,
        expected: String,
        found: String,
    },

    /// candle itself failed, while making a tensor of the result.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

/// The result of every kernel.
pub type Result<T> = std::result::Result<T, Error>;
