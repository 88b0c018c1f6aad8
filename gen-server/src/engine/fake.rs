//! A runner without a model, for tests. Its "KV cache" holds one number per slot, a hash of the token,
//! its position and the weights version; the next token is a hash of all numbers that the block table
//! leads to. A wrong block, slot, position or version anywhere changes the answer.

use std::sync::mpsc::Receiver;

use super::{
    batch::{BatchSequence, StepBatch},
    runner::{Runner, RunnerError, StagedWeights},
    sampler::mix,
};

/// The fake's vocabulary; token 0 is the one that tests use as a stop token.
pub(crate) const VOCAB_SIZE: u32 = 97;

/// See the file's head.
#[derive(Debug)]
pub(crate) struct FakeRunner {
    slots: Vec<u64>,
    block_size: usize,
    version: u64,
    /// Steps whose number (from 1) is here fail.
    pub(crate) failing_steps: Vec<u64>,
    /// Each step waits for a permission; without a gate, or once its sender is gone, it does not.
    pub(crate) gate: Option<Receiver<()>>,
    /// The step with this number panics.
    pub(crate) panicking_step: Option<u64>,
    num_steps: u64,
}

impl FakeRunner {
    pub(crate) fn new(num_blocks: u32, block_size: usize, version: u64) -> Self {
        Self {
            slots: vec![0; num_blocks as usize * block_size],
            block_size,
            version,
            failing_steps: Vec::new(),
            gate: None,
            panicking_step: None,
            num_steps: 0,
        }
    }

    fn next_token(&self, sequence: &BatchSequence, table: &[u32]) -> u32 {
        let mut state = 0;
        for position in 0..sequence.context_len as usize {
            let block = table[position / self.block_size] as usize;
            let slot = block * self.block_size + position % self.block_size;
            state = absorb(state, self.slots[slot]);
        }
        token_of(state)
    }
}

impl Runner for FakeRunner {
    fn run(
        &mut self,
        batch: &StepBatch,
        samples: &mut Vec<Option<u32>>,
    ) -> Result<(), RunnerError> {
        samples.clear();
        if let Some(gate) = &self.gate {
            // An error means that the gate is open for good.
            let _ = gate.recv();
        }
        self.num_steps += 1;
        assert_ne!(
            self.panicking_step,
            Some(self.num_steps),
            "as the test wishes"
        );
        if self.failing_steps.contains(&self.num_steps) {
            return Err(RunnerError("as the test wishes".to_owned()));
        }
        for ((&token, &position), &slot) in batch
            .token_ids
            .iter()
            .zip(&batch.positions)
            .zip(&batch.slots)
        {
            self.slots[slot as usize] = entry(token, position, self.version);
        }
        let mut rows = batch.samples.iter().peekable();
        let mut end = 0;
        for sequence in &batch.sequences {
            end += sequence.query_len;
            if let Some(row) = rows.next_if(|row| row.row == end - 1) {
                assert_eq!(row.position, u64::from(sequence.context_len));
                samples.push(Some(self.next_token(sequence, batch.block_table(sequence))));
            }
        }
        assert!(
            rows.next().is_none(),
            "each sampled row is the last of a sequence"
        );
        Ok(())
    }

    fn install(&mut self, weights: StagedWeights) {
        self.version = *weights
            .0
            .downcast::<u64>()
            .expect("the fake's weights are a number");
    }
}

/// What one request alone must get: the oracle.
pub(crate) fn solo_answer(prompt: &[u32], max_tokens: usize, version: u64) -> Vec<u32> {
    let mut state = 0;
    for (position, &token) in prompt.iter().enumerate() {
        state = absorb(state, entry(token, position as u32, version));
    }
    let mut answer = Vec::new();
    for position in (prompt.len()..).take(max_tokens) {
        let token = token_of(state);
        answer.push(token);
        state = absorb(state, entry(token, position as u32, version));
    }
    answer
}

fn entry(token: u32, position: u32, version: u64) -> u64 {
    mix(mix(u64::from(token)) ^ mix(u64::from(position) << 32 | version))
}

fn absorb(state: u64, entry: u64) -> u64 {
    mix(state.rotate_left(7) ^ entry)
}

fn token_of(state: u64) -> u32 {
    (state % u64::from(VOCAB_SIZE)) as u32
}
