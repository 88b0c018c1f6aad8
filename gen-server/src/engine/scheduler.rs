//! Who computes how many tokens in the next step. Data in, data out: no tensor, clock, text or async
//! here, so that whole histories can be tested from a seed.
//!
//! A step has a budget of tokens. First every decoding sequence gets its one token, oldest first; when
//! blocks run out the newest sequence gives its blocks back and is computed again later. Then prefills
//! that are under way get chunks of what is left of the budget. Then waiting requests are admitted,
//! first come first served, each only if its whole prompt fits into free blocks.

use std::collections::VecDeque;

use super::{batch::StepBatch, block_pool::BlockPool, sequence::Sequence};
use crate::request::{FinishReason, SequenceId};

#[cfg(test)]
mod tests;

/// What bounds a step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub block_size: usize,
    pub num_blocks: u32,
    pub max_num_seqs: usize,
    pub max_num_batched_tokens: usize,
}

impl Limits {
    /// Blocks that hold `num_tokens` tokens.
    pub(crate) fn num_blocks_for(&self, num_tokens: usize) -> usize {
        num_tokens.div_ceil(self.block_size)
    }

    /// Blocks that admission leaves free while something is running, so that a request is not
    /// admitted only to be preempted by the next block that an older one needs.
    fn num_watermark_blocks(&self) -> usize {
        self.num_blocks as usize / 100
    }
}

/// `num_tokens` more tokens for the sequence at `index` of [`Scheduler::running`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chunk {
    pub index: usize,
    pub num_tokens: usize,
}

/// Whether waiting requests may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    Open,
    /// Only those that were admitted before and preempted: a swap of weights is due, and they have
    /// to end under the old ones.
    OnlyReadmission,
}

/// The end of a sequence, as [`Scheduler::advance`] reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct End {
    pub id: SequenceId,
    pub reason: FinishReason,
}

/// Owns all sequences and their blocks.
#[derive(Debug)]
pub(crate) struct Scheduler {
    limits: Limits,
    pool: BlockPool,
    /// Oldest first; these hold blocks.
    running: Vec<Sequence>,
    /// Next first; these hold none. Preempted ones return to the front.
    waiting: VecDeque<Sequence>,
    admission: Admission,
    /// What the last [`Scheduler::schedule`] decided; kept to reuse its memory.
    chunks: Vec<Chunk>,
    num_prefill_tokens: usize,
    num_preemptions_total: u64,
}

impl Scheduler {
    pub(crate) fn new(limits: Limits) -> Self {
        assert!(limits.block_size > 0, "a block holds at least one token");
        assert!(
            limits.max_num_seqs > 0,
            "a step holds at least one sequence"
        );
        assert!(
            limits.max_num_batched_tokens >= limits.max_num_seqs,
            "every running sequence may decode in one step"
        );
        Self {
            limits,
            pool: BlockPool::new(limits.num_blocks),
            running: Vec::with_capacity(limits.max_num_seqs),
            waiting: VecDeque::new(),
            admission: Admission::Open,
            chunks: Vec::with_capacity(limits.max_num_seqs),
            num_prefill_tokens: 0,
            num_preemptions_total: 0,
        }
    }

    /// Queues a sequence. Its longest possible course must fit into the whole pool, or it would
    /// wait for ever: the caller has refused such requests.
    pub(crate) fn add(&mut self, sequence: Sequence) {
        self.waiting.push_back(sequence);
    }

    pub(crate) fn set_admission(&mut self, admission: Admission) {
        self.admission = admission;
    }

    pub(crate) fn running(&self) -> &[Sequence] {
        &self.running
    }

    pub(crate) fn num_waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn pool(&self) -> &BlockPool {
        &self.pool
    }

    pub(crate) fn num_preemptions_total(&self) -> u64 {
        self.num_preemptions_total
    }

    /// Whether a sequence was admitted and has not ended, running or preempted. Preempted ones are
    /// always at the front of the queue.
    pub(crate) fn has_admitted(&self) -> bool {
        !self.running.is_empty() || self.waiting.front().is_some_and(|first| first.was_admitted)
    }

    /// The sequences that the last schedule brings to their last token, in its order: each gets a
    /// sample.
    pub(crate) fn sampled_ids(&self) -> impl Iterator<Item = SequenceId> {
        self.chunks.iter().filter_map(|chunk| {
            let sequence = &self.running[chunk.index];
            (sequence.num_uncomputed_tokens() == chunk.num_tokens).then_some(sequence.id)
        })
    }

