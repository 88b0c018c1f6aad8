//! Attention for serving: new tokens' queries against keys and values in a paged cache, which are
//! read in place through block tables. Prefill, a chunk of it, and decode are the same call.
//!
//! A query row's result depends on its own query and on the keys and values it sees, and on
//! nothing else: not on the other rows or sequences of the call, the block size, the place of the
//! blocks, or the number of threads. There is one piece of code per row, which walks the keys in
//! the order of their positions.
//!
//! A row's scores are held whole (context_len floats per query head of a group), so softmax is the
//! plain two-pass one.
#![expect(non_snake_case, reason = "tensors end in their shape")]

use candle_core::Tensor;
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::kv_cache::{KvLayer, KvShape};
use crate::simd::{dot, exp_shifted, max, weighted_sum};
use crate::tensor::{dims3, f32_tensor, f32_view, shape_error};

/// Multiplications below which a call stays on its thread.
const MIN_PARALLEL_WORK: usize = 1 << 17;

/// One sequence's part of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PagedSequence {
    /// New tokens, the last ones of the context: 1 for decode, more for a chunk of prefill.
    pub query_len: usize,
    /// Tokens in all, the new ones included; their keys are already in the cache.
    pub context_len: usize,
    /// The sequence's blocks, first to last; at least context_len tokens' worth.
    pub block_table: Vec<u32>,
}

/// The sequences of a call, in the order of their query rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PagedBatch {
    pub sequences: Vec<PagedSequence>,
}

/// out_THD = softmax(q·kᵀ/√D, over the keys up to the query's own position)·v, each row against
/// its sequence. H is a multiple of G; query head h reads key/value head h / (H / G).
pub fn paged_attention(q_THD: &Tensor, layer: &KvLayer, batch: &PagedBatch) -> Result<Tensor> {
    let op = "paged_attention";
    let (T, H, D) = dims3(op, "q", q_THD)?;
    let shape = layer.shape();
    let G = shape.num_kv_heads;
    if D != shape.head_dim || H == 0 || !H.is_multiple_of(G) {
        let expected = format!("[T, a positive multiple of {G}, {}]", shape.head_dim);
        return Err(shape_error(op, "q", &expected, q_THD.dims()));
    }
    let sequences: Vec<Sequence> = batch
        .sequences
        .iter()
        .map(|s| Sequence::new(s, shape))
        .collect::<Result<_>>()?;
    let rows: Vec<Row<'_>> = sequences.iter().flat_map(Sequence::rows).collect();
    if rows.len() != T {
        let expected = format!("[{}, H, D], as the query lengths say", rows.len());
        return Err(shape_error(op, "q", &expected, q_THD.dims()));
    }
    let q = f32_view(op, "q", q_THD)?;
    let (k, v) = layer.cpu();
    let width = H / G * D;
    let mut out = vec![0.0; T * H * D];
    let attend = |scores: &mut Vec<f32>, (i, out): (usize, &mut [f32])| {
        let q = &q[i * width..(i + 1) * width];
        let (row, head) = (&rows[i / G], i % G * D);
        Arch::new().dispatch(RowHead {
            out,
            q,
            k,
            v,
            slots: row.slots,
            head,
            D,
            scores,
        });
    };
    let work = H * D * rows.iter().map(|row| row.slots.len()).sum::<usize>();
    if work < MIN_PARALLEL_WORK {
        let mut scores = Vec::new();
        out.chunks_exact_mut(width)
            .enumerate()
            .for_each(|item| attend(&mut scores, item));
    } else {
        out.par_chunks_exact_mut(width)
            .enumerate()
            .for_each_init(Vec::new, attend);
    }
    f32_tensor(out, q_THD.dims())
}

/// A sequence with its block table resolved.
struct Sequence {
    query_len: usize,
    /// Where the row of each position begins in the layer's keys and values.
    slots: Vec<usize>,
}

/// One query row: the keys that it sees.
struct Row<'a> {
    slots: &'a [usize],
}

impl Sequence {
    fn new(sequence: &PagedSequence, shape: KvShape) -> Result<Self> {
        let op = "paged_attention";
        let PagedSequence {
            query_len,
            context_len,
            ref block_table,
        } = *sequence;
        let wrong = |argument, expected: String, found: usize| {
            Err(Error::Value {
                op,
                argument,
                expected,
                found: found.to_string(),
            })
        };
        if query_len > context_len {
            let expected = format!("at most context_len {context_len}");
            return wrong("query_len", expected, query_len);
        }
        let num_blocks = context_len.div_ceil(shape.block_size);
        let Some(blocks) = block_table.get(..num_blocks) else {
            let expected = format!("at least {num_blocks} for {context_len} tokens");
            return wrong("length of block_table", expected, block_table.len());
        };
        if let Some(block) = blocks
            .iter()
            .find(|block| **block as usize >= shape.num_blocks)
        {
            let expected = format!("below {}", shape.num_blocks);
            return wrong("block_table", expected, *block as usize);
        }
        let slot_len = shape.num_kv_heads * shape.head_dim;
        let slots = (0..context_len).map(|position| {
            let block = blocks[position / shape.block_size] as usize;
            (block * shape.block_size + position % shape.block_size) * slot_len
        });
        Ok(Self {
            query_len,
            slots: slots.collect(),
        })
    }

    fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        let context_len = self.slots.len();
        let first_seen = context_len - self.query_len + 1;
        (0..self.query_len).map(move |i| Row {
            slots: &self.slots[..first_seen + i],
        })
    }
}

/// One query row and one key/value head: the group of query heads that reads it.
struct RowHead<'a> {
    /// [group, D]
    out: &'a mut [f32],
    /// [group, D]
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    slots: &'a [usize],
    /// Where the head begins in a slot.
    head: usize,
    D: usize,
    /// Scratch.
    scores: &'a mut Vec<f32>,
}

impl WithSimd for RowHead<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self {
            out,
            q,
            k,
            v,
            slots,
            head,
            D,
            scores,
        } = self;
        let scale = 1.0 / (D as f32).sqrt();
        scores.resize(slots.len(), 0.0);
        for (q, out) in q.chunks_exact(D).zip(out.chunks_exact_mut(D)) {
            for (score, slot) in scores.iter_mut().zip(slots) {
                *score = dot(simd, q, &k[slot + head..slot + head + D]) * scale;
            }
            let largest = max(simd, scores);
            let sum = exp_shifted(simd, scores, largest);
            weighted_sum(
                simd,
                out,
                (scores, 1.0 / sum),
                #[inline(always)]
                |j| {
                    let start = slots[j] + head;
                    &v[start..start + D]
                },
            );
        }
    }
}

#[cfg(test)]
mod tests;
