//! The learning rate as a function of how far the run is. Pure arithmetic.

use serde::{Deserialize, Serialize};

/// The shape of the learning rate after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum ScheduleKind {
    /// Straight down to the floor.
    Linear,
    /// Half a cosine down to the floor.
    Cosine,
    Constant,
}

/// Warm-up, then [`ScheduleKind`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    pub kind: ScheduleKind,
    pub peak_lr: f64,
    /// Steps over which the rate rises in a straight line to the peak; the first step has
    /// peak / (warmup_steps + 1), never 0.
    pub warmup_steps: u64,
    /// The floor, as a part of the peak.
    pub min_lr_ratio: f64,
}

impl Schedule {
    /// The rate of a step.
    ///
    /// `steps_done` is the number of steps before this one; `progress` in 0..=1 is the done part of
    /// the run before this step (k/N for step k of N, counted from 0). As in PyTorch's
    /// `LambdaLR`, the first step after the warm-up has (about) the peak and the rate reaches the
    /// floor when the last step is done: `lr(N, 1.0)` is the floor, the last update has 1/N of the
    /// linear range left.
    ///
    /// The warm-up ramp and the decay are combined by their minimum, so the rate has no jump where
    /// one ends and the other begins.
    pub fn lr(&self, steps_done: u64, progress: f64) -> f64 {
        let left = 1.0 - progress.clamp(0.0, 1.0);
        let shape = match self.kind {
            ScheduleKind::Constant => 1.0,
            ScheduleKind::Linear => left,
            ScheduleKind::Cosine => 0.5 * (1.0 - (std::f64::consts::PI * left).cos()),
        };
        let decayed = self.min_lr_ratio + (1.0 - self.min_lr_ratio) * shape;
        let ramp = (steps_done + 1) as f64 / (self.warmup_steps + 1) as f64;
        self.peak_lr * ramp.min(decayed)
    }
}

#[cfg(test)]
mod tests;
