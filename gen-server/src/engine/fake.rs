//! A runner without a model, for tests. Its "KV cache" holds one number per slot, a hash of the token,
//! its position and the weights version; the next token is a hash of all numbers that the block table
//! leads to. A wrong block, slot, position or version anywhere changes the answer. Answers repeat
//! themselves now and then, so that speculation has something to find.
//!
//! A step is computed when it is collected, not before: whatever the engine does meanwhile that the
//! step should not see, or should have waited for, changes the answer too.

use std::{collections::VecDeque, sync::mpsc::Receiver};

use super::{
    batch::{Purpose, StepBatch},
    runner::{Runner, RunnerError, Sampled, StagedWeights},
    sampler::mix,
};
use crate::request::TokenLogprobs;

/// The fake's vocabulary; token 0 is the one that tests use as a stop token.
pub(crate) const VOCAB_SIZE: u32 = 97;

/// After how many tokens the fake likes to repeat itself.
const PERIOD: usize = 5;

/// A token that a failed step "draws": nobody may ever see what follows from it.
const GARBAGE: u32 = 1_000_000;

/// See the file's head.
#[derive(Debug)]
pub(crate) struct FakeRunner {
    slots: Vec<Slot>,
    block_size: usize,
    version: u64,
    pub(crate) max_steps_in_flight: usize,
    /// Submitted and not collected, oldest first, with their numbers.
    in_flight: VecDeque<(u64, StepBatch)>,
    /// What the rows of the step computed last came to.
    drawn: Vec<u32>,
    /// Steps whose number (from 1, in the order of submission) is here fail when they are collected.
    pub(crate) failing_steps: Vec<u64>,
    /// These are not even taken.
    pub(crate) refused_steps: Vec<u64>,
    /// None of the rows of these is finite.
    pub(crate) not_finite_steps: Vec<u64>,
    /// Each step waits for a permission; without a gate, or once its sender is gone, it does not.
    pub(crate) gate: Option<Receiver<()>>,
    /// The step with this number panics.
    pub(crate) panicking_step: Option<u64>,
    /// With it the device goes.
    pub(crate) breaking_step: Option<u64>,
    /// Taken or refused.
    num_submitted: u64,
}

impl FakeRunner {
    pub(crate) fn new(num_blocks: u32, block_size: usize, version: u64) -> Self {
        Self {
            slots: vec![Slot::default(); num_blocks as usize * block_size],
            block_size,
            version,
            max_steps_in_flight: 1,
            in_flight: VecDeque::new(),
            drawn: Vec::new(),
            failing_steps: Vec::new(),
            refused_steps: Vec::new(),
            not_finite_steps: Vec::new(),
            gate: None,
            panicking_step: None,
            breaking_step: None,
            num_submitted: 0,
        }
    }

    /// The tokens of `batch`, those that the step before has drawn included.
    fn token_ids(&self, batch: &StepBatch) -> Vec<u32> {
        let mut token_ids = batch.token_ids.clone();
        for carried in &batch.carried {
            assert_eq!(token_ids[carried.token as usize], 0, "{carried:?}");
            token_ids[carried.token as usize] = self.drawn[carried.row as usize];
        }
        token_ids
    }

    fn compute(&mut self, batch: &StepBatch, outcomes: &mut Vec<Option<Sampled>>) {
        let token_ids = self.token_ids(batch);
        for ((&token, &position), &slot) in token_ids.iter().zip(&batch.positions).zip(&batch.slots)
        {
            self.slots[slot as usize] = Slot::new(token, position as usize, self.version);
        }
        let mut rows = batch.rows.iter().peekable();
        let mut end = 0;
        for sequence in &batch.sequences {
            end += sequence.query_len;
            while let Some(row) = rows.next_if(|row| row.row < end) {
                let position = sequence.context_len - (end - 1 - row.row);
                assert_eq!(row.position, u64::from(position));
                let table = batch.block_table(sequence);
                let context = self.context_at(position as usize, table);
                let drawing = &batch.drawings[row.drawing as usize];
                let has_history = drawing.sampling.has_penalties();
                assert!(!has_history || batch.history(row).len() == position as usize);
                outcomes.push(Some(context.outcome(row.purpose, drawing.num_candidates)));
            }
        }
        assert!(rows.next().is_none(), "each row belongs to a sequence");
        self.drawn.clear();
        let drawn = outcomes.iter().flatten().map(|sampled| sampled.token);
        self.drawn.extend(drawn);
    }

    /// Leaves as much of a mess as a step that fails may.
    fn spoil(&mut self, batch: &StepBatch) {
        for &slot in &batch.slots {
            self.slots[slot as usize] = Slot::new(GARBAGE, 0, self.version);
        }
        self.drawn.clear();
        self.drawn.resize(batch.rows.len(), GARBAGE);
    }

    /// What was said before `position`.
    fn context_at(&self, position: usize, table: &[u32]) -> Context {
        let mut context = Context::default();
        for position in 0..position {
            let block = table[position / self.block_size] as usize;
            context.absorb(self.slots[block * self.block_size + position % self.block_size]);
        }
        context
    }
}

