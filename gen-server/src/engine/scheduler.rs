//! Who computes how many tokens in the next step. Data in, data out: no tensor, clock, text or async
//! here, so that whole histories can be tested from a seed.
//!
//! A step has a budget of tokens. First every decoding sequence gets its one token, first ranks first;
//! when blocks run out the last in rank gives its blocks back and is computed again later. Then
//! guesses of what those sequences say next, while there is room. Then prefills that are under way get
//! chunks of what is left. Then waiting requests are admitted in the order of their ranks, each only
//! if its whole prompt fits into free blocks.
//!
//! The next step can be decided while another is still under way; `under_way` says what that rests on.

mod admission;
mod advance;
mod under_way;

#[cfg(test)]
mod tests;

pub(crate) use self::advance::Progress;
pub(crate) use super::queue::Admission;

use std::collections::VecDeque;

use self::under_way::Step;
use super::{
    block_hash::BlockHash, block_pool::BlockPool, draft, queue::Queue, sequence::Sequence,
};
use crate::request::{PrefixCache, SequenceId};

/// Rows of logits that a step may always have: memory for them is vocabulary × 4 bytes each.
const MIN_LOGITS_ROWS: usize = 64;

/// What bounds a step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub block_size: usize,
    pub num_blocks: u32,
    pub max_num_seqs: usize,
    pub max_num_batched_tokens: usize,
    /// Most tokens guessed ahead for a sequence; 0 is no speculation.
    pub max_draft_tokens: usize,
    /// Whether requests may share computed prefixes.
    pub prefix_cache: PrefixCache,
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

    /// Rows of logits in one step: one for each sequence, and as many again for guesses and scores.
    pub(crate) fn max_logits_rows(&self) -> usize {
        (2 * self.max_num_seqs).max(MIN_LOGITS_ROWS)
    }
}

/// Why the first waiting request does not run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WaitReason {
    /// As many sequences run as may.
    Sequences,
    /// Its prompt does not fit into the free blocks.
    Blocks,
    /// The step's tokens, or its rows of logits, are used up.
    Tokens,
    /// New weights are about to go live.
    Swap,
    /// Another request is computing the same prefix.
    Prefix,
}

/// What a step may still hold.
#[derive(Debug, Clone, Copy)]
struct Budget {
    num_tokens: usize,
    num_logits_rows: usize,
}

/// Owns all sequences and their blocks.
#[derive(Debug)]
pub(crate) struct Scheduler {
    limits: Limits,
    pool: BlockPool,
    /// In the order of their ranks; these hold blocks.
    running: Vec<Sequence>,
    /// These hold none.
    waiting: Queue,
    /// Steps that were started and not ended, oldest first.
    under_way: VecDeque<Step>,
    admission: Admission,
    /// Where the names of blocks begin: the live weights.
    hash_root: BlockHash,
    wait_reason: Option<WaitReason>,
    num_prefill_tokens: usize,
    num_cached_tokens: usize,
    num_preemptions_total: u64,
}

