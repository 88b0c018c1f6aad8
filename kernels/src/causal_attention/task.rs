//! The work of one segment and one key/value head, on one thread.
#![expect(
    non_snake_case,
    reason = "dimensions have the names of the shape letters"
)]

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::QUERY_BLOCK;
use crate::matmul::{Mat, MatMut, Threads, matmul};
use crate::matrix::Compute;
use crate::rows::rows_per_task;
use crate::segments::Segments;
use crate::simd::{dot, exp_shifted, max, update2};
use crate::step::Output;

/// Head counts and the head dimension; `group` = H / G.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dims {
    pub(super) H: usize,
    pub(super) G: usize,
    pub(super) D: usize,
    pub(super) group: usize,
}

/// The packed tensors, row-major.
#[derive(Clone, Copy, Debug)]
pub(super) struct Inputs<'a> {
    pub(super) dims: Dims,
    pub(super) q: &'a [f32],
    pub(super) k: &'a [f32],
    pub(super) v: &'a [f32],
}

/// What the backward pass is given besides the inputs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Given<'a> {
    pub(super) out: &'a [f32],
    pub(super) dout: &'a [f32],
    pub(super) log_sum_exp: &'a [f32],
}

/// One segment's rows and one key/value head.
#[derive(Clone, Debug)]
pub(super) struct Task {
    rows: Range<usize>,
    kv_head: usize,
}

/// Rows of one segment: out [L, group·D], log_sum_exp [L, group].
#[derive(Debug)]
pub(super) struct ForwardPart {
    pub(super) out: Vec<f32>,
    pub(super) log_sum_exp: Vec<f32>,
}

/// Rows of one segment: dq [L, group·D], dk and dv [L, D].
#[derive(Debug)]
pub(super) struct BackwardPart {
    pub(super) dq: Vec<f32>,
    pub(super) dk: Vec<f32>,
    pub(super) dv: Vec<f32>,
}

/// One result per (segment, key/value head), in that order.
pub(super) fn run_tasks<P: Send>(
    dims: Dims,
    segments: &Segments,
    run: impl Fn(Task) -> P + Send + Sync,
) -> Vec<P> {
    let heads = |rows: Range<usize>| {
        (0..dims.G).map(move |kv_head| Task {
            rows: rows.clone(),
            kv_head,
        })
    };
    let tasks: Vec<Task> = segments.ranges().flat_map(heads).collect();
    tasks.into_par_iter().map(run).collect()
}

/// Joins the parts of all heads into packed rows: [T, G·width].
pub(super) fn interleave<P: Sync>(
    dims: Dims,
    segments: &Segments,
    parts: &[P],
    width: usize,
    values: impl Fn(&P) -> &[f32] + Sync,
) -> Vec<f32> {
    let row_len = dims.G * width;
    let mut packed = vec![0.0; segments.num_tokens() * row_len];
    let mut rest = &mut packed[..];
    let mut pieces = Vec::new();
    for (rows, heads) in segments.ranges().zip(parts.chunks_exact(dims.G)) {
        let own;
        (own, rest) = rest.split_at_mut(rows.len() * row_len);
        pieces.push((own, heads));
    }
    let task_rows = rows_per_task(row_len);
    pieces.into_par_iter().for_each(|(own, heads)| {
        let tasks = own.par_chunks_mut(task_rows * row_len).enumerate();
        tasks.for_each(|(task, rows)| {
            for (i, row) in rows.chunks_exact_mut(row_len).enumerate() {
                let at = (task * task_rows + i) * width;
                for (out, head) in row.chunks_exact_mut(width).zip(heads) {
                    out.copy_from_slice(&values(head)[at..at + width]);
                }
            }
        });
    });
    packed
}

