//! The gRPC services, and what they share: how a call becomes an admitted [`Generation`].

pub(crate) mod auth;
mod batch;
mod control;
mod generation;

#[cfg(test)]
mod tests;

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use model::tokenizer::{ModelTokenizer, Prompt};
use proto::genserver::v1 as pb;
use tokio::{sync::OwnedSemaphorePermit, time::Instant};

pub(crate) use self::{control::ControlService, generation::GenerationService};
use crate::{
    admission::{Admission, IdScope, Permit},
    backend::ModelInfo,
    convert::{self, ParsedRequest, RequestLimits},
    engine::{
        handle::{EngineHandle, SubmitError},
        sampler::mix,
    },
    error::{RequestError, Violation},
    request::{EngineFailure, EngineRequest},
    stream::{Admitted, AnswerText, Deadline, Generation},
};

/// Prompts of at least this many bytes are tokenised off the async threads: about 1 ms of work.
const LARGE_PROMPT_BYTES: usize = 4096;
/// Answers that are read whole: tokens per event where something may end them early, so that little
/// is computed in vain.
const TOKENS_PER_EVENT: u32 = 8;

/// What all services share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub engine: EngineHandle,
    pub admission: Admission,
    pub tokenizer: ModelTokenizer,
    pub model: ModelInfo,
    pub limits: RequestLimits,
    /// Differs between two runs of the server.
    pub instance_id: String,
    /// Where drawn seeds and request ids come from.
    entropy: u64,
    num_drawn: AtomicU64,
}

/// How the answer is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Delivery {
    Whole,
    Streamed,
}

/// Where a request came from.
#[derive(Debug, Clone, Copy)]
struct Origin {
    scope: IdScope,
    delivery: Delivery,
    /// Of the call, not of the request.
    call_deadline: Deadline,
}

impl Origin {
    fn of<T>(request: &tonic::Request<T>, delivery: Delivery) -> Self {
        Self {
            scope: IdScope::Connection(request.remote_addr()),
            delivery,
            call_deadline: call_deadline(request.metadata()),
        }
    }
}

fn call_deadline(metadata: &tonic::metadata::MetadataMap) -> Deadline {
    let at = convert::call_timeout(metadata).and_then(|after| Instant::now().checked_add(after));
    at.map_or(Deadline::None, Deadline::Call)
}

impl Shared {
    pub(crate) fn new(
        engine: EngineHandle,
        admission: Admission,
        tokenizer: ModelTokenizer,
        model: ModelInfo,
        default_max_tokens: u32,
    ) -> Self {
        let limits = RequestLimits {
            vocab_size: model.vocab_size,
            max_context_tokens: engine.max_context_tokens() as u32,
            default_max_tokens,
            has_chat_template: tokenizer.has_chat_template(),
            eos_token_ids: model.eos_token_ids.clone(),
        };
        // The standard library seeds its hash tables from the system's random numbers.
        let entropy = RandomState::new().hash_one(std::process::id());
        Self {
            engine,
            admission,
            tokenizer,
            model,
            limits,
            instance_id: format!("{:016x}", mix(entropy)),
            entropy,
            num_drawn: AtomicU64::new(0),
        }
    }

    fn draw(&self) -> u64 {
        mix(self.entropy ^ mix(self.num_drawn.fetch_add(1, Relaxed)))
    }

    /// A request that must find room now.
    async fn start(
        self: &Arc<Self>,
        request: pb::GenerateRequest,
        origin: Origin,
    ) -> Result<Generation, RequestError> {
        let parsed = convert::parse(request, &self.limits)?;
        let deadline = deadline(&parsed, origin);
        let permit = self.admission.admit(origin.scope, &parsed.request_id)?;
        self.submit(parsed, origin, deadline, permit).await
    }

