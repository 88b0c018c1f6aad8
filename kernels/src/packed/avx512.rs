//! The tiles compiled for AVX-512 and what the machine has besides.
#![expect(unsafe_code, reason = "functions for instructions that were detected")]

use super::portable;
use super::product::{Product, Task, tiles};
use super::weight::WeightFormat;
use crate::step::Avx512;
use crate::step::avx512::{F32, Int8, MAX_ROWS, NativeBf16, WidenedBf16};

/// # Safety
/// As [`super::product`]'s `compute`; the CPU must have what `has` says.
pub(super) unsafe fn compute(product: &Product<'_>, task: &Task, has: Avx512) {
    // SAFETY: the caller's promise is passed on.
    unsafe {
        match product.w.format() {
            WeightFormat::F32 => f32_tiles(product, task),
            WeightFormat::Bf16 if has.bf16 => bf16_tiles(product, task),
            WeightFormat::Bf16 => widened_tiles(product, task),
            WeightFormat::Int8 if has.vnni => int8_tiles(product, task),
            WeightFormat::Int8 => portable::compute(product, task),
        }
    }
}

/// # Safety
/// As [`compute`].
#[target_feature(enable = "avx512f")]
unsafe fn f32_tiles(product: &Product<'_>, task: &Task) {
    // SAFETY: the caller's promise.
    unsafe { tiles(F32, product, task, MAX_ROWS) };
}

/// # Safety
/// As [`compute`].
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn bf16_tiles(product: &Product<'_>, task: &Task) {
    // SAFETY: the caller's promise.
    unsafe { tiles(NativeBf16, product, task, MAX_ROWS) };
}

/// # Safety
/// As [`compute`].
#[target_feature(enable = "avx512f")]
unsafe fn widened_tiles(product: &Product<'_>, task: &Task) {
    // SAFETY: the caller's promise.
    unsafe { tiles(WidenedBf16, product, task, MAX_ROWS) };
}

/// Half as many rows: every chain has a sum beside it.
///
/// # Safety
/// As [`compute`].
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn int8_tiles(product: &Product<'_>, task: &Task) {
    // SAFETY: the caller's promise.
    unsafe { tiles(Int8, product, task, MAX_ROWS / 2) };
}
