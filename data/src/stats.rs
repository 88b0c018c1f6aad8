//! Statistics of right and wrong: intervals, paired tests, percentiles, several samples a question.
//!
//! Counts in, numbers out; every rate is one division at the end.

pub mod clustered;
pub mod samples;

use serde::{Deserialize, Serialize};

/// Two-sided 95 % quantile of the standard normal distribution.
const Z_95: f64 = 1.959_963_984_540_054;

/// A 95 % interval. Shares are from 0 to 1, differences of shares from -1 to 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    pub low: f64,
    pub high: f64,
}

/// Wilson's 95 % interval for `k` right of `n` (Wilson 1927; no continuity correction). Good also
/// for small `n` and at 0 and `n`. For `n = 0` nothing is known: 0 to 1.
///
/// # Panics
/// Where `k > n`.
pub fn wilson(k: u64, n: u64) -> Interval {
    assert!(k <= n, "{k} right of {n}");
    if n == 0 {
        return Interval {
            low: 0.0,
            high: 1.0,
        };
    }
    let (share, n_f) = (k as f64 / n as f64, n as f64);
    let z2 = Z_95 * Z_95;
    let denominator = 1.0 + z2 / n_f;
    let center = (share + z2 / (2.0 * n_f)) / denominator;
    let half = Z_95 * (share * (1.0 - share) / n_f + z2 / (4.0 * n_f * n_f)).sqrt() / denominator;
    // At the ends the formula is exactly 0 or 1; rounding would leave it a hair beside.
    Interval {
        low: if k == 0 { 0.0 } else { center - half },
        high: if k == n { 1.0 } else { center + half },
    }
}

/// Two runs over the same questions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairedCounts {
    pub both_right: u64,
    pub only_first: u64,
    pub only_second: u64,
    pub both_wrong: u64,
}

impl PairedCounts {
    /// From pairs of (first run right, second run right), one per question.
    pub fn from_pairs(pairs: impl IntoIterator<Item = (bool, bool)>) -> PairedCounts {
        let mut counts = PairedCounts::default();
        for pair in pairs {
            match pair {
                (true, true) => counts.both_right += 1,
                (true, false) => counts.only_first += 1,
                (false, true) => counts.only_second += 1,
                (false, false) => counts.both_wrong += 1,
            }
        }
        counts
    }

    pub fn num_questions(&self) -> u64 {
        self.both_right + self.only_first + self.only_second + self.both_wrong
    }

    /// Second run's share of right answers minus the first's. 0 where there are no questions.
    pub fn difference(&self) -> f64 {
        let n = self.num_questions().max(1) as f64;
        (self.only_second as f64 - self.only_first as f64) / n
    }

    /// 95 % interval of [`PairedCounts::difference`]: Wald's with one added to each discordant count
    /// (Bonett and Price 2012), which holds its level also for small counts.
    pub fn difference_interval(&self) -> Interval {
        let n = self.num_questions() as f64 + 2.0;
        let first = (self.only_first as f64 + 1.0) / n;
        let second = (self.only_second as f64 + 1.0) / n;
        let center = second - first;
        let half = Z_95 * ((first + second - center * center) / n).sqrt();
        Interval {
            low: (center - half).max(-1.0),
            high: (center + half).min(1.0),
        }
    }

    /// See [`mcnemar_exact`].
    pub fn mcnemar_exact(&self) -> f64 {
        mcnemar_exact(*self)
    }
}

/// McNemar's exact two-sided p-value: twice the smaller tail of Binomial(discordant, 1/2), at most 1.
/// Summed in log space, so that it does not vanish before p itself leaves `f64` (about 1e-308).
pub fn mcnemar_exact(counts: PairedCounts) -> f64 {
    let discordant = counts.only_first + counts.only_second;
    let smaller = counts.only_first.min(counts.only_second);
    // ln of C(n, i) / 2^n, from i to i + 1 by C(n, i+1) = C(n, i) (n - i) / (i + 1).
    let mut ln_term = -(discordant as f64) * std::f64::consts::LN_2;
    let mut ln_terms = vec![ln_term];
    for i in 0..smaller {
        ln_term += ((discordant - i) as f64 / (i + 1) as f64).ln();
        ln_terms.push(ln_term);
    }
    // Terms rise up to the middle, so the last one is the largest.
    let tail: f64 = ln_terms.iter().map(|ln| (ln - ln_term).exp()).sum();
    (ln_term + tail.ln() + std::f64::consts::LN_2)
        .exp()
        .min(1.0)
}

/// The `percent`-th percentile (0 to 100) of values in any order, linear between neighbours as in
/// NumPy. `None` for no values.
///
/// # Panics
/// Where a value is NaN or `percent` lies outside 0 to 100.
pub fn percentile(values: &[f64], percent: f64) -> Option<f64> {
    assert!((0.0..=100.0).contains(&percent), "percentile {percent}");
    let mut sorted = values.to_vec();
    sorted.sort_by(|left, right| left.partial_cmp(right).expect("no NaN in percentiles"));
    let last = sorted.len().checked_sub(1)?;
    let place = percent / 100.0 * last as f64;
    let (below, above) = (
        sorted[place.floor() as usize],
        sorted[place.ceil() as usize],
    );
    Some(below + (above - below) * place.fract())
}

#[cfg(test)]
mod tests;
