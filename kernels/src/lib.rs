//! The hot loops. Each is a function from contiguous f32 tensors to new tensors, never builds an
//! autograd graph, and comes with its gradient written out. `tests` hold a slow plain twin of each.
//!
//! Shape letters: T tokens of a packed batch, H query heads, G key/value heads, D head dimension,
//! C hidden, F inner width of the MLP, O outputs, V vocabulary, N blocks, B slots of a block.
//!
//! Results are bit-identical for any number of rayon threads on one machine.

mod error;
pub mod tensor;

mod embedding;
mod linear;
mod rms_norm;
mod rope;
mod swiglu;

mod matmul;
mod rows;
mod simd;
#[cfg(test)]
mod testing;

pub use embedding::{embedding, embedding_grad_accumulate};
pub use error::{Error, Result};
pub use linear::{linear, linear_input_grad, linear_weight_grad, linear_weight_grad_accumulate};
pub use rms_norm::{rms_norm, rms_norm_backward};
pub use rope::{RopeTable, rope, rope_backward};
pub use swiglu::{swiglu, swiglu_backward};

// Signatures of what follows in the next commits (all `-> Result<..>`):
//   Segments::from_lengths(&[usize]), Segments::from_cu_seqlens(&[u32])
//   causal_attention(q_THD, k_TGD, v_TGD, &Segments) -> (out_THD, LogSumExp)
//   causal_attention_backward(&AttentionSaved { q, k, v, out, log_sum_exp, segments }, dout)
//     -> (dq, dk, dv)
//   cross_entropy(hidden_LC, w_VC, targets: &[u32]) -> CrossEntropy { nll_sum: f64, num_labels }
//   cross_entropy_backward(hidden_LC, w_VC, targets, grad_scale: f32, dw_VC: &mut [f32])
//     -> (CrossEntropy, dhidden_LC)
//   adamw_step(param: &mut [f32], grad: &[f32], m, v, &AdamWStep { lr, beta1, beta2, eps,
//     weight_decay, step, grad_scale })     grad_scale multiplies grad (clip, 1/labels), 1 = none
//   squared_norm(grad: &[f32]) -> f64
//   tensor::f32_update(op, argument, &tensor, |values: &mut [f32]| ..) steps a tensor in place
//   KvCache::new(KvShape { num_layers, num_blocks, block_size, num_kv_heads, head_dim }, &Device)
//   cache.layer(i), cache.layer_mut(i).write(k_TGD, v_TGD, slots: &[u32])
//   paged_attention(q_THD, &KvLayer, &PagedBatch { sequences: Vec<PagedSequence { query_len,
//     context_len, block_table: Vec<u32> }> }) -> out_THD
