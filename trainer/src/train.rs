//! The loop, top to bottom, shared by fine-tuning and pre-training: count labels → forward and
//! backward per micro-batch → clip → skip if not finite or a spike → step → log → evaluate → save →
//! tell the servers. It can end after any step and go on from there, bit for bit.

mod clock;
pub mod cpu;
pub mod engine;
pub mod guard;
pub mod lanes;
pub mod position;

use std::time::{Duration, Instant};

use self::clock::RunClock;
use self::engine::{Engine, StepGoal, Update};
use self::guard::GuardConfig;
use self::lanes::deal;
use self::position::{LossSum, Position};
use crate::best::{BestConfig, EarlyStopping, Metric};
use crate::config::Window;
use crate::dataset::Examples;
use crate::distributed::Group;
use crate::error::{Result, TrainError};
use crate::metrics::{EpochLosses, StepRecord};
use crate::outputs::Outputs;
use crate::pack::{MicroBatch, pack, windows};
use crate::progress::Event;
use crate::rng::shuffled;
use crate::schedule::Schedule;
use crate::stop::StopFlag;

/// How a run ended when it did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Finished,
    /// A signal asked for it.
    Interrupted,
}

/// What is trained on, in which portions, and for how long.
#[derive(Debug)]
pub struct Plan<'a> {
    pub examples: &'a Examples,
    pub validation: &'a Examples,
    pub window: Window,
    pub max_tokens_per_micro_batch: usize,
    pub schedule: Schedule,
    pub epochs: u32,
    pub budget: Budget,
    /// The run ends cleanly after this long, with the schedule at its end.
    pub time_limit: Option<Duration>,
    pub seed: u64,
    pub guard: GuardConfig,
    pub best: BestConfig,
}

/// What 100 % of a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Budget {
    /// All optimizer steps of all epochs.
    Steps(u64),
    /// Tokens through the network.
    Tokens(u64),
}

/// Everything that changes from step to step.
#[derive(Debug)]
pub struct TrainState {
    pub engine: Box<dyn Engine>,
    pub position: Position,
    /// The processes that train as one.
    pub group: Group,
}

/// What one step computed.
#[derive(Debug, Clone)]
struct StepReport {
    sum_nll: f64,
    num_labels: usize,
    num_tokens: usize,
    num_attention_pairs: u64,
    grad_norm: f64,
    /// Why its update was left out, where it was.
    skipped: Option<String>,
}

impl StepReport {
    fn loss(&self) -> f64 {
        self.sum_nll / self.num_labels as f64
    }
}

impl TrainState {
    pub fn new(engine: Box<dyn Engine>, group: Group) -> Self {
        Self {
            engine,
            position: Position::default(),
            group,
        }
    }

    /// One optimizer step over these micro-batches, at this learning rate. The update is left out
    /// where the guard says so.
    fn step(&mut self, batches: &[MicroBatch], lr: f64, guard: &GuardConfig) -> Result<StepReport> {
        let num_labels: usize = batches.iter().map(MicroBatch::num_labels).sum();
        let goal = StepGoal {
            steps: self.position.counters.steps,
            grad_scale: 1.0 / num_labels as f32,
        };
        let sums = self
            .engine
            .forward_backward(batches, goal, &mut self.group)?;
        let mut report = StepReport {
            sum_nll: sums.nll,
            num_labels,
            num_tokens: batches.iter().map(MicroBatch::num_tokens).sum(),
            num_attention_pairs: batches.iter().map(MicroBatch::num_attention_pairs).sum(),
            grad_norm: sums.grad_norm,
            skipped: None,
        };
        let judge = &mut self.position.guard;
        report.skipped = judge.judge(report.loss(), report.grad_norm, guard);
        if report.skipped.is_none() {
            self.engine.update(&Update {
                number: self.position.counters.num_updates() + 1,
                lr,
                grad_norm: report.grad_norm,
            })?;
        }
        self.position.count(&report);
        Ok(report)
    }

    /// Mean NLL per label token over `examples`; `None` where there are none.
    pub fn evaluate(&mut self, examples: &Examples, max_tokens: usize) -> Result<Option<f64>> {
        let all: Vec<u32> = (0..examples.len() as u32).collect();
        let batches = pack(&all, examples, max_tokens);
        let nll = self.engine.evaluate(&batches, &mut self.group)?;
        let mut sum = LossSum::default();
        let labels = batches.iter().map(MicroBatch::num_labels);
        sum.add(nll, labels.sum::<usize>() as u64);
        Ok(sum.mean())
    }
}

/// Runs `plan` from where `state` is to its end, or until `stop` is raised: then the step under way
/// is finished and its state is saved.
pub fn train(
    state: &mut TrainState,
    plan: &Plan<'_>,
    outputs: &mut Outputs<'_>,
    stop: &StopFlag,
) -> Result<Outcome> {
    let mut clock = RunClock::start(plan, state.position.counters);
    let mut outcome = plan.is_over(&state.position).then_some(Outcome::Finished);
    while outcome.is_none() {
        let epoch = state.position.epoch();
        let order = shuffled(plan.examples.len(), plan.seed, epoch);
        let all_windows = windows(&order, plan.examples, plan.window);
        let (num_windows, num_done) = (all_windows.len(), state.position.windows_done);
        assert!(
            num_done < num_windows,
            "positions lie before an epoch's end"
        );
        for window in all_windows.into_iter().skip(num_done) {
            let started = Instant::now();
            let num_lanes = state.group.size() * state.engine.num_lanes();
            let lanes = (num_lanes, plan.max_tokens_per_micro_batch);
            let batches = deal(&order[window], plan.examples, lanes);
            let counters = state.position.counters;
            let lr = plan.schedule.lr(counters.steps, clock.progress(counters));
            let report = state.step(&batches, lr, &plan.guard)?;
            let progress = clock.progress(state.position.counters);
            let timing = (started.elapsed(), progress, clock.eta_s(progress));
            log_step(
                outputs,
                plan,
                (&state.position, epoch),
                (&report, lr, timing),
            )?;
            if let Some(reason) = report.skipped {
                skip(outputs, plan, &state.position, reason)?;
            }
            outcome = between_steps(state, plan, (outputs, stop), (num_windows, progress))?;
            if outcome.is_some() {
                break;
            }
        }
    }
    outputs.finish(state, plan, outcome.unwrap_or(Outcome::Finished))
}

