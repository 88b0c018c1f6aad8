//! Several samples per question: the mean score and how far it would move with other questions.
//!
//! Samples of one question are alike, so they count as one cluster: the standard error comes from
//! the spread of the questions' own means, not of single samples (Miller 2024, "Adding error bars
//! to evals"). Counting every sample as a question of its own makes intervals too narrow, up to √k
//! times.

use super::{Interval, PairedCounts, Z_95, wilson};
use serde::{Deserialize, Serialize};

/// The samples of one question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SampleCounts {
    pub num_right: u64,
    /// At least 1.
    pub num_samples: u64,
}

/// A mean over questions. Each question weighs the same, however many samples it has.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    pub mean: f64,
    pub standard_error: f64,
    /// 95 %, by the central limit theorem: for a hundred questions and more. For few questions with
    /// one sample each see [`super::wilson`].
    pub interval: Interval,
    pub num_questions: u64,
}

/// Mean share of right samples. Where all questions have the same share, or there is only one, the
/// spread says nothing, and the interval is Wilson's with each question as one trial. `None` for no
/// questions.
///
/// # Panics
/// Where a question has no samples, or more right ones than samples.
pub fn clustered_mean(questions: &[SampleCounts]) -> Option<Estimate> {
    let shares: Vec<f64> = questions.iter().map(|counts| counts.share()).collect();
    let num_questions = shares.len() as u64;
    estimate(&shares, 0.0, |mean| {
        wilson((mean * shares.len() as f64).round() as u64, num_questions)
    })
}

/// Second run's mean minus the first's over the same questions, from the differences of each
/// question's two means. The numbers of samples may differ. Where every question differs by the
/// same there is no spread to judge by, and each is one vote of that size, for or against. `None`
/// for no questions.
///
/// # Panics
/// As [`clustered_mean`].
pub fn clustered_difference(questions: &[(SampleCounts, SampleCounts)]) -> Option<Estimate> {
    let differences: Vec<f64> = questions
        .iter()
        .map(|(first, second)| second.share() - first.share())
        .collect();
    estimate(&differences, -1.0, |mean| {
        let count = |sign: f64| differences.iter().filter(|it| **it * sign > 0.0).count() as u64;
        let (only_first, only_second) = (count(-1.0), count(1.0));
        let votes = PairedCounts {
            both_right: differences.len() as u64 - only_first - only_second,
            only_first,
            only_second,
            both_wrong: 0,
        };
        let size = if mean == 0.0 { 1.0 } else { mean.abs() };
        let Interval { low, high } = votes.difference_interval();
        Interval {
            low: low * size,
            high: high * size,
        }
    })
}

impl SampleCounts {
    /// Right samples over all.
    pub fn share(self) -> f64 {
        assert!(self.num_samples > 0, "a question without samples");
        assert!(self.num_right <= self.num_samples, "{self:?}");
        self.num_right as f64 / self.num_samples as f64
    }
}

/// Of values from `lowest` to 1; `without_spread` gives the interval where all are the same.
fn estimate(
    values: &[f64],
    lowest: f64,
    without_spread: impl Fn(f64) -> Interval,
) -> Option<Estimate> {
    let n = values.len() as f64;
    let first = *values.first()?;
    let is_spread = values
        .iter()
        .any(|value| (value - first).abs() > f64::EPSILON);
    if !is_spread {
        return Some(Estimate {
            mean: first,
            standard_error: 0.0,
            interval: without_spread(first),
            num_questions: values.len() as u64,
        });
    }
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    let standard_error = (squares / (n - 1.0) / n).sqrt();
    let half = Z_95 * standard_error;
    Some(Estimate {
        mean,
        standard_error,
        interval: Interval {
            low: (mean - half).max(lowest),
            high: (mean + half).min(1.0),
        },
        num_questions: values.len() as u64,
    })
}
