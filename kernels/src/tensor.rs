//! Between candle tensors and slices: the one place where kernels look into a tensor's storage.
//! Reads borrow the storage, they copy nothing.

use std::cell::Cell;
use std::ops::{Deref, Range};

use candle_core::{CpuStorage, DType, Device, InplaceOp1, Layout, Storage, StorageRef, Tensor};
use half::bf16;

use crate::error::{Error, Result};

/// The values of a contiguous CPU tensor, borrowed. Holds the tensor's read lock while alive.
pub struct View<'a, T> {
    storage: StorageRef<'a>,
    range: Range<usize>,
    values: fn(&CpuStorage) -> Option<&[T]>,
}

impl<T> std::fmt::Debug for View<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "View({} values)", self.range.len())
    }
}

impl<T> Deref for View<'_, T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        let Storage::Cpu(storage) = &*self.storage else {
            unreachable!("checked when the view was made")
        };
        let values = (self.values)(storage).expect("checked when the view was made");
        &values[self.range.clone()]
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
) -> Result<View<'a, f32>> {
    view(
        (op, argument),
        tensor,
        DType::F32,
        |storage| match storage {
            CpuStorage::F32(values) => Some(values),
            _ => None,
        },
    )
}

/// As [`f32_view`], of a bf16 tensor.
///
/// # Errors
/// As [`f32_view`].
pub fn bf16_view<'a>(
    op: &'static str,
    argument: &'static str,
    tensor: &'a Tensor,
) -> Result<View<'a, bf16>> {
    view(
        (op, argument),
        tensor,
        DType::BF16,
        |storage| match storage {
            CpuStorage::BF16(values) => Some(values),
            _ => None,
        },
    )
}

fn view<'a, T>(
    (op, argument): (&'static str, &'static str),
    tensor: &'a Tensor,
    expected: DType,
    values: fn(&CpuStorage) -> Option<&[T]>,
) -> Result<View<'a, T>> {
    if tensor.dtype() != expected {
        return Err(Error::DType {
            op,
            argument,
            expected,
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
    Ok(View {
        storage,
        range: start..end,
        values,
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
    run_update(op, tensor, update, |storage| match storage {
        CpuStorage::F32(values) => Some(values),
        _ => None,
    })
}

/// As [`f32_update`], of a bf16 tensor.
///
/// # Errors
/// As [`f32_view`].
pub fn bf16_update(
    op: &'static str,
    argument: &'static str,
    tensor: &Tensor,
    update: impl FnOnce(&mut [bf16]),
) -> Result<()> {
    drop(bf16_view(op, argument, tensor)?);
    run_update(op, tensor, update, |storage| match storage {
        CpuStorage::BF16(values) => Some(values),
        _ => None,
    })
}

fn run_update<T>(
    name: &'static str,
    tensor: &Tensor,
    update: impl FnOnce(&mut [T]),
    values: fn(&mut CpuStorage) -> Option<&mut [T]>,
) -> Result<()> {
    let run = Cell::new(Some(update));
    Ok(tensor.inplace_op1(&Update { name, run, values })?)
}

/// An [`InplaceOp1`] around a closure that is called once.
struct Update<F, T> {
    name: &'static str,
    run: Cell<Option<F>>,
    values: fn(&mut CpuStorage) -> Option<&mut [T]>,
}

impl<T, F: FnOnce(&mut [T])> InplaceOp1 for Update<F, T> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let Some(values) = (self.values)(storage) else {
            candle_core::bail!("{}: another dtype", self.name)
        };
        let Some((start, end)) = layout.contiguous_offsets() else {
            candle_core::bail!("{}: not contiguous", self.name)
        };
        if let Some(update) = self.run.take() {
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
