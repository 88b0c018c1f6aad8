//! One generation as the scheduler sees it: tokens, how many of them are computed, and the blocks
//! that hold their KV. `num_computed_tokens` chasing the tokens is prefill, chunked prefill, prefix
//! hit, decode, verification of drafts and recompute alike.
//!
//! Its tokens in order, and what stands where:
//!
//! ```text
//! tokens            |■■■■■■■■■■■■■■■■■■■■■■■■■■|□□□|      ■ known   □ being drawn by a step under way
//! KV in the blocks  |== computed ==|~~ under way ~~|      ~ being computed by a step under way
//!                                                  └ next_place(): where the next share begins
//! ```

use std::{collections::VecDeque, ops::Range, sync::Arc};

use super::{
    block_hash::BlockHash,
    block_pool::{BlockId, Content},
    rank::Rank,
};
use crate::request::{
    Counts, EngineRequest, FinishReason, PrefixCache, Sampling, SequenceId, Stopping, Task,
};

/// A request being generated or scored.
#[derive(Debug)]
pub(crate) struct Sequence {
    pub(crate) id: SequenceId,
    pub(super) rank: Rank,
    /// Prompt and answer so far; never empty.
    tokens: Vec<u32>,
    pub(super) num_prompt_tokens: usize,
    /// Tokens whose KV is in the blocks, by the steps that are over.
    pub(super) num_computed_tokens: usize,
    /// Tokens after those whose KV steps under way are computing, drafts included.
    pub(super) num_tokens_under_way: usize,
    /// The tokens of the answer that steps under way are drawing, oldest first: for each, which of the
    /// rows of its step that is.
    pub(super) draws_under_way: VecDeque<u32>,
    /// Prompt and answer together never get longer.
    max_total_tokens: usize,
    pub(super) block_table: Vec<BlockId>,
    pub(super) sampling: Arc<Sampling>,
    pub(super) stopping: Arc<Stopping>,
    pub(super) num_candidates: Option<u32>,
    pub(super) prefix_cache: PrefixCache,
    /// `Some`: nothing is generated, and the token at this place is the next to be scored.
    next_scored: Option<usize>,
    /// Names of the full blocks of `tokens`, under `hash_root`.
    hashes: Vec<BlockHash>,
    hash_root: Option<BlockHash>,
    /// Blocks at the front of the table that the prefix cache has been told of, or that came from it.
    pub(super) num_published_blocks: usize,
    /// Tokens of the step that is being made, drafts included; 0 where it has no part in it.
    pub(super) num_scheduled_tokens: usize,
    /// Guesses of what comes next, to be verified in the step that is being made or under way: with
    /// guesses, one step at a time.
    pub(super) drafts: Vec<u32>,
    /// How many are worth guessing, from how the last guesses went.
    max_drafts: usize,
    pub(super) counts: Counts,
    /// Set at the first admission: from here on the sequence belongs to one weights version, also
    /// while it waits again after a preemption.
    pub(super) was_admitted: bool,
}

/// What of a step under way is one sequence's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Share {
    pub rank: Rank,
    /// Drafts included.
    pub num_tokens: usize,
    pub num_rows: usize,
}

