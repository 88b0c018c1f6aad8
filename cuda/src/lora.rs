//! What adapters beside a weight matrix need around their products. T tokens.
#![expect(
    unsafe_code,
    reason = "kernels are launched with arguments that were checked"
)]

use std::ops::Range;

use cudarc::driver::{CudaView, CudaViewMut, PushKernelArg};
use half::bf16;

use crate::{
    Device,
    error::{Error, Result, expect_len, expect_multiple},
    launch::thread_each,
};

/// Which values are left out: value i where SplitMix64 of (key, i) says so.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dropout {
    pub key: u64,
    /// Odds that a value is left out, below 1.
    pub odds: f32,
}

impl Dropout {
    /// The odds in 2^-53, and what the others are multiplied by.
    fn numbers(self) -> (u64, f32) {
        let limit = f64::from(self.odds) * (1_u64 << 53) as f64;
        (limit as u64, 1.0 / (1.0 - self.odds))
    }
}

/// Some of the columns of rows that are `stride` long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Columns {
    pub stride: usize,
    pub range: Range<usize>,
}

impl Columns {
    /// Of `whole` [T, stride] and `part` [T, range].
    fn check(&self, op: &'static str, (whole, part): (usize, usize)) -> Result<()> {
        let width = self.range.len();
        expect_multiple(op, "columns", 2, width)?;
        expect_multiple(op, "stride", 2, self.stride)?;
        let fits = self.range.end <= self.stride && self.range.start.is_multiple_of(2);
        if !fits {
            let expected = format!("columns of {}, from an even one on", self.stride);
            return Err(Error::argument(
                op,
                "columns",
                expected,
                format!("{:?}", self.range),
            ));
        }
        expect_len(op, "whole", part / width * self.stride, whole)?;
        expect_multiple(op, "part", width, part)
    }
}

/// y bf16 = factor · x, of the same even length.
pub fn scale_round(
    device: &Device,
    x: &CudaView<'_, f32>,
    y: &mut CudaViewMut<'_, bf16>,
    factor: f32,
) -> Result<()> {
    let len = x.len();
    expect_len("scale_round", "y", len, y.len())?;
    expect_multiple("scale_round", "x", 2, len)?;
    let function = device.function("scale_round")?;
    let mut launch = device.stream().launch_builder(&function);
    launch.arg(x).arg(y).arg(&len).arg(&factor);
    // SAFETY: both have `len` values, an even number; a thread works on two of them.
    unsafe { launch.launch(thread_each(len / 2)) }.map_err(Error::driver("scale_round"))?;
    Ok(())
}

/// Columns of y [T, stride] += delta [T, columns].
pub fn add_columns(
    device: &Device,
    delta: &CudaView<'_, f32>,
    y: &mut CudaViewMut<'_, bf16>,
    columns: &Columns,
) -> Result<()> {
    let len = delta.len();
    columns.check("add_columns", (y.len(), len))?;
    let function = device.function("add_columns")?;
    let (width, stride) = (columns.range.len() as i32, columns.stride as i32);
    let first = columns.range.start as i32;
    let mut launch = device.stream().launch_builder(&function);
    launch.arg(delta).arg(y).arg(&len);
    launch.arg(&width).arg(&stride).arg(&first);
    // SAFETY: the lengths fit the columns, all even; a thread works on two values.
    unsafe { launch.launch(thread_each(len / 2)) }.map_err(Error::driver("add_columns"))?;
    Ok(())
}

/// y [T, columns] = columns of x [T, stride].
pub fn take_columns(
    device: &Device,
    x: &CudaView<'_, bf16>,
    y: &mut CudaViewMut<'_, bf16>,
    columns: &Columns,
) -> Result<()> {
    let len = y.len();
    columns.check("take_columns", (x.len(), len))?;
    let function = device.function("take_columns")?;
    let (width, stride) = (columns.range.len() as i32, columns.stride as i32);
    let first = columns.range.start as i32;
    let mut launch = device.stream().launch_builder(&function);
    launch.arg(x).arg(y).arg(&len);
    launch.arg(&width).arg(&stride).arg(&first);
    // SAFETY: the lengths fit the columns, all even; a thread works on two values.
    unsafe { launch.launch(thread_each(len / 2)) }.map_err(Error::driver("take_columns"))?;
    Ok(())
}

/// y = x with some values left out and the others raised, of the same even length.
pub fn dropout(
    device: &Device,
    x: &CudaView<'_, bf16>,
    y: &mut CudaViewMut<'_, bf16>,
    dropout: Dropout,
) -> Result<()> {
    let len = x.len();
    expect_len("dropout", "y", len, y.len())?;
    expect_multiple("dropout", "x", 2, len)?;
    let function = device.function("dropout")?;
    let (limit, raised) = dropout.numbers();
    let mut launch = device.stream().launch_builder(&function);
    launch.arg(x).arg(y).arg(&len);
    launch.arg(&dropout.key).arg(&limit).arg(&raised);
    // SAFETY: both have `len` values, an even number; a thread works on two of them.
    unsafe { launch.launch(thread_each(len / 2)) }.map_err(Error::driver("dropout"))?;
    Ok(())
}

/// As [`dropout`], of f32 values in place: its gradient.
pub fn dropout_f32(device: &Device, x: &mut CudaViewMut<'_, f32>, dropout: Dropout) -> Result<()> {
    let len = x.len();
    expect_multiple("dropout_f32", "x", 2, len)?;
    let function = device.function("dropout_f32")?;
    let (limit, raised) = dropout.numbers();
    let mut launch = device.stream().launch_builder(&function);
    launch.arg(x).arg(&len);
    launch.arg(&dropout.key).arg(&limit).arg(&raised);
    // SAFETY: there are `len` values, an even number; a thread works on two of them.
    unsafe { launch.launch(thread_each(len / 2)) }.map_err(Error::driver("dropout_f32"))?;
    Ok(())
}
