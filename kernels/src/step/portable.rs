//! Steps as plain loops over sixteen values: the twin of the others, and what other machines run.
//! Compiled once for AVX2 with fused multiply-add and once for anything, by `pulp`'s choice.
#![expect(unsafe_code, reason = "the traits read and write through pointers")]

use pulp::Simd;

use super::{INT8_GROUP, Line, Mix, Output, Place, RowGroup, Step};

/// Rows in a tile of two lines: 12 sums of AVX2's 16 registers.
pub(crate) const MAX_ROWS: usize = 3;

/// Sixteen lanes.
pub(crate) type Lanes = [f32; 16];

/// a·b + c in every lane.
#[inline(always)]
fn mul_add<S: Simd>(simd: S, a: Lanes, b: f32, c: Lanes) -> Lanes {
    std::array::from_fn(|i| fused_or_not(simd, a[i], b, c[i]))
}

/// a·b + c, rounded once where `S` is a machine that can, else twice.
#[inline(always)]
fn fused_or_not<S: Simd>(_: S, a: f32, b: f32, c: f32) -> f32 {
    // Vectors of 32 bytes are AVX2's, which `pulp` chooses together with fused multiply-add.
    if size_of::<S::f32s>() >= 32 || cfg!(target_arch = "aarch64") {
        a.mul_add(b, c)
    } else {
        a * b + c
    }
}

/// # Safety
/// As [`Step::put`].
#[inline(always)]
unsafe fn put(values: Lanes, place: &Place) {
    // SAFETY: the caller's promise.
    let y = unsafe { std::slice::from_raw_parts_mut(place.y, place.len) };
    for (y, value) in y.iter_mut().zip(values) {
        *y = if place.output == Output::Overwrite {
            value
        } else {
            *y + value
        };
    }
}

/// One f32 a word.
#[derive(Clone, Copy)]
pub(crate) struct F32<S>(pub(crate) S);

impl<S: Simd> Step for F32<S> {
    const GROUP: Option<usize> = None;
    type Chain = Lanes;
    type Sums = Lanes;
    type W = Lanes;
    type X = f32;

    #[inline(always)]
    unsafe fn start(self, _: RowGroup) -> Lanes {
        [0.0; 16]
    }

    #[inline(always)]
    unsafe fn line(self, line: *const Line) -> Lanes {
        // SAFETY: the caller's promise.
        unsafe { (*line).0.map(f32::from_bits) }
    }

    #[inline(always)]
    unsafe fn word(self, word: *const u32) -> f32 {
        // SAFETY: the caller's promise.
        f32::from_bits(unsafe { *word })
    }

    #[inline(always)]
    unsafe fn step(self, sums: Lanes, w: Lanes, x: f32) -> Lanes {
        mul_add(self.0, w, x, sums)
    }

    #[inline(always)]
    unsafe fn zero(self) -> Lanes {
        [0.0; 16]
    }

    #[inline(always)]
    unsafe fn close(self, _: Lanes, chain: Lanes, _: (*const f32, RowGroup)) -> Lanes {
        chain
    }

    #[inline(always)]
    unsafe fn put(self, sums: Lanes, place: &Place) {
        // SAFETY: the caller's promise.
        unsafe { put(sums, place) };
    }
}

/// Two bf16 a word, multiplied as f32: the odd, then the even.
#[derive(Clone, Copy)]
pub(crate) struct Bf16<S>(pub(crate) S);

impl<S: Simd> Step for Bf16<S> {
    const GROUP: Option<usize> = None;
    type Chain = Lanes;
    type Sums = Lanes;
    type W = [Lanes; 2];
    type X = [f32; 2];

    #[inline(always)]
    unsafe fn start(self, _: RowGroup) -> Lanes {
        [0.0; 16]
    }

    #[inline(always)]
    unsafe fn line(self, line: *const Line) -> [Lanes; 2] {
        // SAFETY: the caller's promise.
        let words = unsafe { (*line).0 };
        [
            words.map(|word| f32::from_bits(word << 16)),
            words.map(|word| f32::from_bits(word & 0xFFFF_0000)),
        ]
    }

    #[inline(always)]
    unsafe fn word(self, word: *const u32) -> [f32; 2] {
        // SAFETY: the caller's promise.
        let word = unsafe { *word };
        [
            f32::from_bits(word << 16),
            f32::from_bits(word & 0xFFFF_0000),
        ]
    }

    #[inline(always)]
    unsafe fn step(self, sums: Lanes, w: [Lanes; 2], x: [f32; 2]) -> Lanes {
        mul_add(self.0, w[0], x[0], mul_add(self.0, w[1], x[1], sums))
    }

    #[inline(always)]
    unsafe fn zero(self) -> Lanes {
        [0.0; 16]
    }

    #[inline(always)]
    unsafe fn close(self, _: Lanes, chain: Lanes, _: (*const f32, RowGroup)) -> Lanes {
        chain
    }

    #[inline(always)]
    unsafe fn put(self, sums: Lanes, place: &Place) {
        // SAFETY: the caller's promise.
        unsafe { put(sums, place) };
    }
}

