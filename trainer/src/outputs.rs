//! What leaves a run and when: log lines, checkpoint folders, the newest model of a pre-training run,
//! and the calls to servers. The loop says what happened, this file knows what follows from it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use model::manifest::{self, file_sha256};

use crate::accuracy::{AccuracyCheck, Asked};
use crate::best::{Best, EpochValue, Metric};
use crate::checkpoint::{SavedCheckpoint, save, save_model};
use crate::config::{NotifyConfig, SaveDtype, StepSaving, StepServers, TrainingConfig};
use crate::error::Result;
use crate::folders::{CheckpointName, Folder, clear_older};
use crate::metrics::MetricsLog;
use crate::notify::notify_all;
use crate::progress::{Event, Progress};
use crate::stop::StopFlag;
use crate::train::position::Position;
use crate::train::{Outcome, Plan, TrainState};

/// Where this file appears in the output folder, the run is saved; then the file is removed.
pub const SAVE_NOW_FILE: &str = "save_now";

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
    /// `None` once the file could not be removed: it would ask after every step.
    save_now: Option<PathBuf>,
}

/// When a checkpoint is written.
#[derive(Debug)]
pub enum Saving {
    /// For runs whose weights are looked at in memory.
    Never,
    /// Rank 0 of the group saves what all have computed.
    Elsewhere,
    /// Folders with everything needed to go on, of which the servers are told.
    Checkpoints(Box<Checkpoints>),
    /// `model`, replaced every so often and at the end.
    Timed {
        every: Duration,
        last: Instant,
        dtype: SaveDtype,
    },
}

/// `epoch_<n>` after every epoch, `step_<n>` between them.
#[derive(Debug)]
pub struct Checkpoints {
    config: TrainingConfig,
    notify: NotifyConfig,
    steps: StepSaving,
    accuracy: Option<AccuracyCheck>,
    /// Optimizer steps of the newest one.
    saved_at: Option<u64>,
}

