//! How a call becomes an admitted [`Generation`]: parsed, registered, given room, tokenised, and put
//! to the engine, one sequence for each answer.

use std::{mem, sync::Arc};

use model::tokenizer::Prompt;
use proto::genserver::v1 as pb;

use super::{Delivery, Origin, Shared};
use crate::{
    admission::Permit,
    convert::{self, ParsedRequest},
    engine::sampler::mix,
    error::{RequestError, Violation},
    request::{EngineRequest, Sampling, Stopping, Task},
    stream::{Answer, AnswerParts, AnswerText, Deadline, Generation, StopIds},
};

/// Prompts of at least this many bytes are tokenised off the async threads: about 1 ms of work.
const LARGE_PROMPT_BYTES: usize = 4096;
/// Answers that are read whole: tokens per event where something may end them early, so that little
/// is computed in vain.
const TOKENS_PER_EVENT: u32 = 8;

/// Whether a request that finds no room waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// It is refused.
    None,
    /// At most until its deadline.
    UntilDeadline,
}

impl Shared {
    /// A request under way.
    pub(super) async fn start(
        self: &Arc<Self>,
        request: pb::GenerateRequest,
        origin: Origin,
        patience: Patience,
    ) -> Result<Generation, RequestError> {
        let mut parsed = convert::parse(request, &self.limits)?;
        parsed.request_id = self.request_id(parsed.request_id);
        let deadline = origin.deadline(parsed.time_limit);
        let id = self.admission.register(origin.scope, &parsed.request_id)?;
        let permit = match patience {
            Patience::None => self.admission.admit(id, parsed.num_sequences)?,
            Patience::UntilDeadline => {
                let room = self.admission.wait_for_room(id, parsed.num_sequences);
                deadline.bound(room).await??
            }
        };
        self.submit(parsed, origin, deadline, permit).await
    }

    async fn submit(
        self: &Arc<Self>,
        mut parsed: ParsedRequest,
        origin: Origin,
        deadline: Deadline,
        permit: Permit,
    ) -> Result<Generation, RequestError> {
        let prompt = mem::replace(&mut parsed.prompt, Prompt::TokenIds(Vec::new()));
        let num_bytes = num_prompt_bytes(&prompt);
        let encode = move |shared: &Self| shared.tokenizer.encode_prompt(&prompt);
        let prompt_ids = deadline.bound(self.tokenise(num_bytes, encode)).await??;
        convert::check_prompt_length(prompt_ids.len(), &self.limits)?;
        let seed = parsed.seed.unwrap_or_else(|| self.draw());
        let request_id = mem::take(&mut parsed.request_id);
        let sequences = Sequences::new(self, parsed, prompt_ids, (origin.delivery, deadline));
        let answers = sequences.submit(seed)?;
        Ok(Generation::new(request_id, answers, permit))
    }

    /// Token ids by `encode`; large texts do not hold up the async threads.
    pub(super) async fn tokenise<T: Send + 'static>(
        self: &Arc<Self>,
        num_bytes: usize,
        encode: impl FnOnce(&Self) -> model::error::Result<T> + Send + 'static,
    ) -> Result<T, RequestError> {
        let encoded = if num_bytes < LARGE_PROMPT_BYTES {
            encode(self)
        } else {
            let shared = Arc::clone(self);
            tokio::task::spawn_blocking(move || encode(&shared))
                .await
                .map_err(|error| RequestError::Internal(format!("tokenising failed: {error}")))?
        };
        encoded.map_err(|error| {
            RequestError::Invalid(vec![Violation::new("prompt", error.to_string())])
        })
    }
}

/// What there is to tokenise.
pub(super) fn num_prompt_bytes(prompt: &Prompt) -> usize {
    match prompt {
        Prompt::TokenIds(_) => 0,
        Prompt::Text(text) => text.len(),
        Prompt::Chat(messages) => messages.iter().map(|each| each.content.len()).sum(),
    }
}

/// The seed of the answer at an index: the first has the request's own.
fn seed_of(seed: u64, index: u32) -> u64 {
    if index == 0 {
        seed
    } else {
        mix(seed ^ mix(u64::from(index)))
    }
}

/// The sequences of one request, alike but for their seeds.
struct Sequences<'a> {
    shared: &'a Shared,
    parsed: ParsedRequest,
    /// Shared by the engine's prefix cache.
    prompt_ids: Vec<u32>,
    stopping: Arc<Stopping>,
    stop_ids: Arc<StopIds>,
    tokens_per_event: u32,
    deadline: Deadline,
}

impl<'a> Sequences<'a> {
    fn new(
        shared: &'a Shared,
        parsed: ParsedRequest,
        prompt_ids: Vec<u32>,
        (delivery, deadline): (Delivery, Deadline),
    ) -> Self {
        let stops = &parsed.stops;
        let ends_early = !stops.strings.is_empty() || deadline != Deadline::None;
        Self {
            shared,
            prompt_ids,
            stopping: Arc::new(Stopping {
                token_ids: [&stops.eos_token_ids[..], &stops.token_ids].concat(),
                min_tokens: stops.min_tokens,
            }),
            stop_ids: Arc::new(StopIds {
                eos: stops.eos_token_ids.clone(),
                asked: stops.token_ids.clone(),
            }),
            tokens_per_event: match delivery {
                Delivery::Streamed => 1,
                Delivery::Whole if ends_early => TOKENS_PER_EVENT,
                Delivery::Whole => u32::MAX,
            },
            deadline,
            parsed,
        }
    }

    /// All or none: those that were taken are cancelled where a later one is not.
    fn submit(&self, seed: u64) -> Result<Vec<Answer>, RequestError> {
        let indices = 0..self.parsed.num_sequences;
        indices
            .map(|index| self.submit_one(seed_of(seed, index)))
            .collect()
    }

    fn submit_one(&self, seed: u64) -> Result<Answer, RequestError> {
        let (shared, parsed) = (self.shared, &self.parsed);
        let weights = shared.engine.live_weights();
        let events = shared.engine.submit(EngineRequest {
            prompt_ids: self.prompt_ids.clone(),
            task: Task::Generate {
                max_tokens: parsed.max_tokens,
            },
            sampling: Arc::new(Sampling {
                seed,
                ..parsed.sampling.clone()
            }),
            stopping: Arc::clone(&self.stopping),
            num_candidates: parsed.num_candidates,
            priority: parsed.priority,
            prefix_cache: parsed.prefix_cache,
            tokens_per_event: self.tokens_per_event,
        });
        let events = events.map_err(|error| shared.refusal(error))?;
        let stops = &parsed.stops;
        let text = AnswerText::new(
            shared.tokenizer.decode_stream(),
            stops.strings.clone(),
            Arc::clone(&self.stop_ids),
        );
        Ok(Answer::new(AnswerParts {
            num_prompt_tokens: self.prompt_ids.len() as u32,
            seed,
            events,
            text: text.stopping_with(stops.string_text, stops.min_tokens),
            deadline: self.deadline,
            weights,
        }))
    }
}
