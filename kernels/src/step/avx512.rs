//! Steps in AVX-512: a line is a register, a word of x a broadcast.
#![expect(unsafe_code, reason = "vector loads and stores through pointers")]

use std::arch::x86_64::{
    __m512, __m512bh, __m512i, __mmask16, _mm512_add_ps, _mm512_and_si512, _mm512_castsi512_ps,
    _mm512_cvtepi32_ps, _mm512_dpbf16_ps, _mm512_dpbusd_epi32, _mm512_fmadd_ps, _mm512_load_si512,
    _mm512_loadu_ps, _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps, _mm512_mul_ps,
    _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_slli_epi32,
};

use super::{INT8_GROUP, Line, Mix, Output, Place, RowGroup, Step};

/// Rows in a tile of two lines: 24 sums leave room for the lines and a word in 32 registers.
pub(crate) const MAX_ROWS: usize = 12;

/// Puts sixteen or fewer f32 values over or on top of what is there.
///
/// # Safety
/// As [`Step::put`].
#[inline(always)]
unsafe fn put(values: __m512, place: &Place) {
    let mask: __mmask16 = ((1_u32 << place.len) - 1) as __mmask16;
    // SAFETY: the mask admits `len` values only.
    unsafe {
        let values = if place.output == Output::Overwrite {
            values
        } else {
            _mm512_add_ps(_mm512_maskz_loadu_ps(mask, place.y), values)
        };
        _mm512_mask_storeu_ps(place.y, mask, values);
    }
}

/// One f32 a word.
#[derive(Clone, Copy)]
pub(crate) struct F32;

impl Step for F32 {
    const GROUP: Option<usize> = None;
    type Chain = __m512;
    type Sums = __m512;
    type W = __m512;
    type X = __m512;

    #[inline(always)]
    unsafe fn start(self, _: RowGroup) -> __m512 {
        // SAFETY: the caller's promise.
        unsafe { _mm512_setzero_ps() }
    }

    #[inline(always)]
    unsafe fn line(self, line: *const Line) -> __m512 {
        // SAFETY: the caller's promise; lines are aligned.
        unsafe { _mm512_castsi512_ps(_mm512_load_si512(line.cast())) }
    }

    #[inline(always)]
    unsafe fn word(self, word: *const u32) -> __m512 {
        // SAFETY: the caller's promise.
        unsafe { _mm512_castsi512_ps(_mm512_set1_epi32(word.cast::<i32>().read())) }
    }

    #[inline(always)]
    unsafe fn step(self, sums: __m512, w: __m512, x: __m512) -> __m512 {
        // SAFETY: the caller's promise.
        unsafe { _mm512_fmadd_ps(w, x, sums) }
    }

    #[inline(always)]
    unsafe fn zero(self) -> __m512 {
        // SAFETY: the caller's promise.
        unsafe { _mm512_setzero_ps() }
    }

    #[inline(always)]
    unsafe fn close(self, _: __m512, chain: __m512, _: (*const f32, RowGroup)) -> __m512 {
        chain
    }

    #[inline(always)]
    unsafe fn put(self, sums: __m512, place: &Place) {
        // SAFETY: the caller's promise.
        unsafe { put(sums, place) };
    }
}

/// Two bf16 a word, multiplied and added by one instruction.
#[derive(Clone, Copy)]
pub(crate) struct NativeBf16;

impl Step for NativeBf16 {
    const GROUP: Option<usize> = None;
    type Chain = __m512;
    type Sums = __m512;
    type W = __m512i;
    type X = __m512i;

    #[inline(always)]
    unsafe fn start(self, _: RowGroup) -> __m512 {
        // SAFETY: the caller's promise.
        unsafe { _mm512_setzero_ps() }
    }

    #[inline(always)]
    unsafe fn line(self, line: *const Line) -> __m512i {
        // SAFETY: the caller's promise; lines are aligned.
        unsafe { _mm512_load_si512(line.cast()) }
    }

    #[inline(always)]
    unsafe fn word(self, word: *const u32) -> __m512i {
        // SAFETY: the caller's promise.
        unsafe { _mm512_set1_epi32(word.cast::<i32>().read()) }
    }

