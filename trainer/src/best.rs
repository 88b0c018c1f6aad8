//! The best epoch so far and whether training has stopped getting better, as functions of one value
//! per epoch. `OUT/best.json` says it to others, and a resumed run goes on with it.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::config::require;
use crate::error::{Result, TrainError};
use crate::train::position::Position;

pub(crate) const BEST_FILE: &str = "best.json";

/// What an epoch is judged by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Metric {
    /// On the held-out examples; lower is better.
    #[default]
    ValidationLoss,
    /// Share of right answers of a live server; higher is better.
    Accuracy,
}

/// How the best epoch is found, and when the search ends.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct BestConfig {
    pub metric: Metric,
    pub stopping: Option<EarlyStopping>,
}

/// Ends a run that gets no better.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EarlyStopping {
    /// Measured epochs in a row without an improvement. An epoch without a value does not count.
    pub patience: u32,
    /// A smaller one is none.
    pub min_improvement: f64,
}

/// One epoch's value.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct EpochValue {
    pub epoch: u32,
    pub value: f64,
}

/// `best.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Best {
    pub epoch: u32,
    /// The epoch's folder, relative to that of this file.
    pub path: String,
    pub metric: Metric,
    pub value: f64,
    /// All epochs with a value so far.
    pub values: Vec<EpochValue>,
}

impl Metric {
    /// The values that are known.
    pub fn values(self, position: &Position) -> Vec<EpochValue> {
        match self {
            Self::Accuracy => position.accuracies.clone(),
            Self::ValidationLoss => {
                let value = |losses: &crate::metrics::EpochLosses| {
                    let (epoch, value) = (losses.epoch, losses.validation_loss?);
                    value.is_finite().then_some(EpochValue { epoch, value })
                };
                position.history.iter().filter_map(value).collect()
            }
        }
    }

    /// By how much `new` is better than `old`.
    fn gain(self, new: f64, old: f64) -> f64 {
        match self {
            Self::ValidationLoss => old - new,
            Self::Accuracy => new - old,
        }
    }
}

impl EarlyStopping {
    pub fn check(&self) -> Result<()> {
        let Self {
            patience,
            min_improvement,
        } = *self;
        require("--early-stopping-patience", patience, "at least 1", |n| {
            n >= 1
        })?;
        require("--min-improvement", min_improvement, "a number >= 0", |x| {
            x.is_finite() && x >= 0.0
        })
    }

    /// Whether the patience is used up after these epochs.
    pub fn is_over(&self, metric: Metric, values: &[EpochValue]) -> bool {
        let mut mark: Option<f64> = None;
        let mut num_stale = 0;
        for &EpochValue { value, .. } in values {
            if mark.is_none_or(|mark| metric.gain(value, mark) > self.min_improvement) {
                mark = Some(value);
                num_stale = 0;
            } else {
                num_stale += 1;
            }
        }
        num_stale >= self.patience
    }
}

impl Best {
    /// Of equally good epochs the earlier, which moved less far from the base. `None` where no epoch
    /// has a value.
    pub fn of(metric: Metric, values: Vec<EpochValue>) -> Option<Self> {
        let better = |best: EpochValue, new: EpochValue| {
            if metric.gain(new.value, best.value) > 0.0 {
                new
            } else {
                best
            }
        };
        let EpochValue { epoch, value } = values.iter().copied().reduce(better)?;
        Some(Self {
            epoch,
            path: format!("epoch_{epoch}"),
            metric,
            value,
            values,
        })
    }

    /// Written beside and renamed: a reader sees the old file or the new one.
    pub fn write(&self, out: &Path) -> Result<()> {
        let path = out.join(BEST_FILE);
        let beside = out.join(format!(".{BEST_FILE}.tmp"));
        let text = serde_json::to_string_pretty(self).expect("plain data always serialises");
        let write = || -> std::io::Result<()> {
            std::fs::write(&beside, text + "\n")?;
            std::fs::File::open(&beside)?.sync_all()?;
            std::fs::rename(&beside, &path)
        };
        write().map_err(TrainError::io(&path))
    }

    /// What an earlier process wrote; `None` where there is nothing that can be read.
    pub fn read(out: &Path) -> Option<Self> {
        let bytes = std::fs::read(out.join(BEST_FILE)).ok()?;
        serde_json::from_slice(&bytes).ok()
    }
}

#[cfg(test)]
mod tests;
