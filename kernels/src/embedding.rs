//! Rows of the embedding table for token ids, the gradient that goes back to those rows, and rows of
//! a tensor by number.
#![expect(non_snake_case, reason = "tensors end in their shape")]

use candle_core::Tensor;
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::matrix::{Matrix, MatrixView};
use crate::rows::rows_per_task;
use crate::tensor::{dims2, expect_dims, expect_len, f32_tensor, f32_view};

/// x_TC: for every t, the row of table_VC that `ids[t]` names, in f32.
pub fn embedding(ids: &[u32], table_VC: &Matrix) -> Result<Tensor> {
    let op = "embedding";
    let (V, C) = table_VC.dims();
    check_ids((op, "ids"), ids, V)?;
    let mut x = Vec::with_capacity(ids.len() * C);
    match table_VC.view(op, "table")? {
        MatrixView::F32(table) => {
            for id in ids {
                x.extend_from_slice(&table[*id as usize * C..][..C]);
            }
        }
        MatrixView::Bf16(table) => {
            for id in ids {
                let row = &table[*id as usize * C..][..C];
                x.extend(row.iter().map(|value| value.to_f32()));
            }
        }
        MatrixView::Int8(table) => {
            let mut row = vec![0.0; C];
            for id in ids {
                table.copy_row(*id as usize, &mut row);
                x.extend_from_slice(&row);
            }
        }
    }
    f32_tensor(x, &[ids.len(), C])
}

/// The rows of x_TC with these numbers, [as many, C].
pub fn gather_rows(rows: &[u32], x_TC: &Tensor) -> Result<Tensor> {
    let op = "gather_rows";
    let (T, C) = dims2(op, "x", x_TC)?;
    check_ids((op, "rows"), rows, T)?;
    let x = f32_view(op, "x", x_TC)?;
    let mut gathered = Vec::with_capacity(rows.len() * C);
    for row in rows {
        gathered.extend_from_slice(&x[*row as usize * C..][..C]);
    }
    f32_tensor(gathered, &[rows.len(), C])
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
    check_ids((op, "ids"), ids, V)?;
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

fn check_ids(
    (op, argument): (&'static str, &'static str),
    ids: &[u32],
    num_rows: usize,
) -> Result<()> {
    let Some(id) = ids.iter().find(|id| **id as usize >= num_rows) else {
        return Ok(());
    };
    let expected = format!("below {num_rows}, the number of rows");
    Err(Error::Value {
        op,
        argument,
        expected,
        found: id.to_string(),
    })
}

#[cfg(test)]
mod tests;
