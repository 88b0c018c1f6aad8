//! Between candle tensors and slices: the one place where kernels look into a tensor's storage.
//! Reads borrow the storage, they copy nothing.

use std::cell::Cell;
use std::ops::{Deref, Range};

use candle_core::{CpuStorage, DType, Device, InplaceOp1, Layout, Storage, StorageRef, Tensor};

use crate::error::{Error, Result};

/// The f32 values of a contiguous CPU tensor, borrowed. Holds the tensor's read lock while alive.
pub struct F32View<'a> {
    storage: StorageRef<'a>,
    range: Range<usize>,
}

impl std::fmt::Debug for F32View<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "F32View({} values)", self.range.len())
    }
}

impl Deref for F32View<'_> {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match &*self.storage {
            Storage::Cpu(CpuStorage::F32(values)) => &values[self.range.clone()],
            _ => unreachable!("checked when the view was made"),
        }
    }
}

/// Borrows the values of `tensor` in row-major order. Copies nothing.
///
/// # Errors
/// When the tensor is not contiguous, not f32, or not on the CPU; the error names `argument`.
pub fn f32_view<'a>(
    op: &'static str,
    argument: &'static str,
    tensor: &'a Tensor,
) -> Result<F32View<'a>> {
    if tensor.dtype() != DType::F32 {
        return Err(Error::DType {
            op,
            argument,
            found: tensor.dtype(),
        });
    }
    let (storage, layout) = tensor.storage_and_layout();
    if !matches!(&*storage, Storage::Cpu(_)) {
        let found = format!("{:?}", tensor.device().location());
        return Err(Error::Device {
            op,
            argument,
            found,
        });
    }
    let Some((start, end)) = layout.contiguous_offsets() else {
        return Err(Error::NotContiguous {
            op,
            argument,
            shape: layout.dims().to_vec(),
            strides: layout.stride().to_vec(),
        });
    };
    Ok(F32View {
        storage,
        range: start..end,
    })
}

/// Runs `update` on the values of a contiguous f32 CPU tensor, in place. Tensors that share the
/// storage (clones, views) see the change; this is how an optimiser steps weights that the network
/// holds as tensors.
///
/// # Errors
/// As [`f32_view`].
pub fn f32_update(
    op: &'static str,
    argument: &'static str,
    tensor: &Tensor,
    update: impl FnOnce(&mut [f32]),
) -> Result<()> {
    drop(f32_view(op, argument, tensor)?); // the checks, with the lock given back
    Ok(tensor.inplace_op1(&Update {
        name: op,
        update: Cell::new(Some(update)),
    })?)
}

/// An [`InplaceOp1`] around a closure that is called once.
struct Update<F> {
    name: &'static str,
    update: Cell<Option<F>>,
}

impl<F: FnOnce(&mut [f32])> InplaceOp1 for Update<F> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let CpuStorage::F32(values) = storage else {
            candle_core::bail!("{}: not f32", self.name)
        };
        let Some((start, end)) = layout.contiguous_offsets() else {
            candle_core::bail!("{}: not contiguous", self.name)
        };
        if let Some(update) = self.update.take() {
            update(&mut values[start..end]);
        }
        Ok(())
    }
}

/// A CPU tensor that takes over `values`.
pub(crate) fn f32_tensor(values: Vec<f32>, shape: &[usize]) -> Result<Tensor> {
    Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
}

/// The two dimensions of a matrix, or an error that names it.
pub(crate) fn dims2(
    op: &'static str,
    argument: &'static str,
    tensor: &Tensor,
) -> Result<(usize, usize)> {
    match *tensor.dims() {
        [rows, columns] => Ok((rows, columns)),
        _ => Err(shape_error(op, argument, "two dimensions", tensor.dims())),
    }
}

/// The three dimensions of a tensor, or an error that names it.
pub(crate) fn dims3(
    op: &'static str,
    argument: &'static str,
    tensor: &Tensor,
) -> Result<(usize, usize, usize)> {
    match *tensor.dims() {
        [first, second, third] => Ok((first, second, third)),
        _ => Err(shape_error(op, argument, "three dimensions", tensor.dims())),
    }
}

/// Checks a shape that other arguments determine.
pub(crate) fn expect_dims(
    op: &'static str,
    argument: &'static str,
    expected: &[usize],
    tensor: &Tensor,
) -> Result<()> {
    if tensor.dims() == expected {
        return Ok(());
    }
    Err(shape_error(
        op,
        argument,
        &format!("{expected:?}"),
        tensor.dims(),
    ))
}

/// Checks the length of a slice or list that other arguments determine.
pub(crate) fn expect_len(
    op: &'static str,
    argument: &'static str,
    expected: usize,
    found: usize,
) -> Result<()> {
    if expected == found {
        return Ok(());
    }
    Err(shape_error(
        op,
        argument,
        &format!("[{expected}]"),
        &[found],
    ))
}

/// An [`Error::Shape`].
pub(crate) fn shape_error(
    op: &'static str,
    argument: &'static str,
    expected: &str,
    found: &[usize],
) -> Error {
    Error::Shape {
        op,
        argument,
        expected: expected.to_owned(),
        found: found.to_vec(),
    }
}