impl Scheduler {
    pub(crate) fn new(limits: Limits, weights_version: u64) -> Self {
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
            waiting: Queue::default(),
            under_way: VecDeque::new(),
            admission: Admission::Open,
            hash_root: BlockHash::root(weights_version),
            wait_reason: None,
            num_prefill_tokens: 0,
            num_cached_tokens: 0,
            num_preemptions_total: 0,
        }
    }

    /// Queues a sequence. Its longest possible course must fit into the whole pool, or it would
    /// wait for ever: the caller has refused such requests.
    pub(crate) fn add(&mut self, mut sequence: Sequence) {
        if self.limits.prefix_cache == PrefixCache::Bypass {
            sequence.prefix_cache = PrefixCache::Bypass;
        }
        self.waiting.insert(sequence);
    }

    pub(crate) fn set_admission(&mut self, admission: Admission) {
        self.admission = admission;
    }

    /// From now on blocks are named after these weights: what was computed under others is never
    /// found again, and ages out.
    pub(crate) fn set_weights_version(&mut self, version: u64) {
        assert!(!self.is_in_the_middle(), "a sequence is under way");
        self.hash_root = BlockHash::root(version);
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

    /// As of the last schedule; `None` where nothing waits.
    pub(crate) fn wait_reason(&self) -> Option<WaitReason> {
        self.wait_reason.filter(|_| self.waiting.len() > 0)
    }

    /// Whether a step is under way, or a sequence was admitted and has not ended, running or
    /// preempted.
    pub(crate) fn is_in_the_middle(&self) -> bool {
        !self.under_way.is_empty() || !self.running.is_empty() || self.waiting.has_readmissions()
    }

    /// Tokens of the last schedule that are prompt, or recomputed after a preemption.
    pub(crate) fn num_prefill_tokens(&self) -> usize {
        self.num_prefill_tokens
    }

    /// Prompt tokens that the last schedule found in the prefix cache.
    pub(crate) fn num_cached_tokens(&self) -> usize {
        self.num_cached_tokens
    }

    /// Decides the next step, as if the one under way were over and had ended no sequence but those
    /// that it ends for sure. False if there is nothing to compute, or nothing that can be decided
    /// before that step is over.
    pub(crate) fn schedule(&mut self) -> bool {
        assert!(self.under_way.len() <= 1, "one step ahead, not more");
        self.num_prefill_tokens = 0;
        self.num_cached_tokens = 0;
        if !self.under_way.is_empty() && !self.has_room_for_decodes() {
            self.wait_reason = Some(WaitReason::Blocks);
            return false;
        }
        let num_preemptions_before = self.num_preemptions_total;
        let mut budget = Budget {
            num_tokens: self.limits.max_num_batched_tokens,
            num_logits_rows: self.limits.max_logits_rows(),
        };
        self.schedule_decodes(&mut budget);
        self.schedule_drafts(&mut budget);
        self.schedule_prefills(&mut budget);
        // A preemption says that blocks are short: admitting now would preempt again at once.
        if self.num_preemptions_total == num_preemptions_before {
            self.admit(&mut budget);
        } else {
            self.wait_reason = Some(WaitReason::Blocks);
        }
        self.running
            .iter()
            .any(|sequence| sequence.num_scheduled_tokens > 0)
    }

    /// One token for every decoding sequence.
    fn schedule_decodes(&mut self, budget: &mut Budget) {
        let mut index = 0;
        while index < self.running.len() {
            if self.running[index].is_decoding() {
                if !self.make_room_for_one(index) {
                    break; // the sequence itself was the last, and has been preempted
                }
                self.running[index].num_scheduled_tokens = 1;
                budget.num_tokens -= 1;
                budget.num_logits_rows -= 1;
            }
            index += 1;
        }
    }

    /// Room for one more token of the sequence at `index`, at the cost of later ranks; false if it
    /// had to give way itself. Terminates: each turn takes one sequence off `running`.
    fn make_room_for_one(&mut self, index: usize) -> bool {
        loop {
            if self.try_make_room(index, 1) {
                return true;
            }
            let is_last = index + 1 == self.running.len();
            self.preempt_last();
            if is_last {
                return false;
            }
        }
    }

    /// Blocks for `num_tokens` more tokens of the sequence at `index`, or none.
    fn try_make_room(&mut self, index: usize, num_tokens: usize) -> bool {
        let sequence = &mut self.running[index];
        let num_missing = num_missing_blocks(self.limits, sequence, num_tokens);
        let table = &mut sequence.block_table;
        num_missing == 0 || self.pool.allocate(table, num_missing).is_ok()
    }

    /// Whether every decoding sequence can get its next token without a preemption.
    fn has_room_for_decodes(&self) -> bool {
        let decoding = self.running.iter().filter(|each| each.is_decoding());
        let num_missing: usize = decoding
            .map(|sequence| num_missing_blocks(self.limits, sequence, 1))
            .sum();
        num_missing <= self.pool.num_free()
    }

    /// Gives the blocks of the last in rank back; it will be computed again from its tokens. It has
    /// no part in this step yet: decodes are scheduled in the order of ranks, and first.
    fn preempt_last(&mut self) {
        assert!(
            self.under_way.is_empty(),
            "blocks are counted before a step is decided ahead"
        );
        let last = self.running.pop();
        let mut last = last.expect("only a running sequence asks for room");
        assert_eq!(last.num_scheduled_tokens, 0, "{} is scheduled", last.id);
        self.pool.release(&mut last.block_table);
        last.forget_computed();
        self.num_preemptions_total += 1;
        self.waiting.insert(last);
    }

    /// Guesses for the sequences that decode, first ranks first, in what is left of the budget and
    /// of the free blocks; nobody is preempted for a guess.
    fn schedule_drafts(&mut self, budget: &mut Budget) {
        if self.limits.max_draft_tokens == 0 {
            return;
        }
        assert!(
            self.under_way.is_empty(),
            "guesses are made from the last token"
        );
        let is_prefilling = |sequence: &&Sequence| sequence.num_scheduled_tokens == 0;
        // A prefill gets at least one token in every step, whatever is guessed.
        let num_reserved = self.running.iter().filter(is_prefilling).count();
        for index in 0..self.running.len() {
            let room = budget.num_tokens.min(budget.num_logits_rows);
            let room = room.saturating_sub(num_reserved);
            let sequence = &mut self.running[index];
            if sequence.num_scheduled_tokens == 0 {
                continue;
            }
            let num_wanted = sequence.num_useful_drafts();
            let num_wanted = num_wanted.min(self.limits.max_draft_tokens).min(room);
            let mut drafts = std::mem::take(&mut sequence.drafts);
            draft::look_up(sequence.tokens(), num_wanted, &mut drafts);
            if self.try_make_room(index, 1 + drafts.len()) {
                budget.num_tokens -= drafts.len();
                budget.num_logits_rows -= drafts.len();
                self.running[index].num_scheduled_tokens += drafts.len();
            } else {
                drafts.clear();
            }
            self.running[index].drafts = drafts;
        }
    }

    /// Chunks for prefills under way; their blocks were taken at admission.
    fn schedule_prefills(&mut self, budget: &mut Budget) {
        for sequence in &mut self.running {
            // Those that wait for their token have nothing to schedule, and get nothing.
            if sequence.num_scheduled_tokens == 0 {
                self.num_prefill_tokens += take_chunk(sequence, budget);
            }
        }
    }

    /// Removes the running sequences that `is_gone` names and frees their blocks, also those that a
    /// step under way is computing: its rows for them come to nothing.
    pub(crate) fn remove_running(&mut self, mut is_gone: impl FnMut(SequenceId) -> bool) {
        let pool = &mut self.pool;
        self.running.retain_mut(|sequence| {
            assert_eq!(
                sequence.num_scheduled_tokens, 0,
                "no sequence leaves in the middle of a step"
            );
            let gone = is_gone(sequence.id);
            if gone {
                pool.release(&mut sequence.block_table);
            }
            !gone
        });
    }

    /// As [`Self::remove_waiting`], over those that the next step could admit: nobody's prompt is
    /// computed while a live one waits.
    pub(crate) fn remove_waiting_head(&mut self, is_gone: impl FnMut(SequenceId) -> bool) {
        self.waiting.sweep(self.limits.max_num_seqs, is_gone);
    }

    /// Removes the waiting sequences that `is_gone` names.
    pub(crate) fn remove_waiting(&mut self, is_gone: impl FnMut(SequenceId) -> bool) {
        self.waiting.sweep(usize::MAX, is_gone);
    }

    /// Panics unless every block is free or in as many tables as it counts.
    #[cfg(test)]
    pub(crate) fn assert_blocks_conserved(&self) {
        let mut owners = std::collections::HashMap::<_, u32>::new();
        for sequence in &self.running {
            assert!(!sequence.block_table.is_empty(), "{} runs", sequence.id);
            for &block in &sequence.block_table {
                *owners.entry(block).or_default() += 1;
            }
        }
        for (&block, &num_owners) in &owners {
            assert_eq!(self.pool.ref_count(block), num_owners, "{block:?}");
        }
        for sequence in self.waiting.iter() {
            assert!(sequence.block_table.is_empty(), "{} waits", sequence.id);
        }
        assert_eq!(self.pool.num_free() + owners.len(), self.pool.num_total());
        self.assert_shares_add_up();
        assert!(self.running.is_sorted_by_key(|sequence| sequence.rank));
    }
}

/// Blocks that the sequence lacks for `num_tokens` more tokens.
fn num_missing_blocks(limits: Limits, sequence: &Sequence, num_tokens: usize) -> usize {
    let num_needed = limits.num_blocks_for(sequence.next_place() + num_tokens);
    num_needed.saturating_sub(sequence.block_table.len())
}

/// Schedules as much of a prefill as the budget allows. Returns the tokens.
fn take_chunk(sequence: &mut Sequence, budget: &mut Budget) -> usize {
    let start = sequence.next_place();
    // Rows of logits begin at one place and go on to the end: the last token is where they run out.
    let end_of_rows = sequence.first_logits_place().max(start) + budget.num_logits_rows;
    let num_tokens = sequence
        .num_schedulable_tokens()
        .min(budget.num_tokens)
        .min(end_of_rows - start);
    budget.num_tokens -= num_tokens;
    budget.num_logits_rows -= sequence.logits_places(num_tokens).len();
    sequence.num_scheduled_tokens = num_tokens;
    num_tokens
}
