//! The gRPC services, and what they share: the server's parts, where a call came from, and the ids and
//! seeds that the server draws.

pub(crate) mod auth;
mod batch;
mod control;
mod generation;
pub(crate) mod rates;
mod score;
mod start;

#[cfg(test)]
mod tests;

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use model::tokenizer::ModelTokenizer;
use tokio::time::Instant;

pub(crate) use self::{control::ControlService, generation::GenerationService};
use crate::{
    admission::{Admission, IdScope},
    backend::ModelInfo,
    convert::{self, RequestLimits},
    engine::{
        handle::{EngineHandle, SubmitError},
        sampler::mix,
    },
    error::RequestError,
    request::EngineFailure,
    stream::Deadline,
};

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

    /// The call's own deadline or the request's time limit, whichever is earlier.
    fn deadline(self, time_limit: Option<std::time::Duration>) -> Deadline {
        let at = time_limit.and_then(|after| Instant::now().checked_add(after));
        at.map_or(Deadline::None, Deadline::TimeLimit)
            .earlier(self.call_deadline)
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
            max_num_sequences: convert::MAX_NUM_SEQUENCES.min(admission.max_queued_requests()),
            max_num_candidates: convert::MAX_NUM_CANDIDATES.min(model.vocab_size),
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

    /// The client's own id, or one that nobody else has.
    fn request_id(&self, asked: String) -> String {
        if asked.is_empty() {
            format!("{}-{:x}", self.instance_id, self.draw())
        } else {
            asked
        }
    }

    fn refusal(&self, error: SubmitError) -> RequestError {
        match error {
            SubmitError::Full => RequestError::QueueFull {
                max_queued_requests: self.admission.max_queued_requests(),
            },
            SubmitError::Stopped => EngineFailure::Stopped.into(),
        }
    }
}
