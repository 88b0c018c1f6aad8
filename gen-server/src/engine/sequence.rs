//! One generation as the scheduler sees it: tokens, how many of them are computed, and the blocks
//! that hold their KV. `num_computed_tokens` chasing `num_tokens` is prefill, chunked prefill, decode
//! and recompute alike.

use std::sync::Arc;

use super::block_pool::BlockId;
use crate::request::{EngineRequest, FinishReason, Sampling, SequenceId};

/// A request being generated.
#[derive(Debug)]
pub(crate) struct Sequence {
    pub(crate) id: SequenceId,
    /// Prompt and answer so far; never empty.
    tokens: Vec<u32>,
    num_prompt_tokens: usize,
    /// Tokens whose KV is in the blocks.
    pub(super) num_computed_tokens: usize,
    /// Prompt and answer together never get longer.
    max_total_tokens: usize,
    pub(super) block_table: Vec<BlockId>,
    stop_token_ids: Arc<[u32]>,
    pub(crate) sampling: Sampling,
    /// Set at the first admission: from here on the sequence belongs to one weights version, also
    /// while it waits again after a preemption.
    pub(super) was_admitted: bool,
}

impl Sequence {
    /// `max_context_tokens` bounds prompt and answer together; the prompt must be shorter.
    pub(crate) fn new(id: SequenceId, request: EngineRequest, max_context_tokens: usize) -> Self {
        let num_prompt_tokens = request.prompt_ids.len();
        assert!(num_prompt_tokens > 0, "{id}: the prompt is empty");
        assert!(request.max_tokens > 0, "{id}: nothing to generate");
        assert!(
            num_prompt_tokens < max_context_tokens,
            "{id}: the prompt fills the context"
        );
        let max_total_tokens =
            max_context_tokens.min(num_prompt_tokens + request.max_tokens as usize);
        Self {
            id,
            tokens: request.prompt_ids,
            num_prompt_tokens,
            num_computed_tokens: 0,
            max_total_tokens,
            block_table: Vec::new(),
            stop_token_ids: request.stop_token_ids,
            sampling: request.sampling,
            was_admitted: false,
        }
    }

    pub(crate) fn num_tokens(&self) -> usize {
        self.tokens.len()
    }

    pub(crate) fn num_uncomputed_tokens(&self) -> usize {
        self.tokens.len() - self.num_computed_tokens
    }

    fn has_answer_tokens(&self) -> bool {
        self.tokens.len() > self.num_prompt_tokens
    }

    /// The one token to compute was generated: this is not a piece of a prefill.
    pub(super) fn is_decoding(&self) -> bool {
        self.has_answer_tokens() && self.num_uncomputed_tokens() == 1
    }

    /// The next `num_tokens` tokens to compute.
    pub(crate) fn next_tokens(&self, num_tokens: usize) -> &[u32] {
        &self.tokens[self.num_computed_tokens..self.num_computed_tokens + num_tokens]
    }

    /// Appends a generated token; `Some` if it is the last one.
    pub(super) fn push(&mut self, token: u32) -> Option<FinishReason> {
        self.tokens.push(token);
        if self.stop_token_ids.contains(&token) {
            Some(FinishReason::Stop)
        } else if self.tokens.len() >= self.max_total_tokens {
            Some(FinishReason::Length)
        } else {
            None
        }
    }
}
