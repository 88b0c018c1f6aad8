//! When requests are made: as soon as an earlier one is answered, or at times that do not wait for
//! the server.

use std::time::Duration;

use crate::generate::splitmix64;

/// The two kinds of load.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Arrivals {
    /// So many requests at the server at any time: the next is made when one has ended.
    Closed { concurrency: usize },
    /// A Poisson process of that rate. A slow server does not slow it down, and a request's times
    /// count from its arrival.
    Open { requests_per_s: f64 },
}

impl Arrivals {
    /// Each request's time after the start, rising. All 0 for a closed loop.
    pub(super) fn offsets(self, count: usize, seed: u64) -> Vec<Duration> {
        let Self::Open { requests_per_s } = self else {
            return vec![Duration::ZERO; count];
        };
        let mut at_s = 0.0;
        (0..count as u64)
            .map(|index| {
                // The top 53 bits as a fraction in (0, 1]: its logarithm is finite.
                let draw = splitmix64(splitmix64(seed) ^ index) >> 11;
                let fraction = (draw + 1) as f64 / (1_u64 << 53) as f64;
                at_s -= fraction.ln() / requests_per_s;
                Duration::from_secs_f64(at_s)
            })
            .collect()
    }

    /// Requests that may be at the server at a time.
    pub(super) fn max_in_flight(self) -> usize {
        match self {
            Self::Closed { concurrency } => concurrency.max(1),
            Self::Open { .. } => usize::MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Same seed, same times; they rise, and their rate is the one asked for.
    #[test]
    fn arrivals_have_their_rate() {
        let arrivals = Arrivals::Open {
            requests_per_s: 50.0,
        };
        let offsets = arrivals.offsets(20_000, 7);
        assert_eq!(offsets, arrivals.offsets(20_000, 7));
        assert_ne!(offsets, arrivals.offsets(20_000, 8));
        assert!(offsets.is_sorted());
        let rate = 20_000.0 / offsets.last().unwrap().as_secs_f64();
        assert!((rate - 50.0).abs() < 1.5, "{rate}");
        // Exponential gaps: as spread as they are long.
        let gaps: Vec<f64> = offsets
            .windows(2)
            .map(|pair| (pair[1].as_secs_f64() - pair[0].as_secs_f64()) * 50.0)
            .collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        assert!((variance - 1.0).abs() < 0.1, "{variance}");
    }
}
