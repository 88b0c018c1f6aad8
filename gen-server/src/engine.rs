//! The engine: one thread that owns every sequence, block and weight. A step is *schedule → submit →
//! collect → emit*. Where the runner computes on another device, the next step is scheduled and
//! submitted before the last one is collected, so that the device never waits for this thread. It waits
//! for nothing but work and steps: events go into channels with room for all of them.

pub(crate) mod batch;
mod block_hash;
pub(crate) mod block_pool;
mod draft;
#[cfg(test)]
pub(crate) mod fake;
pub(crate) mod gauges;
pub(crate) mod handle;
pub(crate) mod output;
mod queue;
pub(crate) mod rank;
pub(crate) mod runner;
pub(crate) mod sampler;
pub(crate) mod scheduler;
pub(crate) mod sequence;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::{
    sync::{
        Arc,
        mpsc::{Receiver, TryRecvError},
    },
    time::{Duration, Instant},
};

use tokio::sync::{oneshot, watch};

use self::{
    batch::StepBatch,
    gauges::Gauges,
    output::{Output, Outputs},
    runner::{Runner, RunnerError, Sampled, StagedWeights},
    scheduler::{Admission, Limits, Progress, Scheduler},
    sequence::Sequence,
};
use crate::request::{EngineFailure, EngineRequest, SequenceId, WeightsVersion};

/// Waiting requests hold no blocks, so it is enough to look for cancelled ones now and then.
const STEPS_BETWEEN_QUEUE_SWEEPS: u64 = 32;

/// What crosses from the async side to the engine.
#[derive(Debug)]
pub(crate) enum Command {
    Submit(Submission),
    Swap(Swap),
    /// End now, whatever is left.
    Stop,
}

/// A request and where its events go.
#[derive(Debug)]
pub(crate) struct Submission {
    pub request: EngineRequest,
    pub output: Output,
}

/// Proven weights, to be committed at a step boundary once everything admitted has ended.
#[derive(Debug)]
pub(crate) struct Swap {
    pub weights: StagedWeights,
    pub digest: String,
    pub checkpoint: String,
    /// Hears the new version when it is live.
    pub committed: oneshot::Sender<Arc<WeightsVersion>>,
}

/// Everything a generation needs, owned by one thread.
#[derive(Debug)]
pub(crate) struct Engine {
    scheduler: Scheduler,
    runner: Box<dyn Runner>,
    /// 1: each step is collected before the next is scheduled. 2: one step ahead.
    max_steps_under_way: usize,
    max_context_tokens: usize,
    commands: Receiver<Command>,
    outputs: Outputs,
    pending_swap: Option<Swap>,
    /// The runner's device is gone: there is nothing left but to end.
    is_broken: bool,
    live_weights: watch::Sender<Arc<WeightsVersion>>,
    gauges: Arc<Gauges>,
    num_steps: u64,
    next_id: u64,
    // Reused from step to step.
    batch: StepBatch,
    outcomes: Vec<Option<Sampled>>,
    progress: Vec<Progress>,
}

/// What [`Engine::new`] takes over.
#[derive(Debug)]
pub(crate) struct Parts {
    pub runner: Box<dyn Runner>,
    pub limits: Limits,
    /// Prompt and answer together; fits into the blocks.
    pub max_context_tokens: usize,
    pub commands: Receiver<Command>,
    pub live_weights: watch::Sender<Arc<WeightsVersion>>,
    pub gauges: Arc<Gauges>,
}

impl Engine {
    pub(crate) fn new(parts: Parts) -> Self {
        let limits = parts.limits;
        let weights_version = parts.live_weights.borrow().number;
        assert!(
            limits.num_blocks_for(parts.max_context_tokens) <= limits.num_blocks as usize,
            "the longest sequence fits into the blocks"
        );
        let max_steps_under_way = max_steps_under_way(&*parts.runner, limits);
        Self {
            scheduler: Scheduler::new(limits, weights_version),
            runner: parts.runner,
            max_steps_under_way,
            max_context_tokens: parts.max_context_tokens,
            commands: parts.commands,
            outputs: Outputs::default(),
            pending_swap: None,
            is_broken: false,
            live_weights: parts.live_weights,
            gauges: parts.gauges,
            num_steps: 0,
            next_id: 0,
            batch: StepBatch::default(),
            outcomes: Vec::new(),
            progress: Vec::new(),
        }
    }

