//! Lengths of answers, in tokens, as a histogram.

use data::record::Attempt;
use serde::{Deserialize, Serialize};

/// At most so many bins hold the longest answer of all models.
const MAX_BINS: u32 = 40;

/// A histogram with equal bins from 0 on; its counts sum to the answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lengths {
    /// Width of a bin; the same for all models of a report.
    pub bin_tokens: u32,
    /// Bin `i` holds the lengths from `i * bin_tokens + 1` to `(i + 1) * bin_tokens`. (An answer has
    /// at least one token, the one that ends it; one of 0 tokens is in the first bin.)
    pub bins: Vec<u64>,
    /// Those that were cut, in the same bins.
    pub cut_bins: Vec<u64>,
    /// Largest token limit that an answer was asked with.
    pub limit: u32,
}

impl Lengths {
    pub(super) fn of(attempts: &[&Attempt], bin_tokens: u32) -> Self {
        let bin_of =
            |attempt: &Attempt| (attempt.num_tokens.saturating_sub(1) / bin_tokens) as usize;
        let num_bins = attempts.iter().map(|it| bin_of(it) + 1).max().unwrap_or(0);
        let mut lengths = Self {
            bin_tokens,
            bins: vec![0; num_bins],
            cut_bins: vec![0; num_bins],
            limit: attempts
                .iter()
                .map(|attempt| attempt.decoding.max_tokens)
                .max()
                .unwrap_or(0),
        };
        for attempt in attempts {
            lengths.bins[bin_of(attempt)] += 1;
            lengths.cut_bins[bin_of(attempt)] += u64::from(attempt.finish_reason.is_cut());
        }
        lengths
    }

    pub fn num_answers(&self) -> u64 {
        self.bins.iter().sum()
    }

    pub fn num_cut(&self) -> u64 {
        self.cut_bins.iter().sum()
    }
}

/// The narrowest of 1, 2, 5, 10, 20, 50, ... tokens with which [`MAX_BINS`] bins suffice.
pub(super) fn bin_tokens<'a>(attempts: impl Iterator<Item = &'a &'a Attempt>) -> u32 {
    let longest = attempts.map(|attempt| attempt.num_tokens).max();
    let needed = longest.unwrap_or(0).div_ceil(MAX_BINS);
    let mut power = 1u32;
    loop {
        for factor in [1, 2, 5] {
            let width = power.saturating_mul(factor);
            if width >= needed {
                return width;
            }
        }
        power = power.saturating_mul(10);
    }
}
