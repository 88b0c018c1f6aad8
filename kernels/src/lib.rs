//! The hot loops. Each is a function from contiguous f32 tensors to new tensors, never builds an
//! autograd graph, and comes with its gradient written out. `tests` hold a slow plain twin of each.
//!
//! Shape letters: T tokens of a packed batch, H query heads, G key/value heads, D head dimension,
//! C hidden, F inner width of the MLP, O outputs, V vocabulary, N blocks, B slots of a block.
//!
//! Results are bit-identical for any number of rayon threads on one machine.
#![expect(
    clippy::inline_always,
    reason = "lane-wise code must end up inside the function compiled for the instruction set"
)]

mod error;
pub mod tensor;

mod matrix;

mod embedding;
mod linear;
mod rms_norm;
mod rope;
mod swiglu;

mod adamw;
mod causal_attention;
mod cross_entropy;
mod segments;

mod crew;
mod packed;
mod step;

mod kv_cache;
mod paged_attention;

mod matmul;
mod rows;
mod simd;
#[cfg(test)]
mod testing;

pub use adamw::{
    AdamWFactors, AdamWStep, Moments, MomentsFormat, Quantized, Rounding, adamw_step,
    moment_tables, squared_norm,
};
pub use causal_attention::{
    AttentionSaved, LogSumExp, causal_attention, causal_attention_backward,
};
pub use crew::Crew;
pub use cross_entropy::{
    CrossEntropy, LossOptions, cross_entropy, cross_entropy_backward, logit_chunk_bytes,
};
pub use embedding::{embedding, embedding_grad_accumulate, gather_rows};
pub use error::{Error, Result};
pub use kv_cache::{KvCache, KvFormat, KvLayer, KvRows, KvShape};
pub use linear::{
    linear, linear_accumulate, linear_input_grad, linear_input_grad_accumulate,
    linear_weight_grad_accumulate,
};
pub use matrix::{Compute, INT8_GROUP, Int8Matrix, Matrix, MatrixFormat};
pub use packed::{Activations, Weight, WeightBuilder, WeightFormat, linear_packed};
pub use paged_attention::{AttentionPlan, PagedBatch, PagedSequence, QueryRows, paged_attention};
pub use rms_norm::{rms_norm, rms_norm_backward, rms_norm_row};
pub use rope::{RopeTable, rope, rope_backward, rope_row};
pub use segments::Segments;
pub use step::Output;
pub use swiglu::{swiglu, swiglu_backward, swiglu_row};