    /// Works until it is told to stop, or the last handle is gone and everything submitted has ended; or until
    /// the runner's device is gone, and every request hears of it.
    pub(crate) fn run(&mut self) {
        while !self.is_broken && self.take_commands() {
            self.step();
        }
        if self.is_broken {
            tracing::error!("the engine has stopped with its device; restart the server");
            self.fail_all();
        }
    }

    /// Takes what has arrived; waits only when there is nothing else to do. False if nothing is left
    /// and nothing can come.
    fn take_commands(&mut self) -> bool {
        if !self.has_work() {
            match self.commands.recv() {
                Ok(Command::Stop) | Err(_) => return false,
                Ok(command) => self.take(command),
            }
        }
        loop {
            match self.commands.try_recv() {
                Ok(Command::Stop) => return false,
                Ok(command) => self.take(command),
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return self.has_work(),
            }
        }
    }

    fn has_work(&self) -> bool {
        self.scheduler.num_waiting() > 0
            || self.scheduler.num_steps_under_way() > 0
            || !self.scheduler.running().is_empty()
            || self.pending_swap.is_some()
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Submit(submission) => {
                let id = SequenceId(self.next_id);
                self.next_id += 1;
                let request = submission.request;
                self.scheduler
                    .add(Sequence::new(id, request, self.max_context_tokens));
                self.outputs.insert(id, submission.output);
            }
            Command::Swap(swap) => {
                assert!(self.pending_swap.is_none(), "swaps come one at a time");
                self.scheduler.set_admission(Admission::OnlyReadmission);
                self.pending_swap = Some(swap);
            }
            Command::Stop => unreachable!("not taken over"),
        }
    }

    /// One turn: a step is scheduled and submitted if there is one. Then the oldest is collected,
    /// unless one more may be scheduled before.
    fn step(&mut self) {
        let started = Instant::now();
        self.drop_cancelled();
        self.commit_swap();
        let is_scheduled = self.scheduler.schedule();
        let mut in_runner = Duration::ZERO;
        if is_scheduled {
            in_runner += self.submit();
        }
        let num_under_way = self.scheduler.num_steps_under_way();
        let may_run_ahead = is_scheduled && num_under_way < self.max_steps_under_way;
        if num_under_way > 0 && !may_run_ahead {
            in_runner += self.collect();
        }
        self.publish_load();
        if is_scheduled || num_under_way > 0 {
            self.publish_time(started.elapsed(), in_runner);
        }
    }

    /// Hands the last schedule to the runner. Returns how long that took.
    fn submit(&mut self) -> Duration {
        self.scheduler.start_step(&mut self.batch);
        self.gauges.add_prompt_tokens(
            self.scheduler.num_prefill_tokens(),
            self.scheduler.num_cached_tokens(),
        );
        let ready = Instant::now();
        let result = self.runner.submit(&self.batch);
        let in_runner = ready.elapsed();
        if let Err(error) = result {
            let lost = self.scheduler.abandon_newest_step();
            self.fail(&lost, &error);
            self.num_steps += 1;
        }
        in_runner
    }

    /// Waits for the oldest step under way, and emits what it came to. Returns how long it waited.
    fn collect(&mut self) -> Duration {
        let ready = Instant::now();
        let result = self.runner.collect(&mut self.outcomes);
        let in_runner = ready.elapsed();
        match result {
            Ok(()) => self.emit(),
            Err(error) => {
                let lost = self.scheduler.abandon_oldest_step();
                self.fail(&lost, &error);
            }
        }
        self.num_steps += 1;
        in_runner
    }

    /// A dropped receiver is the one cancel signal.
    fn drop_cancelled(&mut self) {
        let outputs = &mut self.outputs;
        self.scheduler
            .remove_running(|id| outputs.remove_if_cancelled(id));
        if self.num_steps.is_multiple_of(STEPS_BETWEEN_QUEUE_SWEEPS) {
            self.scheduler
                .remove_waiting(|id| outputs.remove_if_cancelled(id));
        } else {
            self.scheduler
                .remove_waiting_head(|id| outputs.remove_if_cancelled(id));
        }
    }

    /// Makes proven weights live, once nothing is in the middle.
    fn commit_swap(&mut self) {
        if self.pending_swap.is_none() {
            return;
        }
        // A preempted sequence may have been cancelled while it waited for blocks.
        let outputs = &mut self.outputs;
        self.scheduler
            .remove_waiting(|id| outputs.remove_if_cancelled(id));
        if self.scheduler.is_in_the_middle() {
            return;
        }
        if let Some(swap) = self.pending_swap.take() {
            self.runner.install(swap.weights);
            let version = Arc::new(WeightsVersion {
                number: self.live_weights.borrow().number + 1,
                digest: swap.digest,
                checkpoint: swap.checkpoint,
            });
            self.scheduler.set_weights_version(version.number);
            self.live_weights.send_replace(Arc::clone(&version));
            self.scheduler.set_admission(Admission::Open);
            // The caller may be gone; the swap is done all the same.
            drop(swap.committed.send(version));
        }
    }

    /// Hands the sampled tokens to the sequences and their events to the callers.
    fn emit(&mut self) {
        let weights = Arc::clone(&self.live_weights.borrow());
        self.progress.clear();
        self.scheduler
            .advance(&mut self.outcomes, &mut self.progress);
        let (mut num_tokens, mut num_ended) = (0, 0);
        for progress in self.progress.drain(..) {
            match progress {
                Progress::Token(id, sampled) => {
                    num_tokens += 1;
                    self.outputs.push(id, sampled, &weights);
                }
                Progress::Scored(id, logprobs) => self.outputs.push_scored(id, logprobs),
                Progress::End { id, reason, counts } => {
                    num_ended += 1;
                    self.gauges.add_drafts(&counts);
                    self.outputs.finish(id, (reason, counts), &weights);
                }
                Progress::NotFinite(id) => {
                    num_ended += 1;
                    self.outputs.fail(id, EngineFailure::NotFinite);
                }
            }
        }
        self.gauges.add_generated_tokens(num_tokens);
        self.gauges.add_finished(num_ended);
    }

    /// The requests of a step fail, the others go on as long as the device does.
    fn fail(&mut self, lost: &[SequenceId], error: &RunnerError) {
        tracing::error!(%error, "a step failed");
        self.is_broken |= matches!(error, RunnerError::Device(_));
        let failure = EngineFailure::Step(error.to_string());
        for &id in lost {
            self.outputs.fail(id, failure.clone());
        }
    }

    /// Ends every request with the same failure: the engine is not going on.
    pub(crate) fn fail_all(&mut self) {
        self.outputs.fail_all(&EngineFailure::Stopped);
    }

    fn publish_load(&self) {
        self.gauges.set_load(gauges::Load {
            num_running: self.scheduler.running().len(),
            num_waiting: self.scheduler.num_waiting(),
            num_blocks_used: self.scheduler.pool().num_used(),
            num_blocks_cached: self.scheduler.pool().num_cached(),
            num_preemptions_total: self.scheduler.num_preemptions_total(),
            num_steps_total: self.num_steps,
            wait_reason: self.scheduler.wait_reason(),
        });
    }

    /// What a turn took, and what of it was not spent in the runner. One step ahead, that part passes
    /// while the runner computes.
    fn publish_time(&self, whole: Duration, in_runner: Duration) {
        self.gauges
            .add_step_time(whole, whole.saturating_sub(in_runner));
    }
}

/// With guesses the next step cannot be decided before the last one's tokens are known.
fn max_steps_under_way(runner: &dyn Runner, limits: Limits) -> usize {
    let most = runner.max_steps_in_flight();
    assert!((1..=2).contains(&most), "one step ahead, not more: {most}");
    if limits.max_draft_tokens > 0 { 1 } else { most }
}
