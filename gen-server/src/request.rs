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
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sampling {
    /// 0 is greedy.
    pub temperature: f32,
    /// In (0, 1].
    pub top_p: f32,
    /// 0 is all.
    pub top_k: u32,
    /// In \[0, 1\]; 0 is all.
    pub min_p: f32,
    /// More than 0; 1 changes nothing.
    pub repetition_penalty: f32,
    /// 0 changes nothing.
    pub frequency_penalty: f32,
    /// 0 changes nothing.
    pub presence_penalty: f32,
    /// Added to the logits of these tokens; each at most once.
    pub logit_bias: Vec<(u32, f32)>,
    pub seed: u64,
}

impl Sampling {
    /// The most likely token, always.
    pub(crate) const GREEDY: Self = Self {
        temperature: 0.0,
        top_p: 1.0,
        top_k: 0,
        min_p: 0.0,
        repetition_penalty: 1.0,
        frequency_penalty: 0.0,
        presence_penalty: 0.0,
        logit_bias: Vec::new(),
        seed: 0,
    };
}

/// When an answer ends by itself.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Stopping {
    /// Each of them ends the answer and is its last token.
    pub token_ids: Vec<u32>,
    /// None of them is drawn before so many tokens.
    pub min_tokens: u32,
}

/// What is to be done with a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Task {
    /// Up to `max_tokens` (at least 1) tokens after it; the model's context may end it earlier.
    Generate { max_tokens: u32 },
    /// Log probabilities of its own tokens from the one at `from` (at least 1) on.
    Score { from: u32 },
}

/// Whether a request shares computed prefixes with others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PrefixCache {
    Use,
    Bypass,
}

/// What the engine is asked to compute. The prompt is not empty and fits: the request was checked
/// where it came in.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct EngineRequest {
    pub prompt_ids: Vec<u32>,
    pub task: Task,
    pub sampling: Arc<Sampling>,
    pub stopping: Arc<Stopping>,
    /// `Some(k)`: log probabilities of the tokens, and of the k most likely ones. A score always has
    /// them; `None` counts as 0 there.
    pub num_candidates: Option<u32>,
    /// Lower goes first.
    pub priority: i32,
    pub prefix_cache: PrefixCache,
    /// The engine sends an event after so many tokens, and at the end. 1 for streams; more where
    /// nobody looks at the tokens before the end, since each event may wake a task.
    pub tokens_per_event: u32,
}

/// How likely one token was under the model's own distribution: before temperature, penalties and
/// biases.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TokenLogprobs {
    /// Natural logarithm.
    pub logprob: f32,
    /// 1 is the most likely token; equals share the better rank.
    pub rank: u32,
    /// The most likely tokens, most likely first, as many as were asked for.
    pub candidates: Vec<(u32, f32)>,
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
    /// Everything asked for was scored; ends a [`Task::Score`] only.
    Scored,
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
        /// One for each token, where asked for.
        logprobs: Vec<TokenLogprobs>,
        weights: Arc<WeightsVersion>,
    },
    Finished(Finished),
    Failed(EngineFailure),
}

/// A regular end.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Finished {
    /// The tokens since the last event; none for a score.
    pub tokens: Vec<u32>,
    /// One for each of `tokens`, where asked for; for a score one for each scored token.
    pub logprobs: Vec<TokenLogprobs>,
    pub reason: FinishReason,
    pub counts: Counts,
    pub weights: Arc<WeightsVersion>,
}

/// What an answer cost and saved.
#[expect(clippy::struct_field_names, reason = "counts are named num_")]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Prompt tokens taken from the prefix cache.
    pub num_cached_tokens: u32,
    /// Tokens that speculation proposed.
    pub num_draft_tokens: u32,
    /// Those of them that were right.
    pub num_accepted_draft_tokens: u32,
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