    /// A request that waits for room, at most until its deadline.
    async fn start_with_patience(
        self: &Arc<Self>,
        request: pb::GenerateRequest,
        origin: Origin,
    ) -> Result<Generation, RequestError> {
        let parsed = convert::parse(request, &self.limits)?;
        let deadline = deadline(&parsed, origin);
        let room: OwnedSemaphorePermit = match deadline {
            Deadline::None => self.admission.room().await?,
            Deadline::TimeLimit(at) | Deadline::Call(at) => {
                let room = tokio::time::timeout_at(at, self.admission.room()).await;
                room.map_err(|_| RequestError::DeadlineExceeded)??
            }
        };
        let permit = self
            .admission
            .admit_to(room, origin.scope, &parsed.request_id)?;
        self.submit(parsed, origin, deadline, permit).await
    }

    async fn submit(
        self: &Arc<Self>,
        parsed: ParsedRequest,
        origin: Origin,
        deadline: Deadline,
        permit: Permit,
    ) -> Result<Generation, RequestError> {
        let seed = parsed.seed.unwrap_or_else(|| self.draw());
        let sampling = parsed.sampling(seed);
        let prompt_ids = self.tokenise(parsed.prompt).await?;
        convert::check_prompt_length(prompt_ids.len(), &self.limits)?;
        let num_prompt_tokens = prompt_ids.len() as u32;
        let ends_early = !parsed.stop.is_empty() || deadline != Deadline::None;
        let weights = self.engine.live_weights();
        let events = self.engine.submit(EngineRequest {
            prompt_ids,
            max_tokens: parsed.max_tokens,
            sampling,
            stop_token_ids: Arc::clone(&parsed.stop_token_ids),
            tokens_per_event: match origin.delivery {
                Delivery::Streamed => 1,
                Delivery::Whole if ends_early => TOKENS_PER_EVENT,
                Delivery::Whole => u32::MAX,
            },
        });
        let events = events.map_err(|error| self.refusal(error))?;
        let request_id = if parsed.request_id.is_empty() {
            format!("{}-{:x}", self.instance_id, self.draw())
        } else {
            parsed.request_id
        };
        let decode = self.tokenizer.decode_stream();
        Ok(Generation::new(Admitted {
            request_id,
            num_prompt_tokens,
            seed,
            events,
            text: AnswerText::new(decode, parsed.stop, parsed.stop_token_ids),
            deadline,
            weights,
            permit,
        }))
    }

    fn refusal(&self, error: SubmitError) -> RequestError {
        match error {
            SubmitError::Full => RequestError::QueueFull {
                max_queued_requests: self.admission.max_queued_requests(),
            },
            SubmitError::Stopped => EngineFailure::Stopped.into(),
        }
    }

    /// The prompt's ids. Large prompts do not hold up the async threads.
    async fn tokenise(self: &Arc<Self>, prompt: Prompt) -> Result<Vec<u32>, RequestError> {
        let num_bytes = match &prompt {
            Prompt::TokenIds(_) => 0,
            Prompt::Text(text) => text.len(),
            Prompt::Chat(messages) => messages.iter().map(|each| each.content.len()).sum(),
        };
        let encoded = if num_bytes < LARGE_PROMPT_BYTES {
            self.tokenizer.encode_prompt(&prompt)
        } else {
            let shared = Arc::clone(self);
            let encode = move || shared.tokenizer.encode_prompt(&prompt);
            tokio::task::spawn_blocking(encode)
                .await
                .map_err(|error| RequestError::Internal(format!("tokenising failed: {error}")))?
        };
        encoded.map_err(|error| {
            RequestError::Invalid(vec![Violation::new("prompt", error.to_string())])
        })
    }
}

fn deadline(parsed: &ParsedRequest, origin: Origin) -> Deadline {
    let at = parsed
        .time_limit
        .and_then(|after| Instant::now().checked_add(after));
    at.map_or(Deadline::None, Deadline::TimeLimit)
        .earlier(origin.call_deadline)
}
