//! Rows of the embedding table for token ids, and the gradient that goes back to those rows.
#![expect(non_snake_case, reason = "tensors end in their shape")]

use candle_core::Tensor;
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::rows::rows_per_task;
use crate::tensor::{dims2, expect_dims, expect_len, f32_tensor, f32_view};

/// x_TC: for every t, the row of table_VC that `ids[t]` names.
pub fn embedding(ids: &[u32], table_VC: &Tensor) -> Result<Tensor> {
    let (V, C) = dims2("embedding", "table", table_VC)?;
    check_ids("embedding", ids, V)?;
    let table = f32_view("embedding", "table", table_VC)?;
    let mut x = Vec::with_capacity(ids.len() * C);
    for id in ids {
        let start = *id as usize * C;
        x.extend_from_slice(&table[start..start + C]);
    }
    f32_tensor(x, &[ids.len(), C])
}

/// `dtable_VC[ids[t]] += dx_TC[t]` for every t, in the order of t.
///
/// Tasks own ranges of the table's rows, and each looks at every id, so repeated ids are added
/// in one order on any number of threads.
pub fn embedding_grad_accumulate(ids: &[u32], dx_TC: &Tensor, dtable_VC: &mut [f32]) -> Result<()> {
    let op = "embedding_grad_accumulate";
    let (_, C) = dims2(op, "dx", dx_TC)?;
    expect_dims(op, "dx", &[ids.len(), C], dx_TC)?;
    let V = dtable_VC.len() / C.max(1);
    expect_len(op, "dtable", V * C, dtable_VC.len())?;
    check_ids(op, ids, V)?;
    let dx = f32_view(op, "dx", dx_TC)?;
    if dx.is_empty() {
        return Ok(());
    }
    // A few large ranges: every one of them reads all ids.
    let task_rows = rows_per_task(C).max(V.div_ceil(16));
    dtable_VC
        .par_chunks_mut(task_rows * C)
        .enumerate()
        .for_each(|(task, rows)| {
            let first = task * task_rows;
            let owned = first..first + rows.len() / C;
            for (id, dx) in ids.iter().zip(dx.chunks_exact(C)) {
                if owned.contains(&(*id as usize)) {
                    let start = (*id as usize - first) * C;
                    for (sum, value) in rows[start..start + C].iter_mut().zip(dx) {
                        *sum += value;
                    }
                }
            }
        });
    Ok(())
}

fn check_ids(op: &'static str, ids: &[u32], V: usize) -> Result<()> {
    let Some(id) = ids.iter().find(|id| **id as usize >= V) else {
        return Ok(());
    };
    let expected = format!("below the vocabulary size {V}");
    Err(Error::Value {
        op,
        argument: "ids",
        expected,
        found: id.to_string(),
    })
}

#[cfg(test)]
mod tests;