impl Checkpoints {
    pub fn new(
        config: TrainingConfig,
        notify: NotifyConfig,
        steps: StepSaving,
        accuracy: Option<AccuracyCheck>,
    ) -> Self {
        Self {
            config,
            notify,
            steps,
            accuracy,
            saved_at: None,
        }
    }
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
            save_now: Some(out.join(SAVE_NOW_FILE)),
        }
    }

    /// Whether every epoch ends with a checkpoint (and so with a validation loss).
    pub fn saves_epochs(&self) -> bool {
        matches!(self.saving, Saving::Checkpoints(_) | Saving::Elsewhere)
    }

    /// Saves where that is due after this step: by the settings, by the clock, because somebody asks
    /// for it, or because the run is interrupted here.
    pub fn after_step(
        &mut self,
        state: &mut TrainState,
        plan: &Plan<'_>,
        outcome: Option<Outcome>,
    ) -> Result<()> {
        let steps = state.position.counters.steps;
        let is_asked_for = self.save_now.as_ref().is_some_and(|path| path.exists());
        match &mut self.saving {
            Saving::Never | Saving::Elsewhere => return Ok(()),
            Saving::Checkpoints(checkpoints) => {
                let is_due = |every| steps.is_multiple_of(every);
                let is_wanted = is_asked_for
                    || outcome == Some(Outcome::Interrupted)
                    || checkpoints.steps.every.is_some_and(is_due);
                if is_wanted && checkpoints.saved_at != Some(steps) {
                    self.save_step(state, outcome)?;
                }
            }
            Saving::Timed { every, last, .. } => {
                if is_asked_for || last.elapsed() >= *every {
                    *last = Instant::now();
                    self.evaluate_and_save(state, plan)?;
                }
            }
        }
        if is_asked_for {
            self.remove_save_now();
        }
        Ok(())
    }

    /// Gone, it says that the save is done.
    fn remove_save_now(&mut self) {
        let path = self.out.join(SAVE_NOW_FILE);
        if let Err(error) = std::fs::remove_file(&path) {
            let path = path.display();
            let message = format!("cannot remove {path}, which is ignored from now on: {error}");
            self.progress.emit(Event::Warning { message });
            self.save_now = None;
        }
    }

    fn save_step(&mut self, state: &TrainState, outcome: Option<Outcome>) -> Result<()> {
        let name = CheckpointName::Step(state.position.counters.steps);
        let saved = self.save_checkpoint(name, state)?;
        self.announce(state, &saved, None);
        // Who stops a run waits for its end, not for servers; they are told when it goes on.
        if outcome.is_none() && self.tells_servers_of(name) {
            self.tell_servers(name, &saved.manifest_sha256);
        }
        Ok(())
    }

    fn save_checkpoint(
        &mut self,
        name: CheckpointName,
        state: &TrainState,
    ) -> Result<SavedCheckpoint> {
        let Saving::Checkpoints(checkpoints) = &mut self.saving else {
            unreachable!("only runs with checkpoints save them");
        };
        let source = &self.tokenizer_source;
        let saved = save(&self.out, name, source, &checkpoints.config, state)?;
        checkpoints.saved_at = Some(state.position.counters.steps);
        clear_older(&self.out, name, checkpoints.steps.max_kept)?;
        Ok(saved)
    }

    /// Logs the epoch, saves it, tells the servers, has one measured, and says which is the best.
    pub fn after_epoch(
        &mut self,
        state: &mut TrainState,
        plan: &Plan<'_>,
        stop: &StopFlag,
    ) -> Result<()> {
        let Some(&losses) = state.position.history.last() else {
            return Ok(());
        };
        self.progress.emit(Event::EpochEnd {
            epoch: losses.epoch,
            train_loss: losses.train_loss,
            train_perplexity: losses.train_loss.exp(),
            validation_loss: losses.validation_loss,
            validation_perplexity: losses.validation_loss.map(f64::exp),
        });
        if !matches!(self.saving, Saving::Checkpoints(_)) {
            self.metrics.epoch(losses)?;
            self.plot();
            return Ok(());
        }
        let name = CheckpointName::Epoch(losses.epoch);
        let saved = self.save_checkpoint(name, state)?;
        self.metrics.epoch(losses)?;
        self.plot();
        self.announce(state, &saved, Some(losses.epoch));
        let asked = self.tell_servers(name, &saved.manifest_sha256);
        self.measure(&mut state.position, asked, stop);
        self.write_best(&state.position, plan.best.metric)
    }

    /// A run goes on from `found`. The servers are told again of the newest checkpoint they should
    /// know: the process that saved it may have ended before it told them. One that knows the
    /// folder's content answers from memory.
    pub fn after_resume(
        &mut self,
        position: &mut Position,
        found: &Folder,
        (plan, stop): (&Plan<'_>, &StopFlag),
    ) -> Result<()> {
        self.newest = Some(found.path.clone());
        if let Saving::Checkpoints(checkpoints) = &mut self.saving {
            checkpoints.saved_at = Some(position.counters.steps);
        }
        let epoch = position.counters.epochs_done;
        let last_epoch = CheckpointName::Epoch(epoch);
        let name = if self.tells_servers_of(found.name) {
            found.name
        } else {
            last_epoch
        };
        let mut asked = None;
        if let Ok(digest) = file_sha256(&self.out.join(name.to_string()).join(manifest::FILE_NAME))
        {
            asked = self
                .tell_servers(name, &digest)
                .filter(|_| name == last_epoch);
        }
        let is_measured = |values: &[EpochValue]| values.iter().any(|known| known.epoch == epoch);
        if epoch > 0 && !is_measured(&position.accuracies) {
            // The epoch's own checkpoint was written before it was measured.
            let known = Best::read(&self.out).filter(|best| best.metric == Metric::Accuracy);
            let values = known.map_or(Vec::new(), |best| best.values);
            match values.into_iter().find(|known| known.epoch == epoch) {
                Some(known) => position.accuracies.push(known),
                None => self.measure(position, asked, stop),
            }
        }
        self.write_best(position, plan.best.metric)
    }

    /// A picture that cannot be drawn is no reason to stop training.
    fn plot(&mut self) {
        if let Err(error) = self.metrics.plot() {
            let message = format!("no plots: {error}");
            self.progress.emit(Event::Warning { message });
        }
    }

    fn tells_servers_of(&self, name: CheckpointName) -> bool {
        let Saving::Checkpoints(checkpoints) = &self.saving else {
            return false;
        };
        match name {
            CheckpointName::Epoch(_) => true,
            CheckpointName::Step(_) => checkpoints.steps.servers == StepServers::Told,
        }
    }

    /// Gives the first server that has loaded it, to be asked.
    fn tell_servers(&mut self, name: CheckpointName, manifest_sha256: &str) -> Option<Asked> {
        let Saving::Checkpoints(checkpoints) = &self.saving else {
            return None;
        };
        let mut asked = None;
        for notification in notify_all(&checkpoints.notify, &name.to_string(), manifest_sha256) {
            if let (None, Ok(loaded)) = (&asked, &notification.outcome) {
                asked = Some(Asked {
                    server: notification.server.clone(),
                    token: checkpoints.notify.token.clone(),
                    weights_digest: loaded.weights_digest.clone(),
                });
            }
            self.progress.emit(notification.into());
        }
        asked
    }

    /// The accuracy of the epoch that is done, from a server that has loaded it. Without one, or where
    /// it fails, the epoch has none.
    fn measure(&mut self, position: &mut Position, asked: Option<Asked>, stop: &StopFlag) {
        let Saving::Checkpoints(checkpoints) = &self.saving else {
            return;
        };
        let Some(check) = &checkpoints.accuracy else {
            return;
        };
        let epoch = position.counters.epochs_done;
        let measured = match asked {
            Some(asked) => check.measure(&asked, stop),
            None => Err("no server has loaded it".to_string()),
        };
        match measured {
            Ok(accuracy) => {
                let value = accuracy.share();
                position.accuracies.push(EpochValue { epoch, value });
                self.progress.emit(accuracy.event(epoch));
            }
            Err(reason) => self.progress.emit(Event::Warning {
                message: format!("the accuracy of epoch {epoch} is missing: {reason}"),
            }),
        }
    }

    fn write_best(&self, position: &Position, metric: Metric) -> Result<()> {
        match Best::of(metric, metric.values(position)) {
            Some(best) => best.write(&self.out),
            None => Ok(()),
        }
    }

    /// The last save of a pre-training run, and the last event.
    pub fn finish(
        &mut self,
        state: &mut TrainState,
        plan: &Plan<'_>,
        outcome: Outcome,
    ) -> Result<Outcome> {
        if matches!(self.saving, Saving::Timed { .. }) {
            self.evaluate_and_save(state, plan)?;
        }
        self.plot();
        let position = &state.position;
        let metric = plan.best.metric;
        if let Some(best) = Best::of(metric, metric.values(position))
            && plan.gets_no_better(position)
        {
            self.progress.emit(Event::EarlyStop {
                epoch: position.counters.epochs_done,
                best_epoch: best.epoch,
                best_value: best.value,
            });
        }
        self.progress.emit(Event::Done {
            steps: state.position.counters.steps,
            tokens: state.position.counters.tokens,
            seconds: self.started.elapsed().as_secs_f64(),
            interrupted: outcome == Outcome::Interrupted,
            path: self.newest.clone(),
        });
        Ok(outcome)
    }

    fn evaluate_and_save(&mut self, state: &mut TrainState, plan: &Plan<'_>) -> Result<()> {
        let Saving::Timed { dtype, .. } = self.saving else {
            return Ok(());
        };
        if let Some(loss) = state.evaluate(plan.validation, plan.max_tokens_per_micro_batch)? {
            self.progress.emit(Event::Evaluated {
                step: state.position.counters.steps,
                validation_loss: loss,
                validation_perplexity: loss.exp(),
            });
        }
        let saved = save_model(&self.out, &self.tokenizer_source, dtype, &*state.engine)?;
        self.announce(state, &saved, None);
        Ok(())
    }

    fn announce(&mut self, state: &TrainState, saved: &SavedCheckpoint, epoch: Option<u32>) {
        self.newest = Some(saved.path.clone());
        self.progress.emit(Event::Checkpoint {
            epoch,
            step: state.position.counters.steps,
            path: saved.path.clone(),
            manifest_sha256: saved.manifest_sha256.clone(),
        });
    }
}
