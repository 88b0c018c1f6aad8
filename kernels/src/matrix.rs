//! A weight matrix as training holds it: trained in f32 or bf16, or frozen in bf16 or int8.
//! Products read it as it is stored (see `matmul`); nothing widens it whole.
#![expect(non_snake_case, reason = "tensors end in their shape")]

use std::sync::Arc;

use candle_core::{DType, Tensor};
use half::bf16;
use rayon::prelude::*;

use crate::error::Result;
use crate::matmul::Values;
use crate::tensor::{View, bf16_view, dims2, f32_tensor, f32_view};

/// What the factors of a product are rounded to, to nearest with ties to even. Sums are f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compute {
    F32,
    Bf16,
}

/// How a [`Matrix`] is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MatrixFormat {
    F32,
    Bf16,
    /// One byte a weight and an f32 scale for [`INT8_GROUP`] of them: 1.06 bytes. For frozen ones.
    Int8,
}

/// Neighbouring inputs of an output that share a scale, as QLoRA's blocks (arXiv 2305.14314) and of
/// their size. The scales cost 6 % of the bytes; groups of 128, as in serving, would save half of
/// that and have a larger largest value, thus coarser steps: some 6 % for normal values. Packing
/// reads 32 values at a time of one group (see `matmul`), so a group is a multiple of that.
pub const INT8_GROUP: usize = 64;

/// A weight matrix w_OC: O outputs, C inputs. Its tensors are contiguous and on the CPU; clones
/// share them.
#[derive(Debug, Clone)]
pub enum Matrix {
    F32(Tensor),
    Bf16(Tensor),
    Int8(Arc<Int8Matrix>),
}

/// w_OC in whole numbers from -127 to 127, times the scale of their group.
pub struct Int8Matrix {
    pub(crate) num_inputs: usize,
    /// [O, C]
    pub(crate) values: Vec<i8>,
    /// [O, groups of C]: the largest magnitude of the group over 127.
    pub(crate) scales: Vec<f32>,
    num_outputs: usize,
}

impl std::fmt::Debug for Int8Matrix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Int8Matrix([{}, {}])", self.num_outputs, self.num_inputs)
    }
}

impl Matrix {
    /// Stores `values_OC`, which are f32. In [`MatrixFormat::F32`] the tensor is taken over, not
    /// copied: whoever shares it sees it change.
    pub fn new(values_OC: Tensor, format: MatrixFormat) -> Result<Self> {
        let op = "Matrix::new";
        dims2(op, "values", &values_OC)?;
        let values = f32_view(op, "values", &values_OC)?;
        match format {
            MatrixFormat::F32 => {
                drop(values);
                Ok(Self::F32(values_OC))
            }
            MatrixFormat::Bf16 => {
                let rounded: Vec<bf16> = values.par_iter().map(|x| bf16::from_f32(*x)).collect();
                let tensor = Tensor::from_vec(rounded, values_OC.dims(), values_OC.device())?;
                Ok(Self::Bf16(tensor))
            }
            MatrixFormat::Int8 => Ok(Self::Int8(Arc::new(Int8Matrix::new(
                &values,
                dims2(op, "values", &values_OC)?,
            )))),
        }
    }

    /// (O, C).
    pub fn dims(&self) -> (usize, usize) {
        match self {
            Self::F32(tensor) | Self::Bf16(tensor) => match *tensor.dims() {
                [rows, columns] => (rows, columns),
                _ => (0, 0),
            },
            Self::Int8(matrix) => (matrix.num_outputs, matrix.num_inputs),
        }
    }

    pub fn format(&self) -> MatrixFormat {
        match self {
            Self::F32(_) => MatrixFormat::F32,
            Self::Bf16(_) => MatrixFormat::Bf16,
            Self::Int8(_) => MatrixFormat::Int8,
        }
    }

    /// Of the values and scales.
    pub fn num_bytes(&self) -> usize {
        match self {
            Self::F32(tensor) => 4 * tensor.elem_count(),
            Self::Bf16(tensor) => 2 * tensor.elem_count(),
            Self::Int8(matrix) => matrix.values.len() + 4 * matrix.scales.len(),
        }
    }

