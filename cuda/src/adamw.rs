//! One step of AdamW for one parameter, with the bits of `kernels::adamw_step`.
#![expect(
    unsafe_code,
    reason = "kernels are launched with the arguments they are declared with"
)]

use cudarc::driver::{CudaView, CudaViewMut, DevicePtr, DevicePtrMut, DeviceRepr, PushKernelArg};
use half::bf16;

use crate::{
    Device,
    error::{Error, Result, expect_len},
    launch::blocks,
};

/// Values that share a scale in 8 bits, and that a block works on.
const BLOCK: usize = 256;

/// Values and borders of both codes.
const TABLES_LEN: usize = 4 * 256;

/// The step's constants, each worked out in f64 and rounded once.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWFactors {
    /// 1 − lr · weight decay.
    pub keep: f32,
    pub beta1: f32,
    pub beta2: f32,
    pub one_minus_beta1: f32,
    pub one_minus_beta2: f32,
    /// lr / (1 − β1^step).
    pub rate: f32,
    /// 1 / √(1 − β2^step).
    pub inverse_root_correction2: f32,
    pub eps: f32,
    /// What the gradient is multiplied by first.
    pub grad_scale: f32,
}
// SAFETY: plain numbers, as the kernel declares them.
unsafe impl DeviceRepr for AdamWFactors {}

/// A parameter's values.
#[derive(Debug)]
pub enum AdamWParameter<'a, 'b> {
    F32(&'a mut CudaViewMut<'b, f32>),
    /// With a copy that is rounded to nearest.
    F32WithCopy(&'a mut CudaViewMut<'b, f32>, &'a mut CudaViewMut<'b, bf16>),
    /// Rounded stochastically.
    Bf16(&'a mut CudaViewMut<'b, bf16>),
}

/// Both running means, first and second, as `kernels::Moments` has them.
#[derive(Debug)]
pub enum AdamWMoments<'a, 'b> {
    F32([&'a mut CudaViewMut<'b, f32>; 2]),
    /// Rounded stochastically.
    Bf16([&'a mut CudaViewMut<'b, bf16>; 2]),
    Int8 {
        codes: [&'a mut CudaViewMut<'b, u8>; 2],
        /// One for each block of 256 values.
        scales: [&'a mut CudaViewMut<'b, f32>; 2],
        /// Values and borders of the first moment's code, then of the second's: `kernels::moment_tables`.
        tables: &'a CudaView<'b, f32>,
    },
}

/// Addresses; zero where there is nothing.
#[repr(C)]
#[derive(Clone, Copy)]
struct Addresses {
    first: u64,
    second: u64,
    first_scales: u64,
    second_scales: u64,
    tables: u64,
}
// SAFETY: addresses of device memory, as the kernel declares them.
unsafe impl DeviceRepr for Addresses {}

/// One step in place. `key`: of the random bits, another one for each parameter and step.
pub fn adamw(
    device: &Device,
    parameter: AdamWParameter<'_, '_>,
    gradient: &CudaView<'_, f32>,
    mut moments: AdamWMoments<'_, '_>,
    (factors, key): (&AdamWFactors, u64),
) -> Result<()> {
    let len = gradient.len();
    let (name, addresses) = addresses(device, &mut moments, len)?;
    let stream = device.stream();
    let (wide, narrow) = match parameter {
        AdamWParameter::F32(wide) => (address(device, ("parameter", len), wide)?, 0),
        AdamWParameter::F32WithCopy(wide, copy) => (
            address(device, ("parameter", len), wide)?,
            address(device, ("copy", len), copy)?,
        ),
        AdamWParameter::Bf16(narrow) => (0, address(device, ("parameter", len), narrow)?),
    };
    if len == 0 {
        return Ok(());
    }
    let function = device.function(name)?;
    let mut launch = stream.launch_builder(&function);
    launch.arg(&wide).arg(&narrow).arg(gradient);
    launch.arg(&addresses).arg(&len).arg(factors).arg(&key);
    let config = blocks(len.div_ceil(BLOCK), BLOCK as u32);
    // SAFETY: lengths were checked; everything is borrowed until the launch, and used on one stream.
    unsafe { launch.launch(config) }.map_err(Error::driver(name))?;
    Ok(())
}

/// Of memory that has `len` values.
fn address<T>(
    device: &Device,
    (argument, len): (&'static str, usize),
    view: &mut CudaViewMut<'_, T>,
) -> Result<u64> {
    expect_len("adamw", argument, len, view.len())?;
    let (address, _) = view.device_ptr_mut(device.stream());
    Ok(address)
}

/// The kernel for moments of this kind, and where they are.
fn addresses(
    device: &Device,
    moments: &mut AdamWMoments<'_, '_>,
    len: usize,
) -> Result<(&'static str, Addresses)> {
    let mut all = Addresses {
        first: 0,
        second: 0,
        first_scales: 0,
        second_scales: 0,
        tables: 0,
    };
    let name = match moments {
        AdamWMoments::F32([first, second]) => {
            all.first = address(device, ("first moment", len), first)?;
            all.second = address(device, ("second moment", len), second)?;
            "adamw_f32"
        }
        AdamWMoments::Bf16([first, second]) => {
            all.first = address(device, ("first moment", len), first)?;
            all.second = address(device, ("second moment", len), second)?;
            "adamw_bf16"
        }
        AdamWMoments::Int8 {
            codes: [first, second],
            scales: [first_scales, second_scales],
            tables,
        } => {
            let num_scales = len.div_ceil(BLOCK);
            all.first = address(device, ("first codes", len), first)?;
            all.second = address(device, ("second codes", len), second)?;
            all.first_scales = address(device, ("first scales", num_scales), first_scales)?;
            all.second_scales = address(device, ("second scales", num_scales), second_scales)?;
            expect_len("adamw", "tables", TABLES_LEN, tables.len())?;
            let (tables, _) = tables.device_ptr(device.stream());
            all.tables = tables;
            "adamw_int8"
        }
    };
    Ok((name, all))
}
