//! Causal attention over packed, independent segments, for training: the forward pass keeps one
//! number per row and head (log Σ exp of its scores), and the backward pass recomputes the
//! probabilities from it, as FlashAttention does (Dao et al., arXiv 2205.14135).
//!
//! Memory beyond inputs and outputs: T·H floats between the passes; during a pass, per thread,
//! one or two blocks of [`QUERY_BLOCK`] rows by the segment's length, and per task a copy of the
//! task's outputs before they are interleaved.
//!
//! A task is one segment and one key/value head with its group of query heads. It adds to its own
//! dk and dv only, in a fixed order, so the result has the same bits on any number of threads.
#![expect(non_snake_case, reason = "tensors end in their shape")]

use candle_core::Tensor;

use crate::error::{Error, Result};
use crate::segments::Segments;
use crate::tensor::{dims3, expect_dims, expect_len, f32_tensor, f32_view, shape_error};

mod task;

use task::{Dims, Inputs, interleave, run_tasks};

/// Query rows whose scores are computed together. Larger blocks waste work above the diagonal,
/// smaller ones make the products too thin.
const QUERY_BLOCK: usize = 64;

/// log Σ exp of every row's scaled scores, which the backward pass needs: [T, H], row-major.
#[derive(Clone, Debug)]
pub struct LogSumExp {
    values: Vec<f32>,
}

/// What [`causal_attention`] saw and gave, for its gradient.
#[derive(Clone, Copy, Debug)]
pub struct AttentionSaved<'a> {
    pub q: &'a Tensor,
    pub k: &'a Tensor,
    pub v: &'a Tensor,
    pub out: &'a Tensor,
    pub log_sum_exp: &'a LogSumExp,
    pub segments: &'a Segments,
}

/// out_THD = softmax(q·kᵀ/√D, over the keys of the same segment up to the query's own)·v.
/// H is a multiple of G; query head h reads key/value head h / (H / G).
pub fn causal_attention(
    q_THD: &Tensor,
    k_TGD: &Tensor,
    v_TGD: &Tensor,
    segments: &Segments,
) -> Result<(Tensor, LogSumExp)> {
    let op = "causal_attention";
    let dims = check(op, (q_THD, k_TGD, v_TGD), segments)?;
    let q = f32_view(op, "q", q_THD)?;
    let k = f32_view(op, "k", k_TGD)?;
    let v = f32_view(op, "v", v_TGD)?;
    let inputs = Inputs {
        dims,
        q: &q,
        k: &k,
        v: &v,
    };
    let parts = run_tasks(dims, segments, |task| inputs.forward(&task));
    let out = interleave(dims, segments, &parts, dims.group * dims.D, |part| {
        &part.out
    });
    let values = interleave(dims, segments, &parts, dims.group, |part| &part.log_sum_exp);
    Ok((f32_tensor(out, q_THD.dims())?, LogSumExp { values }))
}

/// The gradients (dq_THD, dk_TGD, dv_TGD) of [`causal_attention`] for the upstream gradient.
pub fn causal_attention_backward(
    saved: &AttentionSaved<'_>,
    dout_THD: &Tensor,
) -> Result<(Tensor, Tensor, Tensor)> {
    let op = "causal_attention_backward";
    let dims = check(op, (saved.q, saved.k, saved.v), saved.segments)?;
    expect_dims(op, "out", saved.q.dims(), saved.out)?;
    expect_dims(op, "dout", saved.q.dims(), dout_THD)?;
    let log_sum_exp = &saved.log_sum_exp.values;
    expect_len(
        op,
        "log_sum_exp",
        saved.segments.num_tokens() * dims.H,
        log_sum_exp.len(),
    )?;
    let q = f32_view(op, "q", saved.q)?;
    let k = f32_view(op, "k", saved.k)?;
    let v = f32_view(op, "v", saved.v)?;
    let out = f32_view(op, "out", saved.out)?;
    let dout = f32_view(op, "dout", dout_THD)?;
    let inputs = Inputs {
        dims,
        q: &q,
        k: &k,
        v: &v,
    };
    let given = task::Given {
        out: &out,
        dout: &dout,
        log_sum_exp,
    };
    let segments = saved.segments;
    let parts = run_tasks(dims, segments, |task| inputs.backward(&given, &task));
    let dq = interleave(dims, segments, &parts, dims.group * dims.D, |part| &part.dq);
    let dk = interleave(dims, segments, &parts, dims.D, |part| &part.dk);
    let dv = interleave(dims, segments, &parts, dims.D, |part| &part.dv);
    Ok((
        f32_tensor(dq, saved.q.dims())?,
        f32_tensor(dk, saved.k.dims())?,
        f32_tensor(dv, saved.v.dims())?,
    ))
}

fn check(
    op: &'static str,
    (q_THD, k_TGD, v_TGD): (&Tensor, &Tensor, &Tensor),
    segments: &Segments,
) -> Result<Dims> {
    let (T, H, D) = dims3(op, "q", q_THD)?;
    let (_, G, _) = dims3(op, "k", k_TGD)?;
    expect_dims(op, "k", &[T, G, D], k_TGD)?;
    expect_dims(op, "v", &[T, G, D], v_TGD)?;
    if segments.num_tokens() != T {
        let expected = format!("[{}, H, D], as the segments say", segments.num_tokens());
        return Err(shape_error(op, "q", &expected, q_THD.dims()));
    }
    if G == 0 || D == 0 || !H.is_multiple_of(G) || H == 0 {
        return Err(Error::Value {
            op,
            argument: "heads",
            expected: "a positive multiple of the key/value heads".to_owned(),
            found: format!("{H} heads, {G} key/value heads, head dim {D}"),
        });
    }
    Ok(Dims {
        H,
        G,
        D,
        group: H / G,
    })
}

#[cfg(test)]
mod tests;
