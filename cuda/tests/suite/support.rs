//! A GPU for tests, random values, and comparison with what a twin says.

use cuda::{Device, Float};
use cuda_emulator::Provided;
use half::bf16;

/// A GPU with a stream of its own, so that tests do not record each other's work; or `None` (and a loud
/// line) where there is neither a real nor a software one.
pub(crate) fn device() -> Option<Device> {
    if let Provided::Nothing(why) = cuda_emulator::load() {
        eprintln!("SKIPPED, no GPU: {why}");
        return None;
    }
    Some(Device::open(0).expect("the GPU opens"))
}

/// Seeds of a test's random shapes and values.
pub(crate) const SEEDS: [u64; 3] = [1, 2, 3];

/// SplitMix64 (Steele, Lea, Flood 2014).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let bits = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^ (bits >> 31)
    }

    /// At least `low`, below `high`.
    pub(crate) fn below(&mut self, low: usize, high: usize) -> usize {
        low + (self.bits() % (high - low) as u64) as usize
    }

    /// Uniform in [-1, 1).
    pub(crate) fn float(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
    }

    pub(crate) fn floats(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| self.float()).collect()
    }

    pub(crate) fn values<A: Value>(&mut self, len: usize) -> Vec<A> {
        (0..len).map(|_| A::of(self.float())).collect()
    }

    pub(crate) fn bf16s(&mut self, len: usize) -> Vec<bf16> {
        self.values(len)
    }
}

/// What a test computes in.
pub(crate) trait Value: Float {
    /// Of a result's size, by how much it may be off for having been rounded once (in f32: for the order of sums).
    const ROUNDING: f32;
    fn wide(self) -> f32;
}
impl Value for bf16 {
    /// Half a unit in its 8 bits.
    const ROUNDING: f32 = 1.0 / 256.0;
    fn wide(self) -> f32 {
        self.to_f32()
    }
}
impl Value for f32 {
    const ROUNDING: f32 = 2e-6;
    fn wide(self) -> f32 {
        self
    }
}

pub(crate) fn to_f32<A: Value>(values: &[A]) -> Vec<f32> {
    values.iter().map(|value| value.wide()).collect()
}

/// Every value within `relative` of the largest expected one, or of its own size where that is more.
#[track_caller]
pub(crate) fn assert_close(found: &[f32], expected: &[f32], relative: f32) {
    assert_eq!(found.len(), expected.len());
    let largest = expected
        .iter()
        .fold(0.0_f32, |max, value| max.max(value.abs()));
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        let allowed = relative * largest.max(f32::MIN_POSITIVE);
        assert!(
            (found - expected).abs() <= allowed,
            "value {index}: expected {expected}, found {found}, allowed ±{allowed}"
        );
    }
}
