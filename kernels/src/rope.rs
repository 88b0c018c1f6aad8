//! Rotary position embedding in the layout of Hugging Face Llama ("rotate_half": element i turns
//! with element i + D/2), and its gradient, which turns the other way.
//! Su et al., "RoFormer" (arXiv 2104.09864).
#![expect(non_snake_case, reason = "tensors end in their shape")]

use candle_core::Tensor;
use pulp::Arch;
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::rows::rows_per_task;
use crate::tensor::{dims3, expect_len, f32_tensor, f32_view};

/// Cosines and sines of every position's angles.
#[derive(Clone, Debug)]
pub struct RopeTable {
    /// [max_positions, D/2], row-major.
    cos: Vec<f32>,
    /// [max_positions, D/2], row-major.
    sin: Vec<f32>,
    half_dim: usize,
    max_positions: usize,
}

impl RopeTable {
    /// The angle of position p and frequency i is p·`inverse_frequencies[i]`, in f32 as the
    /// reference implementations compute it; scaling (llama3) is already in the frequencies.
    pub fn new(inverse_frequencies: &[f32], max_positions: usize) -> Self {
        let angles = (0..max_positions)
            .flat_map(|position| inverse_frequencies.iter().map(move |f| position as f32 * f));
        let (cos, sin) = angles
            .map(|a| (f64::from(a).cos() as f32, f64::from(a).sin() as f32))
            .unzip();
        Self {
            cos,
            sin,
            half_dim: inverse_frequencies.len(),
            max_positions,
        }
    }

    /// Positions that the table knows: 0..max_positions.
    pub fn max_positions(&self) -> usize {
        self.max_positions
    }

    /// D, the head dimension that the table is made for.
    pub fn head_dim(&self) -> usize {
        2 * self.half_dim
    }

    /// `[max_positions, D/2]`, row-major.
    pub fn cosines(&self) -> &[f32] {
        &self.cos
    }

    /// `[max_positions, D/2]`, row-major.
    pub fn sines(&self) -> &[f32] {
        &self.sin
    }

    /// The cosines and sines of one position.
    fn row(&self, position: u32) -> (&[f32], &[f32]) {
        let start = position as usize * self.half_dim;
        (
            &self.cos[start..start + self.half_dim],
            &self.sin[start..start + self.half_dim],
        )
    }
}

/// Which way to turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    Forward,
    Back,
}

/// y_THD: every head of x_THD turned by its token's position.
pub fn rope(x_THD: &Tensor, positions: &[u32], table: &RopeTable) -> Result<Tensor> {
    turn("rope", x_THD, positions, table, Turn::Forward)
}

/// The gradient dx_THD of [`rope`]: a rotation is orthogonal, so the gradient turns back.
pub fn rope_backward(dy_THD: &Tensor, positions: &[u32], table: &RopeTable) -> Result<Tensor> {
    turn("rope_backward", dy_THD, positions, table, Turn::Back)
}

/// [`rope`] of one token's heads, one after another, in place.
///
/// # Panics
/// When the table does not know the position.
pub fn rope_row(heads: &mut [f32], position: u32, table: &RopeTable) {
    let (cos, sin) = table.row(position);
    let half = table.half_dim;
    Arch::new().dispatch(|| {
        for head in heads.chunks_exact_mut(2 * half) {
            let (first, second) = head.split_at_mut(half);
            for i in 0..half {
                let (a, b) = (first[i], second[i]);
                first[i] = a * cos[i] - b * sin[i];
                second[i] = b * cos[i] + a * sin[i];
            }
        }
    });
}

fn turn(
    op: &'static str,
    x_THD: &Tensor,
    positions: &[u32],
    table: &RopeTable,
    direction: Turn,
) -> Result<Tensor> {
    let (T, H, D) = dims3(op, "x", x_THD)?;
    expect_len(op, "positions", T, positions.len())?;
    if D != table.head_dim() {
        let expected = format!("{}, as in the table", table.head_dim());
        return Err(Error::Value {
            op,
            argument: "head dim",
            expected,
            found: D.to_string(),
        });
    }
    if let Some(position) = positions
        .iter()
        .find(|p| **p as usize >= table.max_positions)
    {
        let expected = format!("below {}", table.max_positions);
        let found = position.to_string();
        return Err(Error::Value {
            op,
            argument: "positions",
            expected,
            found,
        });
    }
    let x = f32_view(op, "x", x_THD)?;
    let mut y = vec![0.0; x.len()];
    if !y.is_empty() {
        let task_rows = rows_per_task(H * D);
        y.par_chunks_mut(task_rows * H * D)
            .zip(x.par_chunks(task_rows * H * D))
            .zip(positions.par_chunks(task_rows))
            .for_each(|((y, x), positions)| {
                Arch::new().dispatch(|| turn_rows(y, x, (positions, table), direction));
            });
    }
    f32_tensor(y, &[T, H, D])
}

/// The rows of one task; vectorised by the compiler inside `dispatch`.
#[inline(always)]
fn turn_rows(y: &mut [f32], x: &[f32], (positions, table): (&[u32], &RopeTable), direction: Turn) {
    let sign = if direction == Turn::Forward {
        1.0
    } else {
        -1.0
    };
    let half = table.half_dim;
    let row_len = y.len() / positions.len();
    let rows = y
        .chunks_exact_mut(row_len)
        .zip(x.chunks_exact(row_len))
        .zip(positions);
    for ((y, x), position) in rows {
        let (cos, sin) = table.row(*position);
        for (y, x) in y.chunks_exact_mut(2 * half).zip(x.chunks_exact(2 * half)) {
            let (y1, y2) = y.split_at_mut(half);
            let (x1, x2) = x.split_at(half);
            for i in 0..half {
                let sin = sin[i] * sign;
                y1[i] = x1[i] * cos[i] - x2[i] * sin;
                y2[i] = x2[i] * cos[i] + x1[i] * sin;
            }
        }
    }
}

#[cfg(test)]
mod tests;
