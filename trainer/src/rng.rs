//! Counter-based random numbers: value `n` of stream `s` under seed `k` is a pure function of
//! (k, s, n), so that a resumed run draws what an uninterrupted one would have drawn, without any
//! generator state in the checkpoint.

/// What a stream of draws is for. Streams of one seed are independent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// The order of the examples in an epoch.
    Shuffle { epoch: u32 },
    /// The initial values of the parameter with this index.
    Init { parameter: u32 },
    /// The initial values of the adapter matrix that is parameter number so-and-so.
    Adapter { parameter: u32 },
    /// Which inputs of this adapter matrix are left out.
    Dropout { parameter: u32 },
    /// The rounding of a parameter (and its moments) in an optimizer update.
    Rounding { parameter: u32 },
    /// What belongs to one micro-batch of one step.
    MicroBatch { number: u32 },
}

/// Draws of one stream, by index.
#[derive(Debug, Clone, Copy)]
pub struct CounterRng {
    key: u64,
}

/// The finalizer of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014): a bijection with full avalanche.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// 2^64 / golden ratio: the increment of SplitMix64.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

impl CounterRng {
    pub fn new(seed: u64, stream: Stream) -> Self {
        let stream_key = match stream {
            Stream::Shuffle { epoch } => u64::from(epoch),
            Stream::Init { parameter } => (1 << 32) | u64::from(parameter),
            Stream::Adapter { parameter } => (2 << 32) | u64::from(parameter),
            Stream::Dropout { parameter } => (3 << 32) | u64::from(parameter),
            Stream::Rounding { parameter } => (4 << 32) | u64::from(parameter),
            Stream::MicroBatch { number } => (5 << 32) | u64::from(number),
        };
        Self {
            key: mix(mix(seed.wrapping_add(GOLDEN)) ^ stream_key.wrapping_mul(GOLDEN)),
        }
    }

    /// What the bits are a function of, beside the index.
    pub fn key(self) -> u64 {
        self.key
    }

    /// 64 uniform bits.
    pub fn bits(self, index: u64) -> u64 {
        mix(self
            .key
            .wrapping_add(index.wrapping_add(1).wrapping_mul(GOLDEN)))
    }

    /// Uniform in (0, 1].
    pub fn uniform(self, index: u64) -> f64 {
        ((self.bits(index) >> 11) as f64 + 1.0) / (1u64 << 53) as f64
    }

    /// Uniform in 0..bound. The bias of at most bound/2^64 is far below anything measurable here.
    pub fn below(self, index: u64, bound: u64) -> u64 {
        ((u128::from(self.bits(index)) * u128::from(bound)) >> 64) as u64
    }

    /// Standard normal (Box-Muller on draws 2n and 2n+1).
    pub fn normal(self, index: u64) -> f64 {
        let radius = (-2.0 * self.uniform(2 * index).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform(2 * index + 1)).cos()
    }
}

/// 0..count in the order of this epoch: Fisher-Yates, a function of (seed, epoch) only.
pub fn shuffled(count: usize, seed: u64, epoch: u32) -> Vec<u32> {
    let rng = CounterRng::new(seed, Stream::Shuffle { epoch });
    let mut order: Vec<u32> = (0..count as u32).collect();
    for last in (1..count).rev() {
        let other = rng.below(last as u64, last as u64 + 1) as usize;
        order.swap(last, other);
    }
    order
}

#[cfg(test)]
mod tests;
