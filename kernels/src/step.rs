//! What differs between element types and instruction sets: a multiply-add of sixteen sums. The
//! loops around it are in `packed` (weights) and `paged_attention` (keys and values).
//!
//! Everything multiplied is made of words of 32 bits along the inner dimension: one f32, two bf16
//! or four int8. A [`Line`] holds one word of each of sixteen outputs; an instruction multiplies
//! them by one word of x that stands in all lanes, so nothing is ever summed across lanes.
#![expect(
    unsafe_code,
    reason = "steps read and write through pointers, in loops that know bounds"
)]

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
pub(crate) mod portable;

/// Sixteen words: a cache line, and aligned as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub(crate) struct Line(pub(crate) [u32; 16]);

/// Values of an int8 row that share a scale.
pub(crate) const INT8_GROUP: usize = 128;

/// Whether a product replaces what its output holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    Overwrite,
    Add,
}

/// The instruction sets that have code here.
///
/// AMX is not among them: its tiles take 16 rows by 64 bytes, so a panel's lines (word by word,
/// sixteen outputs each) are already the layout `tdpbf16ps` and `tdpbusd` want of their second
/// operand, and `Isa` the place to choose it; its sums would have an order of their own, so it must
/// then be used for every number of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Isa {
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
    /// Plain loops, which the compiler turns into AVX2 or whatever there is.
    Portable,
}

/// AVX-512F with BW, and which of its extensions.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Avx512 {
    /// Dot products of bf16; else they are widened to f32.
    pub(crate) bf16: bool,
    /// Dot products of int8; else the plain loops do them.
    pub(crate) vnni: bool,
}

impl Isa {
    /// The best that this machine has.
    pub(crate) fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw") {
            return Self::Avx512(Avx512 {
                bf16: is_x86_feature_detected!("avx512bf16"),
                vnni: is_x86_feature_detected!("avx512vnni"),
            });
        }
        Self::Portable
    }

    /// All that this machine can run, for tests.
    #[cfg(test)]
    pub(crate) fn all() -> Vec<Self> {
        let mut all = vec![Self::Portable];
        #[cfg(target_arch = "x86_64")]
        if let Self::Avx512(best) = Self::detect() {
            let plain = Avx512 {
                bf16: false,
                vnni: false,
            };
            all.extend([Self::Avx512(best), Self::Avx512(plain)]);
        }
        all
    }
}

/// The value's bits, rounded to the upper sixteen (to nearest, ties to even); the lower ones are
/// to be dropped. As `half::bf16::from_f32`, but without branches, so that it is done in vectors.
#[inline(always)]
pub(crate) fn rounded_to_bf16(value: f32) -> u32 {
    let bits = value.to_bits();
    let round = bits.wrapping_add(0x7FFF + (bits >> 16 & 1));
    // A NaN must not become an infinity.
    if value.is_nan() {
        bits | 0x0040_0000
    } else {
        round
    }
}

/// A word of two bf16.
#[inline(always)]
pub(crate) fn bf16_pair(low: f32, high: f32) -> u32 {
    rounded_to_bf16(low) >> 16 | (rounded_to_bf16(high) & 0xFFFF_0000)
}

/// What belongs to a row of x in a quantization group besides its words (int8 only).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RowGroup {
    /// What an int8 value counts.
    pub(crate) scale: f32,
    /// -128 times the sum of the int8 values: weights are stored as unsigned bytes, 128 too large.
    pub(crate) correction: i32,
}

/// Where sixteen sums go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) y: *mut f32,
    /// Sums that count, sixteen at most: the last panel may not be full.
    pub(crate) len: usize,
    pub(crate) output: Output,
}

/// Sixteen sums over words of lines and of x, and what they need. All methods are `inline(always)`:
/// they have to end up inside a function that was compiled for the instruction set.
///
/// # Safety
/// Every method: the machine must have the instructions; pointers must be valid for the line, the
/// word, the sixteen scales or the place they stand for.
pub(crate) trait Step: Copy {
    /// Words of a quantization group, over which a chain goes. `None`: over all words there are.
    const GROUP: Option<usize>;
    /// Sixteen sums of a chain.
    type Chain: Copy;
    /// Sixteen sums of chains.
    type Sums: Copy;
    /// A line of w.
    type W: Copy;
    /// A word of x, in all lanes.
    type X: Copy;

    /// Where the chain of a row begins.
    unsafe fn start(self, row: RowGroup) -> Self::Chain;
    unsafe fn line(self, line: *const Line) -> Self::W;
    unsafe fn word(self, word: *const u32) -> Self::X;
    unsafe fn step(self, chain: Self::Chain, w: Self::W, x: Self::X) -> Self::Chain;

    unsafe fn zero(self) -> Self::Sums;
    /// Adds a chain that has ended; in int8 times the scales of its group.
    unsafe fn close(
        self,
        sums: Self::Sums,
        chain: Self::Chain,
        scales: (*const f32, RowGroup),
    ) -> Self::Sums;
    /// Puts sums over or on top of what is at their place.
    unsafe fn put(self, sums: Self::Sums, place: &Place);
}

/// Sums of lines of values, each line multiplied by one f32: the other product of attention.
///
/// # Safety
/// As [`Step`].
pub(crate) trait Mix: Copy {
    /// Values of a line: sixteen f32 or 32 bf16, the first sixteen of them in the lower halves.
    const VALUES: usize;
    /// As many sums.
    type Sums: Copy;
    /// A line, as f32.
    type V: Copy;
    /// A weight, in all lanes.
    type P: Copy;

    unsafe fn zero(self) -> Self::Sums;
    unsafe fn values(self, line: *const Line) -> Self::V;
    unsafe fn weight(self, weight: *const f32) -> Self::P;
    unsafe fn mix(self, sums: Self::Sums, values: Self::V, weight: Self::P) -> Self::Sums;
    /// Writes the first `len` sums, each times `factor`.
    unsafe fn finish(self, sums: Self::Sums, factor: f32, out: *mut f32, len: usize);
}

/// Asks for a line, which is needed soon.
#[inline(always)]
pub(crate) fn prefetch(line: &Line) {
    prefetch_at(std::ptr::from_ref(line));
}

/// Asks for the cache line at an address, which is needed soon. Any address will do: a hint.
#[inline(always)]
pub(crate) fn prefetch_at<T>(address: *const T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint, which never faults; SSE is in every x86-64.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// As [`prefetch_at`], for what is needed later: into the level-2 cache.
#[inline(always)]
pub(crate) fn prefetch_later<T>(address: *const T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: a hint, which never faults; SSE is in every x86-64.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(address.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// The `index`-th of `parts` parts of 0..len that differ by one at most.
pub(crate) fn part(len: usize, parts: usize, index: usize) -> std::ops::Range<usize> {
    len * index / parts..len * (index + 1) / parts
}
