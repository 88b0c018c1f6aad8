//! Stochastic rounding to bf16: up or down with the odds that make the expected value right, so that
//! steps smaller than a bf16's spacing add up. The random bits are a function of a key and the
//! element's number, so that a resumed run rounds as an uninterrupted one.

use half::bf16;

/// Where the random bits of one tensor's step come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rounding {
    /// Different for every parameter and step.
    pub key: u64,
}

/// 2^64 / golden ratio: the increment of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

impl Rounding {
    /// 64 bits for each of the elements from `first` on: SplitMix64's output function.
    #[inline(always)]
    pub(super) fn fill(self, first: u64, bits: &mut [u64]) {
        for (at, bits) in bits.iter_mut().enumerate() {
            let index = first.wrapping_add(at as u64).wrapping_add(1);
            let mut z = self.key.wrapping_add(index.wrapping_mul(GOLDEN));
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            *bits = z ^ (z >> 31);
        }
    }
}

/// The bf16 below or above `value` in magnitude: above with a probability of the part of the gap that
/// lies below the value. `bits` is uniform. Values that bf16 has keep theirs.
#[inline(always)]
pub(super) fn stochastic(value: f32, bits: u16) -> bf16 {
    // The low half of an f32 is what bf16 cuts off; a carry out of it is the next bf16.
    let raised = value.to_bits().wrapping_add(u32::from(bits));
    bf16::from_bits((raised >> 16) as u16)
}
