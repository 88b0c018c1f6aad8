//! The loop, top to bottom, shared by fine-tuning and pre-training: count labels → forward and
//! backward per micro-batch → clip → stop if not finite → step → log → evaluate → save → tell the
//! servers.

mod clock;

use std::time::{Duration, Instant};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use self::clock::RunClock;
use crate::config::Window;
use crate::dataset::Examples;
use crate::error::{Result, TrainError};
use crate::forward::Network;
use crate::gradients::Gradients;
use crate::metrics::{EpochLosses, StepMetrics};
use crate::optimizer::Optimizer;
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

/// A loss or norm that is not finite skips the update; this many in a row end the run.
const MAX_SKIPPED_IN_A_ROW: u32 = 5;

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
    pub network: Network,
    pub optimizer: Optimizer,
    pub counters: Counters,
    /// Losses of the epochs done, this run's and those before a resume.
    pub history: Vec<EpochLosses>,
    /// One per lane; the first also takes the sum.
    lanes: Vec<Gradients>,
}

/// Micro-batches of a step are dealt out to this many lanes, which run side by side and have
/// gradients of their own: far fewer meetings between threads than in splitting each small product.
/// A fixed number, not the number of threads, so that sums have one order on every machine.
const NUM_LANES: usize = 4;

/// Lanes cost a gradient each. Above this many weights (256 MB a gradient) there is one lane: the
/// products are then large enough to be split well.
const MAX_LANE_PARAMETERS: usize = 64 << 20;

/// A step is not cut into micro-batches smaller than this to fill the lanes: products of fewer rows
/// lose more than the lanes win.
const MIN_LANE_TOKENS: usize = 384;

/// Where in the run a state is; saved in every checkpoint.
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

/// What one step computed.
#[derive(Debug, Clone, Copy)]
struct StepReport {
    sum_nll: f64,
    num_labels: usize,
    num_tokens: usize,
    grad_norm: f64,
}

/// NLL and labels of many micro-batches: summed, then divided, once.
#[derive(Debug, Clone, Copy, Default)]
struct LossSum {
    nll: f64,
    labels: u64,
}

impl LossSum {
    fn mean(self) -> f64 {
        self.nll / self.labels as f64
    }
}

impl StepReport {
    fn loss(&self) -> f64 {
        self.sum_nll / self.num_labels as f64
    }

    fn is_finite(&self) -> bool {
        self.sum_nll.is_finite() && self.grad_norm.is_finite()
    }
}

impl TrainState {
    pub fn new(network: Network, optimizer: Optimizer) -> Self {
        let small = network.config.num_parameters() <= MAX_LANE_PARAMETERS;
        let num_lanes = if small { NUM_LANES } else { 1 };
        let lanes = (0..num_lanes)
            .map(|_| Gradients::zeros(&network.config))
            .collect();
        Self {
            network,
            optimizer,
            counters: Counters::default(),
            history: Vec::new(),
            lanes,
        }
    }

    /// Packs the examples of one step so that every lane has work, within the token budget.
    fn micro_batches(&self, chosen: &[u32], plan: &Plan<'_>) -> Vec<MicroBatch> {
        let inputs = |&index: &u32| plan.examples.get(index as usize).num_inputs();
        let share = chosen
            .iter()
            .map(inputs)
            .sum::<usize>()
            .div_ceil(self.lanes.len());
        let max_tokens = share
            .max(MIN_LANE_TOKENS)
            .min(plan.max_tokens_per_micro_batch);
        pack(chosen, plan.examples, max_tokens)
    }

    /// One optimizer step over these micro-batches, at this learning rate. The update is left out
    /// where loss or gradient norm is not finite.
    fn step(&mut self, batches: &[MicroBatch], lr: f64) -> Result<StepReport> {
        let num_labels: usize = batches.iter().map(MicroBatch::num_labels).sum();
        let grad_scale = 1.0 / num_labels as f32;
        let (network, num_lanes) = (&self.network, self.lanes.len());
        let run_lane = |(lane, gradients): (usize, &mut Gradients)| -> Result<f64> {
            gradients.clear();
            let own = batches.iter().skip(lane).step_by(num_lanes);
            own.map(|batch| network.forward_backward(batch, grad_scale, gradients))
                .sum()
        };
        let sums: Vec<f64> = self
            .lanes
            .par_iter_mut()
            .enumerate()
            .map(run_lane)
            .collect::<Result<_>>()?;
        let (gradients, others) = self.lanes.split_first_mut().expect("there is a lane");
        for other in others {
            gradients.add(other);
        }
        let report = StepReport {
            sum_nll: sums.iter().sum(),
            num_labels,
            num_tokens: batches.iter().map(MicroBatch::num_tokens).sum(),
            grad_norm: gradients.global_norm(),
        };
        self.counters.steps += 1;
        self.counters.tokens += report.num_tokens as u64;
        self.counters.label_tokens += report.num_labels as u64;
        if report.is_finite() {
            let weights = &self.network.weights;
            self.optimizer
                .step(weights, gradients, (lr, report.grad_norm))?;
        } else {
            self.counters.skipped_steps += 1;
        }
        Ok(report)
    }

