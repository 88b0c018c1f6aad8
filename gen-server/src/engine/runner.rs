//! What executes steps: from a packed batch to one token per asked row. Owns the weights and the
//! storage of the KV cache. A runner that computes on another device may be handed the next step while
//! it is still busy with one, so that it never waits for the engine.

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

/// What became of a step that failed, and of the runner.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum RunnerError {
    /// The whole step failed; the weights, and what the KV cache holds of the sequences that have no
    /// part in it, are as they were.
    #[error("{0}")]
    Step(String),
    /// So did the device: it computes nothing more in this process.
    #[error("{0}; the device does not compute any more")]
    Device(String),
}

/// What one row of logits came to.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sampled {
    /// The token that was drawn, or the one that was to be scored.
    pub token: u32,
    /// Where asked for.
    pub logprobs: Option<TokenLogprobs>,
}

/// Executes steps, one after the other in the order in which they are submitted: each sees all that
/// the steps before it wrote, and nothing of those after it. Called from the engine's thread alone;
/// may be dropped with steps under way.
pub(crate) trait Runner: Send + std::fmt::Debug {
    /// Most steps that may be under way at once, submitted and not yet collected: 1 (compute in
    /// [`Self::submit`], hand out in [`Self::collect`]) or 2.
    fn max_steps_in_flight(&self) -> usize;

    /// Hands a step over: the batch is to be computed and its keys and values written into the KV
    /// cache. `batch.carried` says which of its tokens the step before it is still drawing. After an
    /// error it is as if the step had never been, and the one before is still the one before.
    fn submit(&mut self, batch: &StepBatch) -> Result<(), RunnerError>;

    /// Waits for the oldest step under way, and puts what each row of its batch came to into
    /// `outcomes` (cleared first), in order; `None` where the logits are not finite. After an error
    /// that step is over, and a step that carries tokens from it may compute anything for their
    /// sequences: nobody looks at them any more.
    fn collect(&mut self, outcomes: &mut Vec<Option<Sampled>>) -> Result<(), RunnerError>;

    /// Replaces the weights whole, with no step under way. What the KV cache holds is not read again.
    fn install(&mut self, weights: StagedWeights);
}
