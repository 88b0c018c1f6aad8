//! Packing and tiles in AVX-512, with or without its dot products of bf16.
#![expect(unsafe_code, reason = "functions for instructions that were detected")]

use std::arch::x86_64::{
    __m512bh, __m512i, _mm512_cvtne2ps_pbh, _mm512_loadu_ps, _mm512_loadu_si512,
    _mm512_permutexvar_epi16, _mm512_set_epi16, _mm512_shuffle_i32x4, _mm512_storeu_si512,
    _mm512_unpackhi_epi32, _mm512_unpackhi_epi64, _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
};

use super::pack::{LANES, Pack, bits, pairs_across, pairs_along};
use super::tiles::tiles;
use super::{Product, Task};
use crate::matrix::Compute;
use crate::step::avx512::{F32, MAX_ROWS, NativeBf16, WidenedBf16};
use crate::step::{Avx512, Line};

/// # Safety
/// As [`Product::run`], for the task's part of the output; the CPU must have what `has` says.
pub(super) unsafe fn compute(product: &Product<'_>, task: &Task, has: Avx512) {
    // SAFETY: the caller's promise is passed on.
    unsafe {
        match product.compute {
            Compute::F32 => f32_tiles(product, task),
            Compute::Bf16 if has.bf16 => bf16_tiles(product, task),
            Compute::Bf16 => widened_tiles(product, task),
        }
    }
}

/// # Safety
/// As [`compute`].
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn f32_tiles(product: &Product<'_>, task: &Task) {
    // SAFETY: the caller's promise.
    unsafe { tiles::<F32, MAX_ROWS>(F32, product, task) };
}

/// # Safety
/// As [`compute`].
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn bf16_tiles(product: &Product<'_>, task: &Task) {
    // SAFETY: the caller's promise.
    unsafe { tiles::<NativeBf16, MAX_ROWS>(NativeBf16, product, task) };
}

/// # Safety
/// As [`compute`].
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn widened_tiles(product: &Product<'_>, task: &Task) {
    // SAFETY: the caller's promise.
    unsafe { tiles::<WidenedBf16, MAX_ROWS>(WidenedBf16, product, task) };
}

impl Pack for F32 {
    const PER_WORD: usize = 1;

    #[inline(always)]
    unsafe fn along(self, values: &[f32; 2 * LANES]) -> Line {
        bits(values)
    }

    #[inline(always)]
    unsafe fn across(self, upper: &[f32; LANES], _: &[f32; LANES]) -> Line {
        bits(upper)
    }

    #[inline(always)]
    unsafe fn transpose(self, lines: &mut [Line; LANES]) {
        // SAFETY: the caller's promise.
        unsafe { transpose(lines) };
    }
}

/// Rounds as `rounded_to_bf16`, but what is subnormal becomes zero, as it would in the product.
impl Pack for NativeBf16 {
    const PER_WORD: usize = 2;

    #[inline(always)]
    unsafe fn along(self, values: &[f32; 2 * LANES]) -> Line {
        // SAFETY: the caller's promise; both halves hold a vector.
        unsafe {
            let low = _mm512_loadu_ps(values.as_ptr());
            let high = _mm512_loadu_ps(values.as_ptr().add(LANES));
            std::mem::transmute::<__m512bh, Line>(_mm512_cvtne2ps_pbh(high, low))
        }
    }

    #[inline(always)]
    unsafe fn across(self, upper: &[f32; LANES], lower: &[f32; LANES]) -> Line {
        // SAFETY: the caller's promise; the arrays hold a vector each.
        unsafe {
            let upper = _mm512_loadu_ps(upper.as_ptr());
            let lower = _mm512_loadu_ps(lower.as_ptr());
            let halves = _mm512_cvtne2ps_pbh(lower, upper);
            let halves = std::mem::transmute::<__m512bh, __m512i>(halves);
            // One of the lower sixteen, one of the upper sixteen, and so on.
            let turns = _mm512_set_epi16(
                31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5,
                20, 4, 19, 3, 18, 2, 17, 1, 16, 0,
            );
            std::mem::transmute::<__m512i, Line>(_mm512_permutexvar_epi16(turns, halves))
        }
    }

    #[inline(always)]
    unsafe fn transpose(self, lines: &mut [Line; LANES]) {
        // SAFETY: the caller's promise.
        unsafe { transpose(lines) };
    }
}

impl Pack for WidenedBf16 {
    const PER_WORD: usize = 2;

    #[inline(always)]
    unsafe fn along(self, values: &[f32; 2 * LANES]) -> Line {
        pairs_along(values)
    }

    #[inline(always)]
    unsafe fn across(self, upper: &[f32; LANES], lower: &[f32; LANES]) -> Line {
        pairs_across(upper, lower)
    }

    #[inline(always)]
    unsafe fn transpose(self, lines: &mut [Line; LANES]) {
        // SAFETY: the caller's promise.
        unsafe { transpose(lines) };
    }
}

/// Exchanges lines and lanes: within each quarter of the lanes first words, then pairs of words
/// (so that a register has four lines' words of one lane in each quarter), then the quarters.
///
/// # Safety
/// The CPU must have AVX-512F.
#[inline(always)]
unsafe fn transpose(lines: &mut [Line; LANES]) {
    // SAFETY: the caller's promise; a line is a vector.
    unsafe {
        let mut rows = [_mm512_loadu_si512(lines.as_ptr().cast()); LANES];
        for (row, line) in rows.iter_mut().zip(lines.iter()) {
            *row = _mm512_loadu_si512(std::ptr::from_ref(line).cast());
        }
        // quads[4·i + j]: in quarter q, lane 4·q + j of lines 4·i to 4·i + 3.
        let mut quads = rows;
        for i in 0..4 {
            let [a, b, c, d] = [
                rows[4 * i],
                rows[4 * i + 1],
                rows[4 * i + 2],
                rows[4 * i + 3],
            ];
            let (ab_low, ab_high) = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
            let (cd_low, cd_high) = (_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
            quads[4 * i] = _mm512_unpacklo_epi64(ab_low, cd_low);
            quads[4 * i + 1] = _mm512_unpackhi_epi64(ab_low, cd_low);
            quads[4 * i + 2] = _mm512_unpacklo_epi64(ab_high, cd_high);
            quads[4 * i + 3] = _mm512_unpackhi_epi64(ab_high, cd_high);
        }
        for j in 0..4 {
            let [a, b, c, d] = [quads[j], quads[4 + j], quads[8 + j], quads[12 + j]];
            // Quarters 0 and 1, then 2 and 3, of two registers each.
            let (ab_low, ab_high) = (
                _mm512_shuffle_i32x4::<0b01_00_01_00>(a, b),
                _mm512_shuffle_i32x4::<0b11_10_11_10>(a, b),
            );
            let (cd_low, cd_high) = (
                _mm512_shuffle_i32x4::<0b01_00_01_00>(c, d),
                _mm512_shuffle_i32x4::<0b11_10_11_10>(c, d),
            );
            let out = [
                _mm512_shuffle_i32x4::<0b10_00_10_00>(ab_low, cd_low),
                _mm512_shuffle_i32x4::<0b11_01_11_01>(ab_low, cd_low),
                _mm512_shuffle_i32x4::<0b10_00_10_00>(ab_high, cd_high),
                _mm512_shuffle_i32x4::<0b11_01_11_01>(ab_high, cd_high),
            ];
            for (quarter, out) in out.into_iter().enumerate() {
                let line = &raw mut lines[4 * quarter + j];
                _mm512_storeu_si512(line.cast(), out);
            }
        }
    }
}