    /// Mean NLL per label token over `examples`; `None` where there are none.
    pub fn evaluate(&self, examples: &Examples, max_tokens: usize) -> Result<Option<f64>> {
        let all: Vec<u32> = (0..examples.len() as u32).collect();
        let batches = pack(&all, examples, max_tokens);
        let mut sum = LossSum::default();
        for side_by_side in batches.chunks(self.lanes.len()) {
            let losses = side_by_side
                .par_iter()
                .map(|batch| self.network.evaluate(batch));
            sum.nll += losses.collect::<Result<Vec<f64>>>()?.iter().sum::<f64>();
            sum.labels += side_by_side
                .iter()
                .map(|batch| batch.num_labels() as u64)
                .sum::<u64>();
        }
        Ok((sum.labels > 0).then(|| sum.mean()))
    }
}

/// Runs `plan` from where `state` is to its end, or until `stop` is raised: then the step under way
/// is finished, and with the last step of an epoch the epoch's checkpoint, too.
pub fn train(
    state: &mut TrainState,
    plan: &Plan<'_>,
    outputs: &mut Outputs<'_>,
    stop: &StopFlag,
) -> Result<Outcome> {
    let mut clock = RunClock::start(plan, state.counters);
    let mut skipped_in_a_row = 0;
    for epoch in state.counters.epochs_done + 1..=plan.epochs {
        let order = shuffled(plan.examples.len(), plan.seed, epoch);
        let mut losses = LossSum::default();
        let all_windows = windows(&order, plan.examples, plan.window);
        let num_windows = all_windows.len();
        for (index, window) in all_windows.into_iter().enumerate() {
            let started = Instant::now();
            let batches = state.micro_batches(&order[window], plan);
            let done_before = clock.progress(state.counters);
            let lr = plan.schedule.lr(state.counters.steps, done_before);
            let report = state.step(&batches, lr)?;
            let progress = clock.progress(state.counters);
            let timing = (started.elapsed(), progress, clock.eta_s(progress));
            log_step(
                outputs,
                plan,
                (state.counters, epoch),
                (&report, lr, timing),
            )?;
            if report.is_finite() {
                skipped_in_a_row = 0;
                losses.nll += report.sum_nll;
                losses.labels += report.num_labels as u64;
            } else {
                skipped_in_a_row += 1;
                skip(outputs, (state.counters, epoch), &report, skipped_in_a_row)?;
            }
            outputs.after_step(state, plan)?;
            // An epoch whose last step is done is worth its save.
            let epoch_is_done = index + 1 == num_windows && outputs.saves_epochs();
            if stop.is_raised() && !epoch_is_done {
                return outputs.finish(state, plan, Outcome::Interrupted);
            }
            if progress >= 1.0 && !plan.ends_at_epoch_end() {
                return outputs.finish(state, plan, Outcome::Finished);
            }
        }
        if losses.labels == 0 {
            let last = format!("every step of epoch {epoch} was skipped");
            return Err(TrainError::NotFinite {
                count: skipped_in_a_row,
                last,
            });
        }
        end_epoch(state, plan, outputs, (epoch, losses))?;
        if stop.is_raised() && epoch < plan.epochs {
            return outputs.finish(state, plan, Outcome::Interrupted);
        }
    }
    outputs.finish(state, plan, Outcome::Finished)
}

/// Evaluates, logs and saves the epoch that is done, and tells the servers.
fn end_epoch(
    state: &mut TrainState,
    plan: &Plan<'_>,
    outputs: &mut Outputs<'_>,
    (epoch, losses): (u32, LossSum),
) -> Result<()> {
    state.counters.epochs_done = epoch;
    let validation_loss = if outputs.saves_epochs() {
        state.evaluate(plan.validation, plan.max_tokens_per_micro_batch)?
    } else {
        None
    };
    state.history.push(EpochLosses {
        epoch,
        train_loss: losses.mean(),
        validation_loss,
    });
    outputs.after_epoch(state)
}

impl Plan<'_> {
    /// A budget of steps counts whole epochs, so the last step and the last epoch end together.
    fn ends_at_epoch_end(&self) -> bool {
        matches!(self.budget, Budget::Steps(_)) && self.time_limit.is_none()
    }
}

fn log_step(
    outputs: &mut Outputs<'_>,
    plan: &Plan<'_>,
    (counters, epoch): (Counters, u32),
    (report, lr, (took, progress, eta_s)): (&StepReport, f64, (Duration, f64, f64)),
) -> Result<()> {
    let metrics = StepMetrics {
        step: counters.steps,
        epoch,
        loss: report.loss(),
        lr,
        grad_norm: report.grad_norm,
        tokens: report.num_tokens as u64,
        label_tokens: report.num_labels as u64,
        tokens_per_s: report.num_tokens as f64 / took.as_secs_f64().max(1e-9),
    };
    outputs.metrics.step(&metrics)?;
    if report.is_finite() {
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
            progress,
            eta_s,
        });
    }
    Ok(())
}

fn skip(
    outputs: &mut Outputs<'_>,
    (counters, epoch): (Counters, u32),
    report: &StepReport,
    num_in_a_row: u32,
) -> Result<()> {
    let reason = format!("loss {}, gradient norm {}", report.loss(), report.grad_norm);
    let step = counters.steps;
    outputs.progress.emit(Event::StepSkipped {
        step,
        epoch,
        reason: reason.clone(),
        num_in_a_row,
    });
    if num_in_a_row >= MAX_SKIPPED_IN_A_ROW {
        return Err(TrainError::NotFinite {
            count: num_in_a_row,
            last: reason,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