    /// The last schedule as arrays.
    pub(crate) fn fill_batch(&self, batch: &mut StepBatch) {
        batch.fill(&self.chunks, &self.running, &self.limits);
    }

    /// Tokens of the last schedule that are prompt, or recomputed after a preemption.
    pub(crate) fn num_prefill_tokens(&self) -> usize {
        self.num_prefill_tokens
    }

    /// Decides the next step. Empty if there is nothing to compute.
    pub(crate) fn schedule(&mut self) -> &[Chunk] {
        self.chunks.clear();
        let num_preemptions_before = self.num_preemptions_total;
        let mut budget = self.limits.max_num_batched_tokens;
        budget -= self.schedule_decodes();
        self.num_prefill_tokens = self.schedule_prefills(budget);
        budget -= self.num_prefill_tokens;
        // A preemption says that blocks are short: admitting now would preempt again at once.
        if self.num_preemptions_total == num_preemptions_before {
            self.admit(budget);
        }
        &self.chunks
    }

    /// One token for every decoding sequence. Returns the tokens scheduled.
    fn schedule_decodes(&mut self) -> usize {
        let mut index = 0;
        while index < self.running.len() {
            if self.running[index].is_decoding() {
                if !self.make_room_for_one(index) {
                    break; // the sequence itself was the newest, and has been preempted
                }
                self.chunks.push(Chunk {
                    index,
                    num_tokens: 1,
                });
            }
            index += 1;
        }
        self.chunks.len()
    }

    /// Room for one more token of the sequence at `index`, at the cost of newer ones; false if it had
    /// to give way itself. Terminates: each turn takes one sequence off `running`.
    fn make_room_for_one(&mut self, index: usize) -> bool {
        loop {
            let sequence = &mut self.running[index];
            let num_needed = self.limits.num_blocks_for(sequence.num_computed_tokens + 1);
            let num_missing = num_needed.saturating_sub(sequence.block_table.len());
            if num_missing == 0
                || self
                    .pool
                    .allocate(&mut sequence.block_table, num_missing)
                    .is_ok()
            {
                return true;
            }
            let is_newest = index + 1 == self.running.len();
            self.preempt_newest();
            if is_newest {
                return false;
            }
        }
    }

    /// Gives the newest sequence's blocks back; it will be computed again from its tokens.
    fn preempt_newest(&mut self) {
        let mut newest = self
            .running
            .pop()
            .expect("only a running sequence asks for room");
        self.pool.release(&mut newest.block_table);
        newest.num_computed_tokens = 0;
        self.num_preemptions_total += 1;
        self.waiting.push_front(newest);
    }

    /// Chunks for prefills under way; their blocks were taken at admission. Returns the tokens.
    fn schedule_prefills(&mut self, budget: usize) -> usize {
        let mut left = budget;
        for (index, sequence) in self.running.iter().enumerate() {
            if left == 0 {
                break;
            }
            if !sequence.is_decoding() {
                let num_tokens = sequence.num_uncomputed_tokens().min(left);
                self.chunks.push(Chunk { index, num_tokens });
                left -= num_tokens;
            }
        }
        budget - left
    }

    /// Starts waiting sequences while sequences, tokens and blocks last; stops at the first that does
    /// not fit, so that none is overtaken for ever.
    fn admit(&mut self, mut budget: usize) {
        while budget > 0 && self.running.len() < self.limits.max_num_seqs {
            let Some(mut sequence) = self.waiting.pop_front() else {
                return;
            };
            if !self.try_take_blocks(&mut sequence) {
                self.waiting.push_front(sequence);
                return;
            }
            let num_tokens = sequence.num_uncomputed_tokens().min(budget);
            self.chunks.push(Chunk {
                index: self.running.len(),
                num_tokens,
            });
            budget -= num_tokens;
            self.num_prefill_tokens += num_tokens;
            sequence.was_admitted = true;
            self.running.push(sequence);
        }
    }

    /// Blocks for all tokens that the sequence has now.
    fn try_take_blocks(&mut self, sequence: &mut Sequence) -> bool {
        if self.admission == Admission::OnlyReadmission && !sequence.was_admitted {
            return false;
        }
        let num_needed = self.limits.num_blocks_for(sequence.num_tokens());
        let num_kept_free = if self.running.is_empty() {
            0
        } else {
            self.limits.num_watermark_blocks()
        };
        self.pool.num_free() >= num_needed + num_kept_free
            && self
                .pool
                .allocate(&mut sequence.block_table, num_needed)
                .is_ok()
    }