    /// The values that products see, [O, C]. In f32 the tensor itself.
    pub fn to_f32(&self) -> Result<Tensor> {
        match self {
            Self::F32(tensor) => Ok(tensor.clone()),
            Self::Bf16(tensor) => Ok(tensor.to_dtype(DType::F32)?),
            Self::Int8(matrix) => {
                let mut values = vec![0.0; matrix.values.len()];
                let rows = values.par_chunks_mut(matrix.num_inputs.max(1));
                rows.enumerate()
                    .for_each(|(row, out)| matrix.copy_row(row, out));
                f32_tensor(values, &[matrix.num_outputs, matrix.num_inputs])
            }
        }
    }

    /// Borrows the values, checked: a caller may have put any tensor into a variant.
    pub(crate) fn view(&self, op: &'static str, argument: &'static str) -> Result<MatrixView<'_>> {
        if let Self::F32(tensor) | Self::Bf16(tensor) = self {
            dims2(op, argument, tensor)?;
        }
        Ok(match self {
            Self::F32(tensor) => MatrixView::F32(f32_view(op, argument, tensor)?),
            Self::Bf16(tensor) => MatrixView::Bf16(bf16_view(op, argument, tensor)?),
            Self::Int8(matrix) => MatrixView::Int8(matrix),
        })
    }
}

impl Int8Matrix {
    fn new(values_OC: &[f32], (num_outputs, num_inputs): (usize, usize)) -> Self {
        let num_groups = num_inputs.div_ceil(INT8_GROUP);
        let mut matrix = Self {
            num_inputs,
            values: vec![0; values_OC.len()],
            scales: vec![0.0; num_outputs * num_groups],
            num_outputs,
        };
        if values_OC.is_empty() {
            return matrix;
        }
        let rows = matrix
            .values
            .par_chunks_mut(num_inputs)
            .zip(matrix.scales.par_chunks_mut(num_groups))
            .zip(values_OC.par_chunks(num_inputs));
        rows.for_each(|((out, scales), row)| {
            let groups = out.chunks_mut(INT8_GROUP).zip(row.chunks(INT8_GROUP));
            for ((out, group), scale) in groups.zip(scales) {
                *scale = quantize(out, group);
            }
        });
        matrix
    }

    /// Writes a row's values.
    pub(crate) fn copy_row(&self, row: usize, out: &mut [f32]) {
        let num_groups = self.num_inputs.div_ceil(INT8_GROUP);
        let scales = &self.scales[row * num_groups..];
        let values = &self.values[row * self.num_inputs..][..self.num_inputs];
        for (i, (out, value)) in out.iter_mut().zip(values).enumerate() {
            *out = f32::from(*value) * scales[i / INT8_GROUP];
        }
    }
}

/// Rounds a group to whole numbers of its scale, which is returned. What is not finite makes the
/// scale so, and with it the whole group.
fn quantize(out: &mut [i8], group: &[f32]) -> f32 {
    let largest = group.iter().fold(0.0_f32, |max, x| max.max(x.abs()));
    let poison: f32 = group.iter().map(|x| x * 0.0).sum();
    let scale = largest / 127.0 + poison;
    let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
    for (out, value) in out.iter_mut().zip(group) {
        *out = (value * inverse).round_ties_even().clamp(-127.0, 127.0) as i8;
    }
    scale
}

/// The values of a [`Matrix`], borrowed.
#[derive(Debug)]
pub(crate) enum MatrixView<'a> {
    F32(View<'a, f32>),
    Bf16(View<'a, bf16>),
    Int8(&'a Int8Matrix),
}

impl MatrixView<'_> {
    pub(crate) fn values(&self) -> Values<'_> {
        match self {
            Self::F32(view) => Values::F32(view),
            Self::Bf16(view) => Values::Bf16(view),
            Self::Int8(matrix) => Values::Int8(matrix),
        }
    }
}

#[cfg(test)]
mod tests;
