//! Waiting times that grow and are spread, so that a thousand refused items do not come back as one.

use std::time::Duration;

/// Exponential growth with a cap; each delay lies between half and the whole of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    pub start: Duration,
    pub max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            start: Duration::from_millis(100),
            max: Duration::from_secs(10),
        }
    }
}

impl Backoff {
    /// The wait before try number `num_failures + 1`. `salt` spreads items that failed together.
    pub fn delay(&self, num_failures: u32, salt: u64) -> Duration {
        let doublings = num_failures.saturating_sub(1).min(20);
        let whole = self.start.saturating_mul(1 << doublings).min(self.max);
        let draw = splitmix64(salt ^ (u64::from(num_failures) << 48));
        // The top 53 bits as a fraction in [0, 1).
        let fraction = (draw >> 11) as f64 / (1u64 << 53) as f64;
        whole.mul_f64(0.5 + 0.5 * fraction)
    }
}

/// Steele, Lea, Flood 2014: one well-mixed draw per input.
pub(crate) fn splitmix64(input: u64) -> u64 {
    let mut z = input.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Delays grow to the cap and stay between half and the whole.
    #[test]
    fn delays_grow_to_the_cap() {
        let backoff = Backoff {
            start: Duration::from_millis(100),
            max: Duration::from_secs(1),
        };
        for (num_failures, whole_ms) in [
            (1, 100),
            (2, 200),
            (3, 400),
            (4, 800),
            (5, 1000),
            (99, 1000),
        ] {
            for salt in 0..50 {
                let delay = backoff.delay(num_failures, salt).as_millis();
                assert!(
                    (whole_ms / 2..=whole_ms).contains(&delay),
                    "{num_failures}: {delay}"
                );
            }
        }
    }

    /// Items that failed together come back spread over the interval.
    #[test]
    fn delays_are_spread() {
        let backoff = Backoff::default();
        let mut delays: Vec<_> = (0..64).map(|salt| backoff.delay(1, salt)).collect();
        delays.sort();
        delays.dedup();
        assert!(delays.len() > 60);
        assert!(delays[delays.len() - 1] > delays[0] + Duration::from_millis(40));
    }
}
