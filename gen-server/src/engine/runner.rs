//! What executes a step: from a packed batch to one token per asked row. Owns the weights and the
//! storage of the KV cache.

use std::any::Any;

use super::batch::StepBatch;
use crate::request::TokenLogprobs;

/// Weights that were loaded and proven beside the live ones, in the form of the runner they are for.
/// A loader and its runner come as a pair (see [`crate::backend::Backend`]).
pub(crate) struct StagedWeights(pub(crate) Box<dyn Any + Send>);

impl std::fmt::Debug for StagedWeights {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("StagedWeights(..)")
    }
}

/// The whole step failed; the weights and the KV cache of other sequences are as they were.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub(crate) struct RunnerError(pub(crate) String);

/// What one row of logits came to.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sampled {
    /// The token that was drawn, or the one that was to be scored.
    pub token: u32,
    /// Where asked for.
    pub logprobs: Option<TokenLogprobs>,
}

/// Executes steps, on the engine's thread.
pub(crate) trait Runner: Send + std::fmt::Debug {
    /// Computes the batch, writes its keys and values into the KV cache, and puts what each row of
    /// `batch.rows` came to into `outcomes` (cleared first); `None` where the logits are not finite.
    fn run(
        &mut self,
        batch: &StepBatch,
        outcomes: &mut Vec<Option<Sampled>>,
    ) -> Result<(), RunnerError>;

    /// Replaces the weights whole. What the KV cache holds is not read again.
    fn install(&mut self, weights: StagedWeights);
}