    #[inline(always)]
    unsafe fn step(self, sums: __m512, w: __m512i, x: __m512i) -> __m512 {
        // SAFETY: the caller's promise; the types are two views of one register.
        unsafe {
            let bf16 = |words: __m512i| std::mem::transmute::<__m512i, __m512bh>(words);
            _mm512_dpbf16_ps(sums, bf16(w), bf16(x))
        }
    }

    #[inline(always)]
    unsafe fn zero(self) -> __m512 {
        // SAFETY: the caller's promise.
        unsafe { _mm512_setzero_ps() }
    }

    #[inline(always)]
    unsafe fn close(self, _: __m512, chain: __m512, _: (*const f32, RowGroup)) -> __m512 {
        chain
    }

    #[inline(always)]
    unsafe fn put(self, sums: __m512, place: &Place) {
        // SAFETY: the caller's promise.
        unsafe { put(sums, place) };
    }
}

/// Two bf16 a word, multiplied as f32 (a bf16 is the upper half of one): the odd, then the even.
#[derive(Clone, Copy)]
pub(crate) struct WidenedBf16;

/// The even and the odd elements of a line or a word, as f32.
pub(crate) type Halves = [__m512; 2];

impl WidenedBf16 {
    /// # Safety
    /// As [`Step`].
    #[inline(always)]
    unsafe fn halves(words: __m512i) -> Halves {
        // SAFETY: the caller's promise.
        unsafe {
            let odd = _mm512_and_si512(words, _mm512_set1_epi32(0xFFFF_0000_u32.cast_signed()));
            [
                _mm512_castsi512_ps(_mm512_slli_epi32::<16>(words)),
                _mm512_castsi512_ps(odd),
            ]
        }
    }
}

impl Step for WidenedBf16 {
    const GROUP: Option<usize> = None;
    type Chain = __m512;
    type Sums = __m512;
    type W = Halves;
    type X = Halves;

    #[inline(always)]
    unsafe fn start(self, _: RowGroup) -> __m512 {
        // SAFETY: the caller's promise.
        unsafe { _mm512_setzero_ps() }
    }

    #[inline(always)]
    unsafe fn line(self, line: *const Line) -> Halves {
        // SAFETY: the caller's promise; lines are aligned.
        unsafe { Self::halves(_mm512_load_si512(line.cast())) }
    }

    #[inline(always)]
    unsafe fn word(self, word: *const u32) -> Halves {
        // SAFETY: the caller's promise.
        unsafe { Self::halves(_mm512_set1_epi32(word.cast::<i32>().read())) }
    }

    #[inline(always)]
    unsafe fn step(self, sums: __m512, w: Halves, x: Halves) -> __m512 {
        // SAFETY: the caller's promise.
        unsafe { _mm512_fmadd_ps(w[0], x[0], _mm512_fmadd_ps(w[1], x[1], sums)) }
    }

    #[inline(always)]
    unsafe fn zero(self) -> __m512 {
        // SAFETY: the caller's promise.
        unsafe { _mm512_setzero_ps() }
    }

    #[inline(always)]
    unsafe fn close(self, _: __m512, chain: __m512, _: (*const f32, RowGroup)) -> __m512 {
        chain
    }

    #[inline(always)]
    unsafe fn put(self, sums: __m512, place: &Place) {
        // SAFETY: the caller's promise.
        unsafe { put(sums, place) };
    }
}

/// Four int8 a word, those of w unsigned, summed in int32 without loss.
#[derive(Clone, Copy)]
pub(crate) struct Int8;

impl Step for Int8 {
    const GROUP: Option<usize> = Some(INT8_GROUP / 4);
    type Chain = __m512i;
    type Sums = __m512;
    type W = __m512i;
    type X = __m512i;

    #[inline(always)]
    unsafe fn start(self, row: RowGroup) -> __m512i {
        // SAFETY: the caller's promise.
        unsafe { _mm512_set1_epi32(row.correction) }
    }

    #[inline(always)]
    unsafe fn line(self, line: *const Line) -> __m512i {
        // SAFETY: the caller's promise; lines are aligned.
        unsafe { _mm512_load_si512(line.cast()) }
    }

    #[inline(always)]
    unsafe fn word(self, word: *const u32) -> __m512i {
        // SAFETY: the caller's promise.
        unsafe { _mm512_set1_epi32(word.cast::<i32>().read()) }
    }

