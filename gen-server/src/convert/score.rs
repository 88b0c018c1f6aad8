//! A request for log probabilities, checked as one for an answer is.

use std::time::Duration;

use model::tokenizer::Prompt;
use proto::genserver::v1 as pb;

use super::{Parser, RequestLimits, duration};
use crate::error::RequestError;

/// A score as it may be made; only parsing makes one.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ParsedScore {
    /// Empty: the server chooses.
    pub request_id: String,
    pub prompt: Prompt,
    pub completion: Completion,
    pub num_candidates: u32,
    pub priority: i32,
    pub time_limit: Option<Duration>,
}

/// What is scored.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Completion {
    /// The prompt itself, from its second token on.
    None,
    /// Tokenised as an answer is in training.
    Text(String),
    /// The same, with the token that ends an answer.
    TextAndEnd(String),
    TokenIds(Vec<u32>),
}

/// As [`super::parse`].
pub(crate) fn parse_score(
    request: pb::ScoreRequest,
    limits: &RequestLimits,
) -> Result<ParsedScore, RequestError> {
    let mut parser = Parser::new(limits);
    parser.request_id(&request.request_id);
    let prompt = request.prompt.map(as_for_generation);
    let prompt = parser.prompt(prompt);
    let completion = parser.completion(request.completion, request.append_eos);
    let num_candidates = parser.candidates("num_candidates", request.num_candidates);
    parser.time_limit(request.time_limit_ms);
    let priority = parser.priority(request.priority);
    Ok(ParsedScore {
        prompt: parser.finish(prompt)?,
        request_id: request.request_id,
        completion,
        num_candidates: num_candidates.unwrap_or(0),
        priority,
        time_limit: duration(request.time_limit_ms),
    })
}

/// The contract has one `oneof` for each message; they mean the same.
fn as_for_generation(prompt: pb::score_request::Prompt) -> pb::generate_request::Prompt {
    use pb::{generate_request::Prompt as Generated, score_request::Prompt as Scored};
    match prompt {
        Scored::Text(text) => Generated::Text(text),
        Scored::Chat(chat) => Generated::Chat(chat),
        Scored::TokenIds(ids) => Generated::TokenIds(ids),
    }
}

impl Parser<'_> {
    fn completion(
        &mut self,
        completion: Option<pb::score_request::Completion>,
        append_eos: Option<bool>,
    ) -> Completion {
        use pb::score_request::Completion as Asked;
        let append_eos = append_eos == Some(true);
        if append_eos && !matches!(completion, Some(Asked::CompletionText(_))) {
            let problem = "expected completion_text beside it; end token ids with the id itself";
            self.refuse("append_eos", problem);
        }
        match completion {
            None => Completion::None,
            Some(Asked::CompletionText(text)) if append_eos => Completion::TextAndEnd(text),
            Some(Asked::CompletionText(text)) => {
                if text.is_empty() {
                    let problem = "expected a text, found an empty one; leave it out to score the \
                                   prompt";
                    self.refuse("completion_text", problem);
                }
                Completion::Text(text)
            }
            Some(Asked::CompletionTokenIds(ids)) => {
                if ids.ids.is_empty() {
                    let problem = "expected ids, found none; leave it out to score the prompt";
                    self.refuse("completion_token_ids.ids", problem);
                }
                self.vocabulary("completion_token_ids.ids", &ids.ids);
                Completion::TokenIds(ids.ids)
            }
        }
    }
}