impl Sequence {
    /// `max_context_tokens` bounds prompt and answer together.
    pub(crate) fn new(id: SequenceId, request: EngineRequest, max_context_tokens: usize) -> Self {
        let num_prompt_tokens = request.prompt_ids.len();
        assert!(num_prompt_tokens > 0, "{id}: the prompt is empty");
        let (max_total_tokens, next_scored) = match request.task {
            Task::Generate { max_tokens } => {
                assert!(max_tokens > 0, "{id}: nothing to generate");
                assert!(
                    num_prompt_tokens < max_context_tokens,
                    "{id}: the prompt fills the context"
                );
                let most = num_prompt_tokens + max_tokens as usize;
                (max_context_tokens.min(most), None)
            }
            Task::Score { from } => {
                let range = 1..num_prompt_tokens;
                assert!(range.contains(&(from as usize)), "{id}: nothing to score");
                assert!(
                    num_prompt_tokens <= max_context_tokens,
                    "{id}: the prompt exceeds the context"
                );
                (num_prompt_tokens, Some(from as usize))
            }
        };
        Self {
            id,
            rank: Rank::new(id, request.priority),
            tokens: request.prompt_ids,
            num_prompt_tokens,
            num_computed_tokens: 0,
            num_tokens_under_way: 0,
            draws_under_way: VecDeque::new(),
            max_total_tokens,
            block_table: Vec::new(),
            sampling: request.sampling,
            stopping: request.stopping,
            num_candidates: request.num_candidates,
            prefix_cache: request.prefix_cache,
            next_scored,
            hashes: Vec::new(),
            hash_root: None,
            num_published_blocks: 0,
            num_scheduled_tokens: 0,
            drafts: Vec::new(),
            max_drafts: usize::MAX,
            counts: Counts::default(),
            was_admitted: false,
        }
    }

    /// Prompt and answer so far, as far as they are known.
    pub(crate) fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Prompt and answer once the steps under way are over, unless one of them ends it.
    fn num_tokens(&self) -> usize {
        self.tokens.len() + self.draws_under_way.len()
    }

    /// Tokens that are to be computed in all. The last token of a scored prompt predicts nothing
    /// that anybody asked for.
    pub(crate) fn num_tokens_to_compute(&self) -> usize {
        match self.next_scored {
            None => self.num_tokens(),
            Some(_) => self.num_tokens() - 1,
        }
    }

    /// Place of the first token that no step has computed or is computing.
    pub(super) fn next_place(&self) -> usize {
        self.num_computed_tokens + self.num_tokens_under_way
    }

    /// Tokens that the next step could compute.
    pub(crate) fn num_schedulable_tokens(&self) -> usize {
        if self.must_wait_for_its_token() {
            return 0;
        }
        self.num_tokens_to_compute() - self.next_place()
    }

    /// Whether nothing can be scheduled for it before a token that is being drawn is known: that
    /// token is the last one for sure, or the next draw looks at it. A stop token is not foreseen:
    /// what is computed after it comes to nothing.
    fn must_wait_for_its_token(&self) -> bool {
        let is_last = self.num_tokens() >= self.max_total_tokens;
        !self.knows_its_tokens() && (is_last || self.sampling.has_penalties())
    }

    /// Whether no step under way is drawing a token of it.
    pub(super) fn knows_its_tokens(&self) -> bool {
        self.draws_under_way.is_empty()
    }

    pub(super) fn is_score(&self) -> bool {
        self.next_scored.is_some()
    }

    fn num_answer_tokens(&self) -> usize {
        self.num_tokens() - self.num_prompt_tokens
    }

    /// The one token to compute was generated: this is not a piece of a prefill.
    pub(super) fn is_decoding(&self) -> bool {
        self.num_answer_tokens() > 0 && self.num_schedulable_tokens() == 1
    }

    /// Place of the first token whose logits are wanted: it cannot come from the prefix cache.
    pub(super) fn first_logits_place(&self) -> usize {
        match self.next_scored {
            None => self.num_tokens() - 1,
            Some(scored) => scored - 1,
        }
    }

    /// Places of those of the next `num_tokens` tokens whose logits are wanted.
    pub(super) fn logits_places(&self, num_tokens: usize) -> Range<usize> {
        let start = self.next_place();
        let end = start + num_tokens;
        self.first_logits_place().max(start).min(end)..end
    }

    /// The known tokens of the step that is being made.
    pub(super) fn scheduled_known_tokens(&self) -> &[u32] {
        let start = self.next_place();
        let end = start + self.num_scheduled_tokens - self.drafts.len();
        &self.tokens[start.min(self.tokens.len())..end.min(self.tokens.len())]
    }

    /// Which row of the step before draws the last token of the step that is being made, if that
    /// token is not known yet.
    pub(super) fn scheduled_carry(&self) -> Option<u32> {
        let end = self.next_place() + self.num_scheduled_tokens - self.drafts.len();
        let is_carried = end > self.tokens.len();
        is_carried.then(|| *self.draws_under_way.back().expect("it is being drawn"))
    }

