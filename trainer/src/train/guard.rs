//! Whether a step's update may be made: a loss or norm that is not finite, or a loss far above the
//! recent ones, skips it. A pure function of the losses so far; counting and logging are the loop's.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::config::require;
use crate::error::Result;

/// What a run lets pass.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GuardConfig {
    /// `None`: every finite loss is good.
    pub spike: Option<SpikeGuard>,
    /// So many skipped steps in a row end the run.
    pub max_skipped_in_a_row: u32,
}

/// A loss is a spike where it lies more than `sigma` standard deviations above the mean of the last
/// `window` good steps, as in llm.c's outlier detector (there the new loss is one of the window,
/// which keeps the score below the root of its size; here it is not).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SpikeGuard {
    pub sigma: f64,
    pub window: usize,
}

/// What the guard remembers; part of every checkpoint.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct GuardState {
    /// Losses of the last good steps, oldest first. Kept only where spikes are looked for.
    recent: VecDeque<f64>,
    pub skipped_in_a_row: u32,
}

impl GuardConfig {
    /// Checks ranges; the flag at fault is named.
    pub fn check(&self) -> Result<()> {
        if let Some(SpikeGuard { sigma, window }) = self.spike {
            require("--spike-sigma", sigma, "a number > 0", |x| {
                x.is_finite() && x > 0.0
            })?;
            require("--spike-window", window, "at least 2", |n| n >= 2)?;
        }
        let max = self.max_skipped_in_a_row;
        require("--max-skipped-steps", max, "at least 1", |n| n >= 1)
    }
}

impl GuardState {
    /// `None` for a good step, which is remembered; else the reason to skip its update.
    pub fn judge(&mut self, loss: f64, grad_norm: f64, config: &GuardConfig) -> Option<String> {
        let reason = if !loss.is_finite() || !grad_norm.is_finite() {
            Some(format!("loss {loss}, gradient norm {grad_norm}"))
        } else {
            config.spike.and_then(|spike| self.spike(loss, spike))
        };
        if reason.is_some() {
            self.skipped_in_a_row += 1;
            return reason;
        }
        self.skipped_in_a_row = 0;
        if let Some(spike) = config.spike {
            self.recent.push_back(loss);
            while self.recent.len() > spike.window {
                self.recent.pop_front();
            }
        }
        None
    }

    /// Why this loss is a spike. No verdict before the window is full, or where all its losses are
    /// the same.
    fn spike(&self, loss: f64, SpikeGuard { sigma, window }: SpikeGuard) -> Option<String> {
        if self.recent.len() < window {
            return None;
        }
        let count = self.recent.len() as f64;
        let mean = self.recent.iter().sum::<f64>() / count;
        let squares = self.recent.iter().map(|x| (x - mean) * (x - mean));
        let deviation = (squares.sum::<f64>() / count).sqrt();
        let score = (loss - mean) / deviation;
        (deviation > 0.0 && score > sigma).then(|| {
            format!(
                "loss {loss:.4} is {score:.1} standard deviations above {mean:.4}, the mean of the \
                 last {window} good steps"
            )
        })
    }
}

#[cfg(test)]
mod tests;
