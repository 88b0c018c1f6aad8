//! What runs on a GPU: memory, kernels, products, graphs. The kernels are CUDA C++ (`kernels/`); each has
//! a launcher here that checks lengths, and a plain twin in `tests/`. The libraries of CUDA are looked for
//! when a [`Device`] is opened, so that a program starts without them.
//!
//! Everything runs on the one stream of its [`Device`], in order; nothing waits for the host but what
//! brings values back to it.
//!
//! Shape letters are those of `kernels`: T tokens, C hidden, F inner width of the MLP, O outputs, K inputs.
#![expect(
    clippy::cast_possible_wrap,
    reason = "kernels count in i32, and cublasLt in i64"
)]

mod adamw;
mod causal_attention;
mod cross_entropy;
mod device;
mod error;
mod float;
mod gather;
mod int8;
mod launch;
mod lora;
mod paged_attention;
mod paged_decode;
mod pinned;
mod product;
mod rms_norm;
mod rms_norm_backward;
mod rope_kv;
mod rope_train;
mod rows;
mod sample;
mod sums;
mod swiglu;
mod swiglu_backward;
mod uploader;

pub use adamw::{AdamWFactors, AdamWMoments, AdamWParameter, adamw};
pub use causal_attention::{
    CausalSaved, Documents, causal_attention, causal_attention_backward, document_starts,
};
pub use cross_entropy::{LossGradient, cross_entropy, cross_entropy_backward};
pub use cudarc::driver::{CudaSlice, CudaView, CudaViewMut};
pub use device::{Device, Element, Graph};
pub use error::{Error, Result};
pub use float::{CacheElement, Float};
pub use gather::{carry_tokens, embedding, gather_rows};
pub use int8::{Int8View, dequantize_rows, int8_linear, quantize_rows};
pub use lora::{Columns, Dropout, add_columns, dropout, dropout_f32, scale_round, take_columns};
pub use paged_attention::{HEAD_DIMS, PagedCache, PagedQueries, paged_prefill, prefill_work};
pub use paged_decode::{
    PagedPrefixes, SharedPrefixes, paged_decode, paged_decode_scratch_len, paged_decode_shared,
    paged_decode_shared_scratch_len, prefix_tile_tokens,
};
pub use pinned::{Mark, Pinned};
pub use product::{LinearKernel, Output, Sum, Trial};
pub use rms_norm::rms_norm;
pub use rms_norm_backward::{NormBackward, norm_scratch_len, rms_norm_backward};
pub use rope_kv::{Cache, Heads, Positions, rope_kv};
pub use rope_train::{Angles, Turn, rope_train};
pub use rows::{TokensById, embedding_backward, scatter_rows_add};
pub use sample::{
    LogitEdit, MAX_CANDIDATES, RowPurpose, SampleOutput, SampleRow, SampledLogprobs, SampledRows,
    sample,
};
pub use sums::{SUM_SCRATCH_LEN, Summed, add_sum};
pub use swiglu::swiglu;
pub use swiglu_backward::swiglu_backward;
pub use uploader::Uploader;
