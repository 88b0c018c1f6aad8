//! Numbers that the engine publishes and anyone may read: how loaded it is and how far it has come.
//! Written by the engine thread alone, so relaxed order is enough; a reader may see a step half told.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Since the start, or as of the last step.
#[expect(clippy::struct_field_names, reason = "counts are named num_")]
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    num_running: AtomicU64,
    num_waiting: AtomicU64,
    num_blocks_used: AtomicU64,
    num_preemptions_total: AtomicU64,
    num_steps_total: AtomicU64,
    num_generated_tokens_total: AtomicU64,
    num_prompt_tokens_total: AtomicU64,
    num_finished_total: AtomicU64,
}

/// How loaded the engine is after a step.
#[expect(clippy::struct_field_names, reason = "counts are named num_")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Load {
    pub num_running: usize,
    pub num_waiting: usize,
    pub num_blocks_used: usize,
    pub num_preemptions_total: u64,
    pub num_steps_total: u64,
}

impl Gauges {
    pub(super) fn set_load(&self, load: Load) {
        self.num_running.store(load.num_running as u64, Relaxed);
        self.num_waiting.store(load.num_waiting as u64, Relaxed);
        self.num_blocks_used
            .store(load.num_blocks_used as u64, Relaxed);
        self.num_preemptions_total
            .store(load.num_preemptions_total, Relaxed);
        self.num_steps_total.store(load.num_steps_total, Relaxed);
    }

    pub(crate) fn load(&self) -> Load {
        Load {
            num_running: self.num_running.load(Relaxed) as usize,
            num_waiting: self.num_waiting.load(Relaxed) as usize,
            num_blocks_used: self.num_blocks_used.load(Relaxed) as usize,
            num_preemptions_total: self.num_preemptions_total.load(Relaxed),
            num_steps_total: self.num_steps_total.load(Relaxed),
        }
    }

    pub(super) fn add_generated_tokens(&self, num_tokens: usize) {
        self.num_generated_tokens_total
            .fetch_add(num_tokens as u64, Relaxed);
    }

    pub(super) fn add_prompt_tokens(&self, num_tokens: usize) {
        self.num_prompt_tokens_total
            .fetch_add(num_tokens as u64, Relaxed);
    }

    pub(super) fn add_finished(&self, num_requests: usize) {
        self.num_finished_total
            .fetch_add(num_requests as u64, Relaxed);
    }

    pub(crate) fn num_generated_tokens_total(&self) -> u64 {
        self.num_generated_tokens_total.load(Relaxed)
    }

    pub(crate) fn num_prompt_tokens_total(&self) -> u64 {
        self.num_prompt_tokens_total.load(Relaxed)
    }

    pub(crate) fn num_finished_total(&self) -> u64 {
        self.num_finished_total.load(Relaxed)
    }
}
