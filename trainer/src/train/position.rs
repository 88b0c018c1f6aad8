//! Where in a run a state is: all that a resumed run must know beside weights and moments. Saved
//! whole in every checkpoint, whichever step it was made after.

use serde::{Deserialize, Serialize};

use super::StepReport;
use super::guard::GuardState;
use crate::best::EpochValue;
use crate::metrics::EpochLosses;

/// Everything counted and summed so far.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Position {
    pub counters: Counters,
    /// Windows of the epoch under way that are done. 0 right after an epoch.
    pub windows_done: usize,
    /// Over those windows, without the skipped ones.
    pub losses: LossSum,
    pub guard: GuardState,
    /// Losses of the epochs done, this process's and those before a resume.
    pub history: Vec<EpochLosses>,
    /// What servers got right after the epochs done; an epoch that none was asked about is absent.
    pub accuracies: Vec<EpochValue>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counters {
    pub epochs_done: u32,
    /// Optimizer steps, skipped ones included.
    pub steps: u64,
    pub skipped_steps: u64,
    /// Through the network, and those with a label.
    pub tokens: u64,
    pub label_tokens: u64,
}

impl Counters {
    /// Optimizer steps that changed the weights.
    pub fn num_updates(&self) -> u64 {
        self.steps - self.skipped_steps
    }
}

/// NLL and labels of many micro-batches: summed, then divided, once.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct LossSum {
    pub nll: f64,
    pub labels: u64,
}

impl LossSum {
    pub fn add(&mut self, nll: f64, labels: u64) {
        self.nll += nll;
        self.labels += labels;
    }

    /// `None` where nothing was summed.
    pub fn mean(self) -> Option<f64> {
        (self.labels > 0).then(|| self.nll / self.labels as f64)
    }
}

impl Position {
    /// The epoch under way, from 1.
    pub fn epoch(&self) -> u32 {
        self.counters.epochs_done + 1
    }

    /// One more window is done.
    pub(super) fn count(&mut self, report: &StepReport) {
        let (tokens, labels) = (report.num_tokens as u64, report.num_labels as u64);
        self.windows_done += 1;
        self.counters.steps += 1;
        self.counters.tokens += tokens;
        self.counters.label_tokens += labels;
        if report.skipped.is_none() {
            self.losses.add(report.sum_nll, labels);
        } else {
            self.counters.skipped_steps += 1;
        }
    }

    /// The last window of the epoch is done.
    pub(super) fn end_epoch(&mut self, losses: EpochLosses) {
        self.counters.epochs_done = losses.epoch;
        self.windows_done = 0;
        self.losses = LossSum::default();
        self.history.push(losses);
    }
}