    #[inline(always)]
    unsafe fn step(self, chain: __m512i, w: __m512i, x: __m512i) -> __m512i {
        // SAFETY: the caller's promise.
        unsafe { _mm512_dpbusd_epi32(chain, w, x) }
    }

    #[inline(always)]
    unsafe fn zero(self) -> __m512 {
        // SAFETY: the caller's promise.
        unsafe { _mm512_setzero_ps() }
    }

    #[inline(always)]
    unsafe fn close(
        self,
        sums: __m512,
        chain: __m512i,
        (scales, row): (*const f32, RowGroup),
    ) -> __m512 {
        // SAFETY: the caller's promise.
        unsafe {
            let scales = _mm512_mul_ps(_mm512_loadu_ps(scales), _mm512_set1_ps(row.scale));
            _mm512_fmadd_ps(_mm512_cvtepi32_ps(chain), scales, sums)
        }
    }

    #[inline(always)]
    unsafe fn put(self, sums: __m512, place: &Place) {
        // SAFETY: the caller's promise.
        unsafe { put(sums, place) };
    }
}

/// The first `len` lanes, times `factor`.
///
/// # Safety
/// As [`Mix::finish`].
#[inline(always)]
unsafe fn finish(sums: __m512, factor: f32, out: *mut f32, len: usize) {
    let mask: __mmask16 = ((1_u32 << len.min(16)) - 1) as __mmask16;
    // SAFETY: the mask admits `len` values only.
    unsafe { _mm512_mask_storeu_ps(out, mask, _mm512_mul_ps(sums, _mm512_set1_ps(factor))) };
}

impl Mix for F32 {
    const VALUES: usize = 16;
    type Sums = __m512;
    type V = __m512;
    type P = __m512;

    #[inline(always)]
    unsafe fn zero(self) -> __m512 {
        // SAFETY: the caller's promise.
        unsafe { _mm512_setzero_ps() }
    }

    #[inline(always)]
    unsafe fn values(self, line: *const Line) -> __m512 {
        // SAFETY: the caller's promise.
        unsafe { self.line(line) }
    }

    #[inline(always)]
    unsafe fn weight(self, weight: *const f32) -> __m512 {
        // SAFETY: the caller's promise.
        unsafe { _mm512_set1_ps(weight.read()) }
    }

    #[inline(always)]
    unsafe fn mix(self, sums: __m512, values: __m512, weight: __m512) -> __m512 {
        // SAFETY: the caller's promise.
        unsafe { _mm512_fmadd_ps(values, weight, sums) }
    }

    #[inline(always)]
    unsafe fn finish(self, sums: __m512, factor: f32, out: *mut f32, len: usize) {
        // SAFETY: the caller's promise.
        unsafe { finish(sums, factor, out, len) };
    }
}

impl Mix for WidenedBf16 {
    const VALUES: usize = 32;
    type Sums = Halves;
    type V = Halves;
    type P = __m512;

    #[inline(always)]
    unsafe fn zero(self) -> Halves {
        // SAFETY: the caller's promise.
        unsafe { [_mm512_setzero_ps(); 2] }
    }

    #[inline(always)]
    unsafe fn values(self, line: *const Line) -> Halves {
        // SAFETY: the caller's promise.
        unsafe { self.line(line) }
    }

    #[inline(always)]
    unsafe fn weight(self, weight: *const f32) -> __m512 {
        // SAFETY: the caller's promise.
        unsafe { _mm512_set1_ps(weight.read()) }
    }

    #[inline(always)]
    unsafe fn mix(self, sums: Halves, values: Halves, weight: __m512) -> Halves {
        // SAFETY: the caller's promise.
        unsafe {
            [
                _mm512_fmadd_ps(values[0], weight, sums[0]),
                _mm512_fmadd_ps(values[1], weight, sums[1]),
            ]
        }
    }

    #[inline(always)]
    unsafe fn finish(self, sums: Halves, factor: f32, out: *mut f32, len: usize) {
        // SAFETY: the caller's promise; the second half begins where sixteen values are.
        unsafe {
            finish(sums[0], factor, out, len);
            finish(
                sums[1],
                factor,
                out.wrapping_add(16),
                len.saturating_sub(16),
            );
        }
    }
}