impl<'a> Inputs<'a> {
    /// Out and log Σ exp of the task's rows.
    pub(super) fn forward(&self, task: &Task) -> ForwardPart {
        let Dims { D, group, .. } = self.dims;
        let L = task.rows.len();
        let mut out = vec![0.0; L * group * D];
        let mut log_sum_exp = vec![0.0; L * group];
        let mut scores = vec![0.0; QUERY_BLOCK.min(L) * L];
        for head in 0..group {
            for rows in blocks(L) {
                let scores = &mut scores[..rows.len() * rows.end];
                self.scores((task, head, &rows), scores);
                let sums = Arch::new().dispatch(Softmax {
                    scores,
                    rows: &rows,
                    scale: self.scale(),
                });
                let out = &mut out[rows.start * group * D + head * D..];
                product(
                    MatMut::new(out, rows.len(), D, group * D),
                    Output::Overwrite,
                    (
                        block(scores, &rows),
                        self.kv_rows(self.v, task, rows.end).t(),
                    ),
                );
                for (i, (max, sum)) in sums[..rows.len()].iter().enumerate() {
                    let inverse = 1.0 / sum;
                    out[i * group * D..][..D]
                        .iter_mut()
                        .for_each(|x| *x *= inverse);
                    log_sum_exp[(rows.start + i) * group + head] = max + sum.ln();
                }
            }
        }
        ForwardPart { out, log_sum_exp }
    }

    /// The gradients of the task's rows. With P the probabilities and ∘ element by element:
    /// dv = Pᵀ·dout, dP = dout·vᵀ, dS = P ∘ (dP − rowsum(dout ∘ out))/√D, dq = dS·k, dk = dSᵀ·q.
    pub(super) fn backward(&self, given: &Given<'_>, task: &Task) -> BackwardPart {
        let Dims { D, group, .. } = self.dims;
        let L = task.rows.len();
        let mut part = BackwardPart {
            dq: vec![0.0; L * group * D],
            dk: vec![0.0; L * D],
            dv: vec![0.0; L * D],
        };
        let mut scores = vec![0.0; QUERY_BLOCK.min(L) * L];
        let mut slopes = vec![0.0; QUERY_BLOCK.min(L) * L];
        for head in 0..group {
            for rows in blocks(L) {
                let len = rows.len() * rows.end;
                let (scores, slopes) = (&mut scores[..len], &mut slopes[..len]);
                self.scores((task, head, &rows), scores);
                product(
                    MatMut::new(slopes, rows.len(), rows.end, rows.end),
                    Output::Overwrite,
                    (
                        self.q_rows(given.dout, task, head, &rows),
                        self.kv_rows(self.v, task, rows.end),
                    ),
                );
                let first =
                    (task.rows.start + rows.start) * self.dims.H + task.kv_head * group + head;
                let rows = &rows;
                Arch::new().dispatch(ScoreGradient {
                    scores,
                    slopes,
                    rows,
                    inputs: self,
                    given,
                    first,
                });
                self.add_gradients(&mut part, given, (task, head, rows), (scores, slopes));
            }
        }
        part
    }

    /// The three products of one block, given P and dS.
    fn add_gradients(
        &self,
        part: &mut BackwardPart,
        given: &Given<'_>,
        (task, head, rows): (&Task, usize, &Range<usize>),
        (scores, slopes): (&[f32], &[f32]),
    ) {
        let Dims { D, group, .. } = self.dims;
        let (P, dS) = (block(scores, rows), block(slopes, rows));
        let q = self.q_rows(self.q, task, head, rows);
        let dout = self.q_rows(given.dout, task, head, rows);
        let k = self.kv_rows(self.k, task, rows.end);
        let dq = &mut part.dq[rows.start * group * D + head * D..];
        let dq = MatMut::new(dq, rows.len(), D, group * D);
        product(dq, Output::Overwrite, (dS, k.t()));
        let dk = MatMut::new(&mut part.dk, rows.end, D, D);
        product(dk, Output::Add, (dS.t(), q.t()));
        let dv = MatMut::new(&mut part.dv, rows.end, D, D);
        product(dv, Output::Add, (P.t(), dout.t()));
    }

    /// q·kᵀ of a block of query rows, with every key up to the block's last row.
    fn scores(&self, (task, head, rows): (&Task, usize, &Range<usize>), scores: &mut [f32]) {
        product(
            MatMut::new(scores, rows.len(), rows.end, rows.end),
            Output::Overwrite,
            (
                self.q_rows(self.q, task, head, rows),
                self.kv_rows(self.k, task, rows.end),
            ),
        );
    }

    fn scale(&self) -> f32 {
        1.0 / (self.dims.D as f32).sqrt()
    }