    /// The step of the last schedule was computed: `samples` holds, in the order of the chunks, one
    /// token for each chunk that reached its sequence's last token; `None` ends the sequence without
    /// one. `ends` receives the sequences that ended regularly, `failed` those with `None`.
    pub(crate) fn advance(
        &mut self,
        samples: &[Option<u32>],
        ends: &mut Vec<End>,
        failed: &mut Vec<SequenceId>,
    ) {
        let mut samples = samples.iter();
        let mut num_gone = 0;
        for chunk in &self.chunks {
            let sequence = &mut self.running[chunk.index];
            sequence.num_computed_tokens += chunk.num_tokens;
            if sequence.num_uncomputed_tokens() > 0 {
                continue;
            }
            let sample = samples
                .next()
                .expect("one sample for each chunk that reaches the end");
            match sample.map(|token| sequence.push(token)) {
                Some(None) => continue,
                Some(Some(reason)) => ends.push(End {
                    id: sequence.id,
                    reason,
                }),
                None => failed.push(sequence.id),
            }
            self.pool.release(&mut sequence.block_table);
            num_gone += 1;
        }
        assert!(samples.next().is_none(), "a sample without a sequence");
        if num_gone > 0 {
            // A running sequence always holds blocks, so an empty table marks the ended ones.
            self.running
                .retain(|sequence| !sequence.block_table.is_empty());
        }
        self.chunks.clear();
    }

    /// Removes the running sequences that `is_gone` names and frees their blocks.
    pub(crate) fn remove_running(&mut self, mut is_gone: impl FnMut(SequenceId) -> bool) {
        assert!(
            self.chunks.is_empty(),
            "no sequence leaves in the middle of a step"
        );
        let pool = &mut self.pool;
        self.running.retain_mut(|sequence| {
            let gone = is_gone(sequence.id);
            if gone {
                pool.release(&mut sequence.block_table);
            }
            !gone
        });
    }

    /// As [`Self::remove_waiting`], over those that the next step could admit: nobody's prompt is
    /// computed while a live one waits.
    pub(crate) fn remove_waiting_head(&mut self, mut is_gone: impl FnMut(SequenceId) -> bool) {
        let mut num_kept = 0;
        let mut index = 0;
        while num_kept < self.limits.max_num_seqs && index < self.waiting.len() {
            if is_gone(self.waiting[index].id) {
                self.waiting.remove(index);
            } else {
                num_kept += 1;
                index += 1;
            }
        }
    }

    /// Removes the waiting sequences that `is_gone` names.
    pub(crate) fn remove_waiting(&mut self, mut is_gone: impl FnMut(SequenceId) -> bool) {
        self.waiting.retain(|sequence| !is_gone(sequence.id));
    }

    /// The step of the last schedule failed: its sequences are removed and named.
    pub(crate) fn abandon_step(&mut self) -> Vec<SequenceId> {
        let mut lost = Vec::with_capacity(self.chunks.len());
        for chunk in self.chunks.drain(..) {
            let sequence = &mut self.running[chunk.index];
            lost.push(sequence.id);
            self.pool.release(&mut sequence.block_table);
        }
        self.running
            .retain(|sequence| !sequence.block_table.is_empty());
        lost
    }

    /// Panics unless every block is free or in exactly one table.
    #[cfg(test)]
    pub(crate) fn assert_blocks_conserved(&self) {
        let mut num_owned = 0;
        let mut owners = std::collections::HashSet::new();
        for sequence in &self.running {
            num_owned += sequence.block_table.len();
            for &block in &sequence.block_table {
                assert!(owners.insert(block), "{block:?} has two owners");
                assert_eq!(self.pool.ref_count(block), 1, "{block:?}");
            }
            assert!(
                !sequence.block_table.is_empty(),
                "{} runs without blocks",
                sequence.id
            );
        }
        for sequence in &self.waiting {
            assert!(
                sequence.block_table.is_empty(),
                "{} waits with blocks",
                sequence.id
            );
        }
        assert_eq!(self.pool.num_free() + num_owned, self.pool.num_total());
    }
}
