//! `Score`: log probabilities of given tokens. A sequence like any other to the engine, with nothing
//! generated after it.

use std::sync::Arc;

use model::{error::Result as ModelResult, tokenizer::ModelTokenizer};
use proto::genserver::v1 as pb;

use super::{Origin, Shared, start::num_prompt_bytes};
use crate::{
    convert::{self, Completion, ParsedScore, Scores},
    error::RequestError,
    request::{EngineRequest, PrefixCache, Sampling, Stopping, Task},
    stream::scored,
};

/// What is scored: `ids[from..]`.
struct Scored {
    ids: Vec<u32>,
    from: usize,
}

impl Shared {
    pub(super) async fn score(
        self: &Arc<Self>,
        request: pb::ScoreRequest,
        origin: Origin,
    ) -> Result<pb::ScoreResponse, RequestError> {
        let parsed = convert::parse_score(request, &self.limits)?;
        let request_id = self.request_id(parsed.request_id.clone());
        let (priority, num_candidates) = (parsed.priority, parsed.num_candidates);
        let deadline = origin.deadline(parsed.time_limit).of_the_whole();
        let id = self.admission.register(origin.scope, &request_id)?;
        let permit = self.admission.admit(id, 1)?;
        let num_bytes = num_prompt_bytes(&parsed.prompt) + num_completion_bytes(&parsed.completion);
        let encode = move |shared: &Self| encode(&shared.tokenizer, parsed);
        let Scored { ids, from } = deadline.bound(self.tokenise(num_bytes, encode)).await??;
        convert::check_scored_length(ids.len(), &self.limits)?;
        let token_ids = ids[from..].to_vec();
        let events = self.engine.submit(EngineRequest {
            prompt_ids: ids,
            task: Task::Score { from: from as u32 },
            sampling: Arc::new(Sampling::GREEDY),
            stopping: Arc::new(Stopping::default()),
            num_candidates: Some(num_candidates),
            priority,
            prefix_cache: PrefixCache::Use,
            tokens_per_event: u32::MAX,
        });
        let events = events.map_err(|error| self.refusal(error))?;
        let finished = scored(events, deadline, permit).await?;
        if finished.logprobs.len() != token_ids.len() {
            let (found, expected) = (finished.logprobs.len(), token_ids.len());
            let problem = format!("expected {expected} log probabilities, found {found}");
            return Err(RequestError::Internal(problem));
        }
        let scores = Scores::of(finished.logprobs);
        Ok(pb::ScoreResponse {
            request_id,
            token_ids,
            logprobs: scores.logprobs,
            ranks: scores.ranks,
            candidates: scores.candidates,
            num_context_tokens: from as u32,
            num_cached_tokens: finished.counts.num_cached_tokens,
            weights: Some(convert::weights_version(&finished.weights)),
        })
    }
}

fn num_completion_bytes(completion: &Completion) -> usize {
    match completion {
        Completion::Text(text) | Completion::TextAndEnd(text) => text.len(),
        Completion::None | Completion::TokenIds(_) => 0,
    }
}

/// A completion in text has the ids that it has as a training example.
fn encode(tokenizer: &ModelTokenizer, parsed: ParsedScore) -> ModelResult<Scored> {
    match parsed.completion {
        Completion::None => {
            let ids = tokenizer.encode_prompt(&parsed.prompt)?;
            // Nothing comes before the first token that it could be predicted from. A single one is
            // refused by its length.
            let from = 1.min(ids.len());
            Ok(Scored { ids, from })
        }
        Completion::TokenIds(completion) => {
            let prompt = tokenizer.encode_prompt(&parsed.prompt)?;
            let from = prompt.len();
            let ids = [prompt, completion].concat();
            Ok(Scored { ids, from })
        }
        Completion::Text(text) => {
            let example = tokenizer.encode_continued(&parsed.prompt, &text)?;
            Ok(Scored {
                ids: example.ids,
                from: example.label_start,
            })
        }
        Completion::TextAndEnd(text) => {
            let example = tokenizer.encode_training(&parsed.prompt, &text)?;
            Ok(Scored {
                ids: example.ids,
                from: example.label_start,
            })
        }
    }
}