/// What the fake keeps of one token.
#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    entry: u64,
    token: u32,
}

impl Slot {
    fn new(token: u32, position: usize, version: u64) -> Self {
        let entry = mix(mix(u64::from(token)) ^ mix((position as u64) << 32 | version));
        Self { entry, token }
    }
}

/// What the fake knows when it says the next token.
#[derive(Debug, Default)]
struct Context {
    state: u64,
    tokens: Vec<u32>,
}

impl Context {
    fn absorb(&mut self, slot: Slot) {
        self.state = mix(self.state.rotate_left(7) ^ slot.entry);
        self.tokens.push(slot.token);
    }

    /// Often the token of [`PERIOD`] tokens ago.
    fn next_token(&self) -> u32 {
        match self.tokens.len().checked_sub(PERIOD) {
            Some(place) if !mix(self.state).is_multiple_of(4) => self.tokens[place],
            _ => token_of(self.state),
        }
    }

    fn logprobs_of(&self, token: u32, num_candidates: u32) -> TokenLogprobs {
        let random = mix(self.state ^ u64::from(token));
        TokenLogprobs {
            logprob: -((random % 1000) as f32) / 100.0,
            rank: 1 + (random >> 32) as u32 % VOCAB_SIZE,
            candidates: (0..num_candidates)
                .map(|place| {
                    (
                        token_of(mix(self.state) + u64::from(place)),
                        -(place as f32),
                    )
                })
                .collect(),
        }
    }

    fn outcome(&self, purpose: Purpose, num_candidates: Option<u32>) -> Sampled {
        let (token, is_told) = match purpose {
            Purpose::Draw => (self.next_token(), num_candidates.is_some()),
            Purpose::Score(token) => (token, true),
        };
        Sampled {
            token,
            logprobs: is_told.then(|| self.logprobs_of(token, num_candidates.unwrap_or(0))),
        }
    }
}

impl Runner for FakeRunner {
    fn max_steps_in_flight(&self) -> usize {
        self.max_steps_in_flight
    }

    fn submit(&mut self, batch: &StepBatch) -> Result<(), RunnerError> {
        assert!(self.in_flight.len() < self.max_steps_in_flight);
        assert!(batch.carried.is_empty() || !self.in_flight.is_empty());
        self.num_submitted += 1;
        if self.refused_steps.contains(&self.num_submitted) {
            return Err(RunnerError::Step("as the test wishes".to_owned()));
        }
        self.in_flight
            .push_back((self.num_submitted, batch.clone()));
        Ok(())
    }

    fn collect(&mut self, outcomes: &mut Vec<Option<Sampled>>) -> Result<(), RunnerError> {
        outcomes.clear();
        let step = self.in_flight.pop_front();
        let (number, batch) = step.expect("what is collected was submitted");
        if let Some(gate) = &self.gate {
            // An error means that the gate is open for good.
            let _ = gate.recv();
        }
        assert_ne!(self.panicking_step, Some(number), "as the test wishes");
        if self.breaking_step == Some(number) {
            return Err(RunnerError::Device("as the test wishes".to_owned()));
        }
        if self.failing_steps.contains(&number) {
            self.spoil(&batch);
            return Err(RunnerError::Step("as the test wishes".to_owned()));
        }
        self.compute(&batch, outcomes);
        if self.not_finite_steps.contains(&number) {
            outcomes.fill(None);
            self.drawn.fill(GARBAGE);
        }
        Ok(())
    }

    fn install(&mut self, weights: StagedWeights) {
        assert!(self.in_flight.is_empty(), "weights change between steps");
        self.version = *weights
            .0
            .downcast::<u64>()
            .expect("the fake's weights are a number");
    }
}

/// What one request alone must get: the oracle.
pub(crate) fn solo_answer(prompt: &[u32], max_tokens: usize, version: u64) -> Vec<u32> {
    let mut context = Context::default();
    for (position, &token) in prompt.iter().enumerate() {
        context.absorb(Slot::new(token, position, version));
    }
    let mut answer = Vec::new();
    for position in (prompt.len()..).take(max_tokens) {
        let token = context.next_token();
        answer.push(token);
        context.absorb(Slot::new(token, position, version));
    }
    answer
}

/// What scoring `prompt` from its token at `from` on must say: the oracle.
pub(crate) fn solo_scores(
    prompt: &[u32],
    from: usize,
    num_candidates: u32,
    version: u64,
) -> Vec<TokenLogprobs> {
    let mut context = Context::default();
    let mut scores = Vec::new();
    for (position, &token) in prompt.iter().enumerate() {
        if position >= from {
            scores.push(context.logprobs_of(token, num_candidates));
        }
        context.absorb(Slot::new(token, position, version));
    }
    scores
}

fn token_of(state: u64) -> u32 {
    (state % u64::from(VOCAB_SIZE)) as u32
}
