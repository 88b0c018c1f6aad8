//! How much of a run is done, and how long the rest will take.

use std::time::{Duration, Instant};

use super::position::Counters;
use super::{Budget, Plan};

/// How far the run is, by steps or tokens, and by the clock where there is a time limit.
#[derive(Debug)]
pub(super) struct RunClock {
    started: Instant,
    budget: Budget,
    time_limit: Option<Duration>,
    progress_at_start: f64,
}

impl RunClock {
    pub(super) fn start(plan: &Plan<'_>, counters: Counters) -> Self {
        let mut clock = Self {
            started: Instant::now(),
            budget: plan.budget,
            time_limit: plan.time_limit,
            progress_at_start: 0.0,
        };
        clock.progress_at_start = clock.progress(counters);
        clock
    }

    /// Done part of the run, 0 to 1.
    pub(super) fn progress(&self, counters: Counters) -> f64 {
        let by_count = match self.budget {
            Budget::Steps(total) => counters.steps as f64 / total as f64,
            Budget::Tokens(total) => counters.tokens as f64 / total as f64,
        };
        let by_time = self.time_limit.map_or(0.0, |limit| {
            self.started.elapsed().as_secs_f64() / limit.as_secs_f64()
        });
        by_count.max(by_time).min(1.0)
    }

    pub(super) fn eta_s(&mut self, progress: f64) -> f64 {
        let done = (progress - self.progress_at_start).max(1e-9);
        self.started.elapsed().as_secs_f64() * (1.0 - progress) / done
    }
}
