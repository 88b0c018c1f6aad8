//! Several samples per question: the mean score and how far it would move with other questions.
//!
//! Samples of one question are alike, so they count as one cluster: the standard error comes from
//! the spread of the questions' own means, not of single samples (Miller 2024, "Adding error bars
//! to evals"). Counting every sample as a question of its own makes intervals too narrow, up to √k
//! times.

use super::{Interval, Z_95};
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

/// Mean share of right samples. `None` for fewer than two questions, which have no spread.
///
/// # Panics
/// Where a question has no samples, or more right ones than samples.
pub fn clustered_mean(questions: &[SampleCounts]) -> Option<Estimate> {
    let shares: Vec<f64> = questions.iter().map(|counts| counts.share()).collect();
    estimate(&shares, 0.0)
}

/// Second run's mean minus the first's over the same questions, from the differences of each
/// question's two means. The numbers of samples may differ. `None` for fewer than two questions.
///
/// # Panics
/// As [`clustered_mean`].
pub fn clustered_difference(questions: &[(SampleCounts, SampleCounts)]) -> Option<Estimate> {
    let differences: Vec<f64> = questions
        .iter()
        .map(|(first, second)| second.share() - first.share())
        .collect();
    estimate(&differences, -1.0)
}

impl SampleCounts {
    fn share(self) -> f64 {
        assert!(self.num_samples > 0, "a question without samples");
        assert!(self.num_right <= self.num_samples, "{self:?}");
        self.num_right as f64 / self.num_samples as f64
    }
}

/// Of values from `lowest` to 1.
fn estimate(values: &[f64], lowest: f64) -> Option<Estimate> {
    let n = values.len() as f64;
    if values.len() < 2 {
        return None;
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
