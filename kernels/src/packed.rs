//! Products against weights that are stored for serving: y = x·Wᵀ, with W packed once, when it is
//! loaded, in f32, bf16 or int8. One layout serves one row of x and a thousand.
//!
//! # Layout
//! Everything is made of words of 32 bits along the inner dimension: one f32, two bf16 or four
//! int8. A **panel** is 32 outputs; it holds, word after word, two lines of sixteen outputs' words.
//! An instruction then multiplies sixteen outputs by one word of x that stands in all lanes, so
//! nothing is ever summed across lanes, and a panel is read from front to back, once, as memory
//! likes it best. x is copied into words of the same kind before (`Activations`), row by row.
//!
//! # Order of a sum
//! Each element is summed over the inner dimension in **runs** of 256 words: within a run one chain
//! of multiply-adds, k rising (in int8 a chain for each quantization group, exact, and one of the
//! groups times their scales); the runs added in turn.
//! That order has no room for the number of rows, threads or tasks, so a row's result is the same
//! to the bit in every batch. It is also what a plain loop does (`portable`), and in f32 every
//! machine with fused multiply-add gives the same bits.
//!
//! # Why our own
//! The libraries at hand lose on exactly what a server does: crate `gemm` (0.19) has no packed
//! weights, no bf16 instructions, and at one row a third of the memory's bandwidth; oneDNN and MKL
//! pack and are fast, but choose kernels and split sums by the number of rows, so a row's bits
//! depend on its batch, and they would bring a C++ build or a binary. What is left to write is one
//! tile loop with an instruction per element type.
use crate::crew::Crew;
use crate::error::Result;
use crate::step::{Isa, Output};
use crate::tensor::expect_len;

mod activations;
mod product;
mod weight;

#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

pub use activations::Activations;
pub use weight::{Weight, WeightBuilder, WeightFormat};

/// Outputs of a panel: two vectors of sixteen.
pub(crate) const PANEL: usize = 32;

/// y_TO = x_TC · w_OCᵀ, or y_TO += x_TC · w_OCᵀ, with x already packed for w's format. A row of y
/// depends on its row of x alone: it has the same bits in every batch.
pub fn linear_packed(
    x: &Activations,
    w: &Weight,
    (y, output): (&mut [f32], Output),
    crew: &Crew,
) -> Result<()> {
    let op = "linear_packed";
    expect_len(op, "x", w.num_inputs(), x.num_inputs())?;
    expect_len(op, "y", x.num_rows() * w.num_outputs(), y.len())?;
    assert_eq!(x.format(), w.format(), "x was packed for another format");
    product::product(x, w, (y, output), (crew, Isa::detect()));
    Ok(())
}

#[cfg(test)]
mod tests;