/// Everything between two optimizer steps: the end of the epoch where this was its last step, the
/// saves that are due, and whether the run ends here.
fn between_steps(
    state: &mut TrainState,
    plan: &Plan<'_>,
    (outputs, stop): (&mut Outputs<'_>, &StopFlag),
    (num_windows, progress): (usize, f64),
) -> Result<Option<Outcome>> {
    if state.position.windows_done == num_windows {
        end_epoch(state, plan, outputs, stop)?;
    }
    let is_used_up = progress >= 1.0 && !plan.ends_at_epoch_end();
    let outcome = if is_used_up || plan.is_over(&state.position) {
        Some(Outcome::Finished)
    } else {
        let is_stopped = state.group.any_raised(stop)?;
        is_stopped.then_some(Outcome::Interrupted)
    };
    outputs.after_step(state, plan, outcome)?;
    Ok(outcome)
}

/// Evaluates, logs and saves the epoch that is done, and tells the servers.
fn end_epoch(
    state: &mut TrainState,
    plan: &Plan<'_>,
    outputs: &mut Outputs<'_>,
    stop: &StopFlag,
) -> Result<()> {
    let epoch = state.position.epoch();
    let Some(train_loss) = state.position.losses.mean() else {
        return Err(TrainError::TooManySkipped {
            count: state.position.guard.skipped_in_a_row,
            last: format!("every step of epoch {epoch} was skipped"),
        });
    };
    let validation_loss = if outputs.saves_epochs() {
        state.evaluate(plan.validation, plan.max_tokens_per_micro_batch)?
    } else {
        None
    };
    state.position.end_epoch(EpochLosses {
        epoch,
        train_loss,
        validation_loss,
    });
    outputs.after_epoch(state, plan, stop)?;
    share_accuracies(state, plan)
}

/// Rank 0 alone asks the server; what it was told decides for all when to stop.
pub fn share_accuracies(state: &mut TrainState, plan: &Plan<'_>) -> Result<()> {
    if plan.best.metric != Metric::Accuracy {
        return Ok(());
    }
    let own = serde_json::to_vec(&state.position.accuracies).expect("numbers always serialise");
    let shared = state.group.broadcast(own)?;
    state.position.accuracies =
        serde_json::from_slice(&shared).map_err(|error| TrainError::BadMessage {
            what: error.to_string(),
        })?;
    Ok(())
}

impl Plan<'_> {
    /// A budget of steps counts whole epochs, so the last step and the last epoch end together.
    fn ends_at_epoch_end(&self) -> bool {
        matches!(self.budget, Budget::Steps(_)) && self.time_limit.is_none()
    }

    fn is_over(&self, position: &Position) -> bool {
        position.counters.epochs_done >= self.epochs || self.gets_no_better(position)
    }

    /// Early stopping, which is decided between two epochs.
    pub fn gets_no_better(&self, position: &Position) -> bool {
        let BestConfig { metric, stopping } = self.best;
        let is_over = |stopping: EarlyStopping| stopping.is_over(metric, &metric.values(position));
        position.windows_done == 0 && stopping.is_some_and(is_over)
    }
}

fn log_step(
    outputs: &mut Outputs<'_>,
    plan: &Plan<'_>,
    (position, epoch): (&Position, u32),
    (report, lr, (took, progress, eta_s)): (&StepReport, f64, (Duration, f64, f64)),
) -> Result<()> {
    let metrics = outputs.metrics.step(&StepRecord {
        step: position.counters.steps,
        epoch,
        loss: report.loss(),
        lr,
        grad_norm: report.grad_norm,
        num_tokens: report.num_tokens as u64,
        num_label_tokens: report.num_labels as u64,
        num_attention_pairs: report.num_attention_pairs,
        took,
        skipped: report.skipped.clone(),
    })?;
    if report.skipped.is_none() {
        outputs.progress.emit(Event::Step {
            step: metrics.step,
            total_steps: match plan.budget {
                Budget::Steps(total) => Some(total),
                Budget::Tokens(_) => None,
            },
            epoch,
            loss: metrics.loss,
            lr,
            grad_norm: metrics.grad_norm,
            tokens: metrics.tokens,
            label_tokens: metrics.label_tokens,
            tokens_per_s: metrics.tokens_per_s,
            label_tokens_per_s: metrics.label_tokens_per_s,
            mfu: metrics.mfu,
            progress,
            eta_s,
        });
    }
    Ok(())
}

/// Says that the step was skipped; too many in a row are an error.
fn skip(
    outputs: &mut Outputs<'_>,
    plan: &Plan<'_>,
    position: &Position,
    reason: String,
) -> Result<()> {
    let count = position.guard.skipped_in_a_row;
    outputs.progress.emit(Event::StepSkipped {
        step: position.counters.steps,
        epoch: position.epoch(),
        reason: reason.clone(),
        num_in_a_row: count,
    });
    if count < plan.guard.max_skipped_in_a_row {
        return Ok(());
    }
    Err(TrainError::TooManySkipped {
        count,
        last: reason,
    })
}

#[cfg(test)]
mod tests;