    /// Rows of the segment in a [T, H, D] tensor, at one head of the task's group: [rows, D].
    fn q_rows<'b>(
        &self,
        tensor: &'b [f32],
        task: &Task,
        head: usize,
        rows: &Range<usize>,
    ) -> Mat<'b> {
        let Dims { H, D, group, .. } = self.dims;
        let first = ((task.rows.start + rows.start) * H + task.kv_head * group + head) * D;
        Mat::new(&tensor[first..], rows.len(), D, H * D)
    }

    /// The segment's first `len` rows in a [T, G, D] tensor, at the task's head: [len, D].
    fn kv_rows(&self, tensor: &'a [f32], task: &Task, len: usize) -> Mat<'a> {
        let Dims { G, D, .. } = self.dims;
        let first = (task.rows.start * G + task.kv_head) * D;
        Mat::new(&tensor[first..], len, D, G * D)
    }
}

/// The blocks of query rows of a segment of `L` rows.
fn blocks(L: usize) -> impl Iterator<Item = Range<usize>> {
    (0..L)
        .step_by(QUERY_BLOCK)
        .map(move |start| start..L.min(start + QUERY_BLOCK))
}

/// A block's scores as a matrix: one row per query, one column per key up to the last row.
fn block<'a>(values: &'a [f32], rows: &Range<usize>) -> Mat<'a> {
    Mat::new(values, rows.len(), rows.end, rows.end)
}

/// a·bᵀ on this thread.
fn product(dst: MatMut<'_>, output: Output, operands: (Mat<'_>, Mat<'_>)) {
    matmul(dst, output, operands, Compute::F32, Threads::One);
}

/// Turns the scores of a block, times `scale`, into e^(score − row maximum), zero above the
/// diagonal; returns each row's maximum and sum.
struct Softmax<'a> {
    scores: &'a mut [f32],
    rows: &'a Range<usize>,
    scale: f32,
}

impl WithSimd for Softmax<'_> {
    type Output = [(f32, f32); QUERY_BLOCK];

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Self::Output {
        let mut sums = [(0.0, 0.0); QUERY_BLOCK];
        let rows = self
            .scores
            .chunks_exact_mut(self.rows.end)
            .zip(self.rows.clone());
        for ((row, last_key), sums) in rows.zip(&mut sums) {
            let (seen, unseen) = row.split_at_mut(last_key + 1);
            let largest = self.scale * max(simd, seen);
            *sums = (largest, exp_shifted(simd, seen, (self.scale, largest)));
            unseen.fill(0.0);
        }
        sums
    }
}

/// Turns a block's scores (q·kᵀ) into P and its dP (in `slopes`) into dS, both zero above the
/// diagonal.
struct ScoreGradient<'a> {
    scores: &'a mut [f32],
    slopes: &'a mut [f32],
    rows: &'a Range<usize>,
    inputs: &'a Inputs<'a>,
    given: &'a Given<'a>,
    /// Index of the block's first row in [T, H].
    first: usize,
}

impl WithSimd for ScoreGradient<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Dims { H, D, .. } = self.inputs.dims;
        let scale = self.inputs.scale();
        let scale_lanes = simd.splat_f32s(scale);
        let num_keys = self.rows.end;
        let rows = self
            .scores
            .chunks_exact_mut(num_keys)
            .zip(self.rows.clone());
        for (i, ((scores, last_key), slopes)) in
            rows.zip(self.slopes.chunks_exact_mut(num_keys)).enumerate()
        {
            let (p, unseen) = scores.split_at_mut(last_key + 1);
            let (dp, unseen_slopes) = slopes.split_at_mut(last_key + 1);
            let row = self.first + i * H;
            exp_shifted(simd, p, (scale, self.given.log_sum_exp[row]));
            let values = row * D..(row + 1) * D;
            let out = &self.given.out[values.clone()];
            let delta = simd.splat_f32s(dot(simd, out, &self.given.dout[values]));
            update2(
                simd,
                dp,
                p,
                #[inline(always)]
                |dp, p| {
                    let slope = simd.mul_f32s(p, simd.sub_f32s(dp, delta));
                    simd.mul_f32s(slope, scale_lanes)
                },
            );
            unseen.fill(0.0);
            unseen_slopes.fill(0.0);
        }
    }
}
