//! Numbers that the engine publishes and anyone may read: how loaded it is and how far it has come.
//! Written by the engine thread alone, so relaxed order is enough; a reader may see a step half told.

use std::{
    sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use super::scheduler::WaitReason;
use crate::request::Counts;

/// Since the start, or as of the last step.
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    num_running: AtomicU64,
    num_waiting: AtomicU64,
    num_blocks_used: AtomicU64,
    num_blocks_cached: AtomicU64,
    num_preemptions_total: AtomicU64,
    num_steps_total: AtomicU64,
    /// Place in [`WAIT_REASONS`] plus 1; 0 is none.
    wait_reason: AtomicU8,
    num_generated_tokens_total: AtomicU64,
    num_prompt_tokens_total: AtomicU64,
    num_cached_tokens_total: AtomicU64,
    num_draft_tokens_total: AtomicU64,
    num_accepted_draft_tokens_total: AtomicU64,
    num_finished_total: AtomicU64,
    step_us_total: AtomicU64,
    overhead_us_total: AtomicU64,
}

const WAIT_REASONS: [WaitReason; 5] = [
    WaitReason::Sequences,
    WaitReason::Blocks,
    WaitReason::Tokens,
    WaitReason::Swap,
    WaitReason::Prefix,
];

/// How loaded the engine is after a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Load {
    pub num_running: usize,
    pub num_waiting: usize,
    pub num_blocks_used: usize,
    /// Free, and known to the prefix cache.
    pub num_blocks_cached: usize,
    pub num_preemptions_total: u64,
    pub num_steps_total: u64,
    /// Why the first waiting request does not run.
    pub wait_reason: Option<WaitReason>,
}

/// What the engine has done since its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Totals {
    pub num_generated_tokens: u64,
    /// Computed ones; those of recomputed answers included.
    pub num_prompt_tokens: u64,
    /// Found in the prefix cache instead.
    pub num_cached_tokens: u64,
    /// Of requests that have ended.
    pub num_draft_tokens: u64,
    pub num_accepted_draft_tokens: u64,
    pub num_finished: u64,
    /// Time of the engine's thread in steps.
    pub step_us: u64,
    /// The part of it outside the runner: neither handing a step over nor waiting for one. Where the
    /// engine is one step ahead of the runner, this passes while the runner computes.
    pub overhead_us: u64,
}

impl Gauges {
    pub(super) fn set_load(&self, load: Load) {
        self.num_running.store(load.num_running as u64, Relaxed);
        self.num_waiting.store(load.num_waiting as u64, Relaxed);
        self.num_blocks_used
            .store(load.num_blocks_used as u64, Relaxed);
        self.num_blocks_cached
            .store(load.num_blocks_cached as u64, Relaxed);
        self.num_preemptions_total
            .store(load.num_preemptions_total, Relaxed);
        self.num_steps_total.store(load.num_steps_total, Relaxed);
        let place = WAIT_REASONS
            .iter()
            .position(|reason| Some(*reason) == load.wait_reason);
        self.wait_reason
            .store(place.map_or(0, |place| place as u8 + 1), Relaxed);
    }

    pub(crate) fn load(&self) -> Load {
        let place = usize::from(self.wait_reason.load(Relaxed));
        Load {
            num_running: self.num_running.load(Relaxed) as usize,
            num_waiting: self.num_waiting.load(Relaxed) as usize,
            num_blocks_used: self.num_blocks_used.load(Relaxed) as usize,
            num_blocks_cached: self.num_blocks_cached.load(Relaxed) as usize,
            num_preemptions_total: self.num_preemptions_total.load(Relaxed),
            num_steps_total: self.num_steps_total.load(Relaxed),
            wait_reason: place.checked_sub(1).map(|place| WAIT_REASONS[place]),
        }
    }

    pub(super) fn add_generated_tokens(&self, num_tokens: usize) {
        self.num_generated_tokens_total
            .fetch_add(num_tokens as u64, Relaxed);
    }

    pub(super) fn add_prompt_tokens(&self, num_computed: usize, num_cached: usize) {
        self.num_prompt_tokens_total
            .fetch_add(num_computed as u64, Relaxed);
        self.num_cached_tokens_total
            .fetch_add(num_cached as u64, Relaxed);
    }

    pub(super) fn add_drafts(&self, counts: &Counts) {
        self.num_draft_tokens_total
            .fetch_add(counts.num_draft_tokens.into(), Relaxed);
        self.num_accepted_draft_tokens_total
            .fetch_add(counts.num_accepted_draft_tokens.into(), Relaxed);
    }

    pub(super) fn add_finished(&self, num_requests: usize) {
        self.num_finished_total
            .fetch_add(num_requests as u64, Relaxed);
    }

    pub(super) fn add_step_time(&self, whole: Duration, overhead: Duration) {
        self.step_us_total
            .fetch_add(whole.as_micros() as u64, Relaxed);
        self.overhead_us_total
            .fetch_add(overhead.as_micros() as u64, Relaxed);
    }

    pub(crate) fn totals(&self) -> Totals {
        Totals {
            num_generated_tokens: self.num_generated_tokens_total.load(Relaxed),
            num_prompt_tokens: self.num_prompt_tokens_total.load(Relaxed),
            num_cached_tokens: self.num_cached_tokens_total.load(Relaxed),
            num_draft_tokens: self.num_draft_tokens_total.load(Relaxed),
            num_accepted_draft_tokens: self.num_accepted_draft_tokens_total.load(Relaxed),
            num_finished: self.num_finished_total.load(Relaxed),
            step_us: self.step_us_total.load(Relaxed),
            overhead_us: self.overhead_us_total.load(Relaxed),
        }
    }
}
