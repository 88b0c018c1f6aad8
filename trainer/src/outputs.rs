//! What leaves a run and when: log lines, epoch folders, the newest model of a pre-training run, and
//! the calls to servers. The loop says what happened, this file knows what follows from it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use model::manifest::{self, file_sha256};

use crate::checkpoint::{SavedCheckpoint, save_epoch, save_model};
use crate::config::{NotifyConfig, SaveDtype, TrainingConfig};
use crate::error::Result;
use crate::metrics::MetricsLog;
use crate::notify::notify_all;
use crate::progress::{Event, Progress};
use crate::train::{Outcome, Plan, TrainState};

/// Where a run's results go.
#[derive(Debug)]
pub struct Outputs<'a> {
    pub out: PathBuf,
    pub metrics: MetricsLog,
    pub progress: &'a mut Progress,
    saving: Saving,
    /// Folder whose tokenizer and template files every checkpoint gets.
    tokenizer_source: PathBuf,
    started: Instant,
    /// The newest complete checkpoint.
    pub newest: Option<PathBuf>,
}

/// When a checkpoint is written.
#[derive(Debug)]
pub enum Saving {
    /// For runs whose weights are looked at in memory.
    Never,
    /// `epoch_<n>` with everything needed to go on, then the servers are told.
    EachEpoch {
        config: Box<TrainingConfig>,
        notify: NotifyConfig,
    },
    /// `model`, replaced every so often and at the end.
    Timed {
        every: Duration,
        last: Instant,
        dtype: SaveDtype,
    },
}

impl<'a> Outputs<'a> {
    pub fn new(
        out: &Path,
        saving: Saving,
        tokenizer_source: &Path,
        metrics: MetricsLog,
        progress: &'a mut Progress,
    ) -> Self {
        Self {
            out: out.to_path_buf(),
            metrics,
            progress,
            saving,
            tokenizer_source: tokenizer_source.to_path_buf(),
            started: Instant::now(),
            newest: None,
        }
    }

    /// Whether every epoch ends with a checkpoint (and so with a validation loss).
    pub fn saves_epochs(&self) -> bool {
        matches!(self.saving, Saving::EachEpoch { .. })
    }

    /// Saves the model where that is due by the clock.
    pub fn after_step(&mut self, state: &TrainState, plan: &Plan<'_>) -> Result<()> {
        match &mut self.saving {
            Saving::Timed { every, last, .. } if last.elapsed() >= *every => {
                *last = Instant::now();
                self.evaluate_and_save(state, plan)
            }
            _ => Ok(()),
        }
    }

    /// Logs the epoch, saves it, tells the servers.
    pub fn after_epoch(&mut self, state: &TrainState) -> Result<()> {
        let Some(&losses) = state.history.last() else {
            return Ok(());
        };
        self.progress.emit(Event::EpochEnd {
            epoch: losses.epoch,
            train_loss: losses.train_loss,
            train_perplexity: losses.train_loss.exp(),
            validation_loss: losses.validation_loss,
            validation_perplexity: losses.validation_loss.map(f64::exp),
        });
        let Saving::EachEpoch { config, .. } = &self.saving else {
            return self.metrics.epoch(losses);
        };
        let saved = save_epoch(&self.out, &self.tokenizer_source, config, state)?;
        self.metrics.epoch(losses)?;
        self.announce(state, &saved, Some(losses.epoch));
        self.tell_servers(losses.epoch, &saved.manifest_sha256);
        Ok(())
    }

    /// A run goes on after `epoch`. The servers are told of it again: the process that saved it may
    /// have ended before it told them. One that knows the folder's content answers from memory.
    pub fn after_resume(&mut self, epoch: u32) -> Result<()> {
        let path = self.out.join(format!("epoch_{epoch}"));
        let manifest_sha256 = file_sha256(&path.join(manifest::FILE_NAME))?;
        self.newest = Some(path);
        self.tell_servers(epoch, &manifest_sha256);
        Ok(())
    }

    fn tell_servers(&mut self, epoch: u32, manifest_sha256: &str) {
        let Saving::EachEpoch { notify, .. } = &self.saving else {
            return;
        };
        for notification in notify_all(notify, &format!("epoch_{epoch}"), manifest_sha256) {
            self.progress.emit(notification.into());
        }
    }

    /// The last save of a pre-training run, and the last event.
    pub fn finish(
        &mut self,
        state: &TrainState,
        plan: &Plan<'_>,
        outcome: Outcome,
    ) -> Result<Outcome> {
        if matches!(self.saving, Saving::Timed { .. }) {
            self.evaluate_and_save(state, plan)?;
        }
        self.progress.emit(Event::Done {
            steps: state.counters.steps,
            tokens: state.counters.tokens,
            seconds: self.started.elapsed().as_secs_f64(),
            interrupted: outcome == Outcome::Interrupted,
            path: self.newest.clone(),
        });
        Ok(outcome)
    }

    fn evaluate_and_save(&mut self, state: &TrainState, plan: &Plan<'_>) -> Result<()> {
        let Saving::Timed { dtype, .. } = self.saving else {
            return Ok(());
        };
        if let Some(loss) = state.evaluate(plan.validation, plan.max_tokens_per_micro_batch)? {
            self.progress.emit(Event::Evaluated {
                step: state.counters.steps,
                validation_loss: loss,
                validation_perplexity: loss.exp(),
            });
        }
        let saved = save_model(&self.out, &self.tokenizer_source, dtype, &state.network)?;
        self.announce(state, &saved, None);
        Ok(())
    }

    fn announce(&mut self, state: &TrainState, saved: &SavedCheckpoint, epoch: Option<u32>) {
        self.newest = Some(saved.path.clone());
        self.progress.emit(Event::Checkpoint {
            epoch,
            step: state.counters.steps,
            path: saved.path.clone(),
            manifest_sha256: saved.manifest_sha256.clone(),
        });
    }
}