    /// The step that was being made is under way; its rows for this sequence begin at `first_row`.
    pub(super) fn start_step(&mut self, first_row: u32) -> Share {
        let share = Share {
            rank: self.rank,
            num_tokens: self.num_scheduled_tokens,
            num_rows: self.logits_places(self.num_scheduled_tokens).len(),
        };
        if share.num_rows > 0 && !self.is_score() {
            self.draws_under_way.push_back(first_row);
        }
        self.num_tokens_under_way += share.num_tokens;
        self.num_scheduled_tokens = 0;
        share
    }

    /// The oldest step under way was computed, and this was its share. Drafts are not counted as
    /// computed before they are found right.
    pub(super) fn end_step(&mut self, share: &Share) {
        self.num_tokens_under_way -= share.num_tokens;
        self.num_computed_tokens += share.num_tokens - self.drafts.len();
        if share.num_rows > 0 && !self.is_score() {
            self.draws_under_way.pop_front();
        }
    }

    /// Drafts that could still become tokens of the answer, beside the one that is drawn anyway.
    pub(super) fn num_useful_drafts(&self) -> usize {
        let num_left = self.max_total_tokens - self.tokens.len();
        num_left.saturating_sub(1).min(self.max_drafts)
    }

    /// `num_right` of `num_drafts` were what the model itself said. Twice as many next time where all
    /// were right; else one more than were right, so that text that copies nothing costs little.
    pub(super) fn learn_from_drafts(&mut self, num_drafts: usize, num_right: usize) {
        if num_drafts == 0 {
            return;
        }
        self.counts.num_draft_tokens += num_drafts as u32;
        self.counts.num_accepted_draft_tokens += num_right as u32;
        self.max_drafts = if num_right == num_drafts {
            num_drafts * 2
        } else {
            num_right + 1
        };
    }

    /// Appends a generated token; `Some` if it is the last one.
    pub(super) fn push(&mut self, token: u32) -> Option<FinishReason> {
        self.tokens.push(token);
        if self.stopping.token_ids.contains(&token) {
            Some(FinishReason::Stop)
        } else if self.tokens.len() >= self.max_total_tokens {
            Some(FinishReason::Length)
        } else {
            None
        }
    }

    /// One more token was scored; `Some` if it was the last.
    pub(super) fn pass_scored(&mut self) -> Option<FinishReason> {
        let scored = self.next_scored.as_mut().expect("only a score is scored");
        *scored += 1;
        (*scored == self.tokens.len()).then_some(FinishReason::Scored)
    }

    /// Names of the full blocks of its tokens; a change of weights changes them all.
    pub(super) fn hashes(&mut self, root: BlockHash, block_size: usize) -> &[BlockHash] {
        if self.hash_root != Some(root) {
            self.hashes.clear();
            self.hash_root = Some(root);
        }
        for tokens in self.tokens.chunks_exact(block_size).skip(self.hashes.len()) {
            let parent = self.hashes.last().copied().unwrap_or(root);
            self.hashes.push(parent.child(tokens));
        }
        &self.hashes
    }

    /// What its full block `index` holds.
    pub(super) fn content(&mut self, index: usize, root: BlockHash, block_size: usize) -> Content {
        let hashes = self.hashes(root, block_size);
        Content {
            hash: hashes[index],
            parent: index.checked_sub(1).map_or(root, |before| hashes[before]),
            tokens: self.tokens[index * block_size..(index + 1) * block_size].into(),
        }
    }

    /// The blocks are gone: everything is to be computed again.
    pub(super) fn forget_computed(&mut self) {
        assert!(self.block_table.is_empty(), "{} still has blocks", self.id);
        assert_eq!(self.num_tokens_under_way, 0, "{} is under way", self.id);
        self.num_computed_tokens = 0;
        self.num_published_blocks = 0;
    }
}
