//! Attention for serving: new tokens' queries against keys and values in a paged cache, which are
//! read in place through block tables. Prefill, a chunk of it, and decode are the same call.
//!
//! A query row's result depends on its own query and on the keys and values it sees, and on
//! nothing else: not on the other rows or sequences of the call, the block size, the place of the
//! blocks, or the number of threads. A task takes several rows at once, so that they share the loads
//! of keys and values, but each has its own sums, in its own order: a score along D; the largest
//! score and the sum of exponentials over the row's own keys; the output over its keys, position by
//! position. What a later row of the task sees besides is added to that row alone.
//!
//! A task's scores are held whole (context_len floats a row), so softmax is the plain two-pass one.
#![expect(
    non_snake_case,
    reason = "dimensions have the names of the shape letters"
)]
#![expect(unsafe_code, reason = "tasks write disjoint parts of one output")]

use std::ops::Range;

use crate::crew::{Crew, Shareable};
use crate::error::{Error, Result};
use crate::kv_cache::{KvLayer, KvShape};
use crate::step::Isa;
use crate::tensor::expect_len;

mod mix;
mod scores;
mod task;

/// Multiplications below which a call stays on its thread.
const MIN_PARALLEL_WORK: usize = 1 << 16;
/// Rows of a task at most: as many as a tile of scores has.
const MAX_TASK_ROWS: usize = 12;

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

/// Rows with the queries in them, H·D each, at their beginning.
#[derive(Clone, Copy, Debug)]
pub struct QueryRows<'a> {
    pub values: &'a [f32],
    /// From one row to the next.
    pub row_len: usize,
}

/// A checked batch, cut into tasks: made once for all layers of a step.
#[derive(Debug)]
pub struct AttentionPlan {
    shape: KvShape,
    /// H.
    num_heads: usize,
    sequences: Vec<Sequence>,
    tasks: Vec<Task>,
    num_rows: usize,
    /// Multiplications of a layer.
    work: usize,
}

#[derive(Debug)]
struct Sequence {
    first_row: usize,
    query_len: usize,
    context_len: usize,
    blocks: Vec<u32>,
}

/// Some rows of one sequence and some query heads that read one key/value head.
#[derive(Clone, Debug)]
struct Task {
    sequence: usize,
    /// Of the sequence's new tokens.
    queries: Range<usize>,
    kv_head: usize,
    heads: Range<usize>,
}

impl AttentionPlan {
    /// Checks `batch` against the cache it is for. `num_heads` is H, a multiple of G.
    pub fn new(batch: &PagedBatch, shape: KvShape, num_heads: usize) -> Result<Self> {
        let G = shape.num_kv_heads;
        if num_heads == 0 || !num_heads.is_multiple_of(G) {
            return Err(Error::Value {
                op: "AttentionPlan::new",
                argument: "num_heads",
                expected: format!("a positive multiple of {G}"),
                found: num_heads.to_string(),
            });
        }
        let mut plan = Self {
            shape,
            num_heads,
            sequences: Vec::with_capacity(batch.sequences.len()),
            tasks: Vec::new(),
            num_rows: 0,
            work: 0,
        };
        for sequence in &batch.sequences {
            let blocks = checked_blocks(sequence, shape)?;
            let PagedSequence {
                query_len,
                context_len,
                ..
            } = *sequence;
            plan.sequences.push(Sequence {
                first_row: plan.num_rows,
                query_len,
                context_len,
                blocks,
            });
            plan.num_rows += query_len;
            plan.work += 2 * num_heads * shape.head_dim * query_len * context_len;
            plan.cut();
        }
        // The longest first, so that no thread is left with one at the end.
        let seen = |task: &Task| {
            let sequence = &plan.sequences[task.sequence];
            sequence.seen_by(task.queries.end - 1) * task.queries.len()
        };
        plan.tasks.sort_by_key(|task| std::cmp::Reverse(seen(task)));
        Ok(plan)
    }

    /// Adds the tasks of the last sequence.
    fn cut(&mut self) {
        let sequence = self.sequences.len() - 1;
        let group = self.num_heads / self.shape.num_kv_heads;
        let heads_per_task = group.div_ceil(group.div_ceil(MAX_TASK_ROWS));
        let queries_per_task = (MAX_TASK_ROWS / heads_per_task).max(1);
        let query_len = self.sequences[sequence].query_len;
        for first_query in (0..query_len).step_by(queries_per_task) {
            for kv_head in 0..self.shape.num_kv_heads {
                for first in (0..group).step_by(heads_per_task) {
                    let heads = kv_head * group + first
                        ..kv_head * group + group.min(first + heads_per_task);
                    self.tasks.push(Task {
                        sequence,
                        queries: first_query..query_len.min(first_query + queries_per_task),
                        kv_head,
                        heads,
                    });
                }
            }
        }
    }
}

impl Sequence {
    /// Keys that a new token sees.
    fn seen_by(&self, query: usize) -> usize {
        self.context_len - self.query_len + query + 1
    }
}

fn checked_blocks(sequence: &PagedSequence, shape: KvShape) -> Result<Vec<u32>> {
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
    Ok(blocks.to_vec())
}

/// out_THD = softmax(q·kᵀ/√D, over the keys up to the query's own position)·v, each row against
/// its sequence. Query head h reads key/value head h / (H / G).
pub fn paged_attention(
    q: &QueryRows<'_>,
    out: &mut [f32],
    (layer, plan): (&KvLayer, &AttentionPlan),
    crew: &Crew,
) -> Result<()> {
    attend(q, out, (layer, plan), (crew, Isa::detect()))
}

fn attend(
    q: &QueryRows<'_>,
    out: &mut [f32],
    (layer, plan): (&KvLayer, &AttentionPlan),
    (crew, isa): (&Crew, Isa),
) -> Result<()> {
    let op = "paged_attention";
    let width = plan.num_heads * plan.shape.head_dim;
    expect_len(op, "q", plan.num_rows * q.row_len, q.values.len())?;
    expect_len(op, "out", plan.num_rows * width, out.len())?;
    if q.row_len < width {
        return Err(Error::Value {
            op,
            argument: "row_len",
            expected: format!("at least {width}"),
            found: q.row_len.to_string(),
        });
    }
    assert_eq!(layer.shape(), plan.shape, "the plan is for another cache");
    let (k, v) = layer.cpu();
    let call = task::Call {
        plan,
        q: *q,
        k,
        v,
        lines: plan.shape.block_lines(),
        out: Shareable(out.as_mut_ptr()),
    };
    // SAFETY: each task has rows and heads of its own, inside `out`; the instruction set was detected.
    let run = |i: usize| unsafe { call.run(&plan.tasks[i], isa) };
    if plan.work < MIN_PARALLEL_WORK {
        (0..plan.tasks.len()).for_each(run);
    } else {
        crew.for_each(plan.tasks.len(), run);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