/// Four int8 a word, those of w unsigned, summed in int32.
#[derive(Clone, Copy)]
pub(crate) struct Int8<S>(pub(crate) S);

impl<S: Simd> Step for Int8<S> {
    const GROUP: Option<usize> = Some(INT8_GROUP / 4);
    type Chain = [i32; 16];
    type Sums = Lanes;
    type W = [u32; 16];
    type X = [i32; 4];

    #[inline(always)]
    unsafe fn start(self, row: RowGroup) -> [i32; 16] {
        [row.correction; 16]
    }

    #[inline(always)]
    unsafe fn line(self, line: *const Line) -> [u32; 16] {
        // SAFETY: the caller's promise.
        unsafe { (*line).0 }
    }

    #[inline(always)]
    unsafe fn word(self, word: *const u32) -> [i32; 4] {
        // SAFETY: the caller's promise.
        unsafe { *word }
            .to_le_bytes()
            .map(|byte| i32::from(byte.cast_signed()))
    }

    #[inline(always)]
    unsafe fn step(self, sums: [i32; 16], w: [u32; 16], x: [i32; 4]) -> [i32; 16] {
        std::array::from_fn(|i| {
            let byte = |j: u32| (w[i] >> (8 * j) & 0xFF).cast_signed();
            sums[i] + byte(0) * x[0] + byte(1) * x[1] + byte(2) * x[2] + byte(3) * x[3]
        })
    }

    #[inline(always)]
    unsafe fn zero(self) -> Lanes {
        [0.0; 16]
    }

    #[inline(always)]
    unsafe fn close(
        self,
        sums: Lanes,
        chain: [i32; 16],
        (scales, row): (*const f32, RowGroup),
    ) -> Lanes {
        // SAFETY: the caller's promise.
        let scales = unsafe { *scales.cast::<Lanes>() };
        std::array::from_fn(|i| {
            let scale = scales[i] * row.scale;
            fused_or_not(self.0, chain[i] as f32, scale, sums[i])
        })
    }

    #[inline(always)]
    unsafe fn put(self, sums: Lanes, place: &Place) {
        // SAFETY: the caller's promise.
        unsafe { put(sums, place) };
    }
}

/// # Safety
/// As [`Mix::finish`].
#[inline(always)]
unsafe fn finish(sums: &Lanes, factor: f32, out: *mut f32, len: usize) {
    // SAFETY: the caller's promise.
    let out = unsafe { std::slice::from_raw_parts_mut(out, len.min(16)) };
    for (out, sum) in out.iter_mut().zip(sums) {
        *out = sum * factor;
    }
}

impl<S: Simd> Mix for F32<S> {
    const VALUES: usize = 16;
    type Sums = Lanes;
    type V = Lanes;
    type P = f32;

    #[inline(always)]
    unsafe fn zero(self) -> Lanes {
        [0.0; 16]
    }

    #[inline(always)]
    unsafe fn values(self, line: *const Line) -> Lanes {
        // SAFETY: the caller's promise.
        unsafe { self.line(line) }
    }

    #[inline(always)]
    unsafe fn weight(self, weight: *const f32) -> f32 {
        // SAFETY: the caller's promise.
        unsafe { *weight }
    }

    #[inline(always)]
    unsafe fn mix(self, sums: Lanes, values: Lanes, weight: f32) -> Lanes {
        mul_add(self.0, values, weight, sums)
    }

    #[inline(always)]
    unsafe fn finish(self, sums: Lanes, factor: f32, out: *mut f32, len: usize) {
        // SAFETY: the caller's promise.
        unsafe { finish(&sums, factor, out, len) };
    }
}

impl<S: Simd> Mix for Bf16<S> {
    const VALUES: usize = 32;
    type Sums = [Lanes; 2];
    type V = [Lanes; 2];
    type P = f32;

    #[inline(always)]
    unsafe fn zero(self) -> [Lanes; 2] {
        [[0.0; 16]; 2]
    }

    #[inline(always)]
    unsafe fn values(self, line: *const Line) -> [Lanes; 2] {
        // SAFETY: the caller's promise.
        unsafe { self.line(line) }
    }

    #[inline(always)]
    unsafe fn weight(self, weight: *const f32) -> f32 {
        // SAFETY: the caller's promise.
        unsafe { *weight }
    }

    #[inline(always)]
    unsafe fn mix(self, sums: [Lanes; 2], values: [Lanes; 2], weight: f32) -> [Lanes; 2] {
        [
            mul_add(self.0, values[0], weight, sums[0]),
            mul_add(self.0, values[1], weight, sums[1]),
        ]
    }

    #[inline(always)]
    unsafe fn finish(self, sums: [Lanes; 2], factor: f32, out: *mut f32, len: usize) {
        // SAFETY: the caller's promise; the second half begins where sixteen values are.
        unsafe {
            finish(&sums[0], factor, out, len);
            finish(
                &sums[1],
                factor,
                out.wrapping_add(16),
                len.saturating_sub(16),
            );
        }
    }
}
