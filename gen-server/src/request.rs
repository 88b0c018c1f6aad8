//! The words that the async side and the engine share: what is asked for, and what comes back. No
//! protobuf, no tensor, no text.

use std::{fmt, sync::Arc};

/// One generation inside the engine; never reused while the server runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SequenceId(pub(crate) u64);

impl fmt::Display for SequenceId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "sequence {}", self.0)
    }
}

/// How the next token is drawn; every field resolved and in range.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Sampling {
    /// 0 is greedy.
    pub temperature: f32,
    /// In (0, 1].
    pub top_p: f32,
    /// 0 is all.
    pub top_k: u32,
    pub seed: u64,
}

impl Sampling {
    /// The most likely token, always.
    #[cfg(test)]
    pub(crate) const GREEDY: Self = Self {
        temperature: 0.0,
        top_p: 1.0,
        top_k: 0,
        seed: 0,
    };
}

/// What the engine is asked to compute. `max_tokens` is at least 1 and the prompt is not empty: the
/// request was checked where it came in.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct EngineRequest {
    pub prompt_ids: Vec<u32>,
    /// Most tokens to generate; the model's context may end it earlier.
    pub max_tokens: u32,
    pub sampling: Sampling,
    /// Each of them ends the answer and is its last token.
    pub stop_token_ids: Arc<[u32]>,
    /// The engine sends an event after so many tokens, and at the end. 1 for streams; more where
    /// nobody looks at the tokens before the end, since each event may wake a task.
    pub tokens_per_event: u32,
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FinishReason {
    /// A stop token id or a stop string.
    Stop,
    /// `max_tokens` or the context was reached.
    Length,
    /// The request's time was over.
    TimeLimit,
}

/// Which weights made an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WeightsVersion {
    /// 1 is what the server started with; each swap adds 1.
    pub number: u64,
    /// sha256 over the loaded tensors, hexadecimal.
    pub digest: String,
    /// The checkpoint folder's name.
    pub checkpoint: String,
}

/// What the engine says about a request. The last event is `Finished` or `Failed`, exactly once.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Event {
    /// New tokens, and the weights that make this answer.
    Tokens {
        tokens: Vec<u32>,
        weights: Arc<WeightsVersion>,
    },
    Finished(Finished),
    Failed(EngineFailure),
}

/// A regular end.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Finished {
    /// The tokens since the last event.
    pub tokens: Vec<u32>,
    pub reason: FinishReason,
    pub num_cached_tokens: u32,
    pub weights: Arc<WeightsVersion>,
}

/// Why the engine gave a request up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EngineFailure {
    #[error("the model's output was not finite; reload a sound checkpoint")]
    NotFinite,
    #[error("a step of the engine failed: {0}")]
    Step(String),
    #[error("the engine has stopped; restart the server")]
    Stopped,
}
