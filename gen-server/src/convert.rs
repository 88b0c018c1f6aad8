//! Protobuf to our types and back: requests are parsed whole, with every violation reported at once,
//! and errors become status codes in one table.

mod reply;
mod status;

#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use model::{template::ChatMessage, tokenizer::Prompt};
use proto::genserver::v1 as pb;

use crate::{
    error::{RequestError, Violation},
    request::Sampling,
};
pub(crate) use reply::{batch_error, batch_response, chunk, response, weights_version};
pub(crate) use status::{reload_status, request_status};

/// Larger messages are refused before they are decoded.
pub(crate) const MAX_MESSAGE_BYTES: usize = 4 << 20;
/// More stop strings, or longer ones, cost time at every token.
pub(crate) const MAX_STOP_STRINGS: usize = 16;
pub(crate) const MAX_STOP_STRING_BYTES: usize = 256;
const MAX_STOP_TOKEN_IDS: usize = 64;
const MAX_REQUEST_ID_BYTES: usize = 256;
const MAX_CHAT_MESSAGES: usize = 1024;
/// Above it all tokens are about equally likely.
const MAX_TEMPERATURE: f32 = 100.0;

/// What a request is checked against.
#[derive(Debug, Clone)]
pub(crate) struct RequestLimits {
    pub vocab_size: u32,
    pub max_context_tokens: u32,
    pub default_max_tokens: u32,
    pub has_chat_template: bool,
    pub eos_token_ids: Vec<u32>,
}

/// A request as it may be served; only parsing makes one.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ParsedRequest {
    /// Empty: the server chooses.
    pub request_id: String,
    pub prompt: Prompt,
    /// `seed` is `None` where the server draws it.
    pub seed: Option<u64>,
    pub temperature: f32,
    pub top_p: f32,
    pub top_k: u32,
    pub max_tokens: u32,
    pub stop: Vec<String>,
    pub stop_token_ids: Arc<[u32]>,
    pub time_limit: Option<Duration>,
}

impl ParsedRequest {
    pub(crate) fn sampling(&self, seed: u64) -> Sampling {
        Sampling {
            temperature: self.temperature,
            top_p: self.top_p,
            top_k: self.top_k,
            seed,
        }
    }
}

/// Checks everything that can be checked before the prompt is tokenised.
pub(crate) fn parse(
    request: pb::GenerateRequest,
    limits: &RequestLimits,
) -> Result<ParsedRequest, RequestError> {
    let mut parser = Parser {
        limits,
        violations: Vec::new(),
    };
    let num_id_bytes = request.request_id.len();
    if num_id_bytes > MAX_REQUEST_ID_BYTES {
        let problem =
            format!("expected at most {MAX_REQUEST_ID_BYTES} bytes, found {num_id_bytes}");
        parser.refuse("request_id", problem);
    }
    let prompt = parser.prompt(request.prompt);
    let sampling = request.sampling.unwrap_or_default();
    parser.sampling(&sampling);
    let stopping = request.stopping.unwrap_or_default();
    parser.stopping(&stopping);
    if request.time_limit_ms == Some(0) {
        parser.refuse(
            "time_limit_ms",
            "expected at least 1, found 0; leave it out for no limit",
        );
    }
    let (Some(prompt), true) = (prompt, parser.violations.is_empty()) else {
        return Err(RequestError::Invalid(parser.violations));
    };
    Ok(ParsedRequest {
        request_id: request.request_id,
        prompt,
        seed: sampling.seed,
        temperature: sampling.temperature.unwrap_or(0.0),
        top_p: sampling.top_p.unwrap_or(1.0),
        top_k: sampling.top_k.unwrap_or(0),
        max_tokens: stopping.max_tokens.unwrap_or(limits.default_max_tokens),
        stop_token_ids: stop_token_ids(&stopping, limits),
        stop: stopping.stop,
        time_limit: request
            .time_limit_ms
            .map(|ms| Duration::from_millis(u64::from(ms))),
    })
}

fn stop_token_ids(stopping: &pb::StoppingCriteria, limits: &RequestLimits) -> Arc<[u32]> {
    let eos: &[u32] = if stopping.ignore_eos.unwrap_or(false) {
        &[]
    } else {
        &limits.eos_token_ids
    };
    eos.iter()
        .chain(&stopping.stop_token_ids)
        .copied()
        .collect()
}

struct Parser<'a> {
    limits: &'a RequestLimits,
    violations: Vec<Violation>,
}

impl Parser<'_> {
    fn refuse(&mut self, field: impl Into<String>, problem: impl Into<String>) {
        self.violations.push(Violation::new(field, problem));
    }

    fn prompt(&mut self, prompt: Option<pb::generate_request::Prompt>) -> Option<Prompt> {
        use pb::generate_request::Prompt as Asked;
        match prompt {
            None => {
                self.refuse(
                    "prompt",
                    "expected one of text, chat and token_ids, found none",
                );
                None
            }
            Some(Asked::Text(text)) => {
                if text.is_empty() {
                    self.refuse("text", "expected a prompt, found an empty text");
                }
                Some(Prompt::Text(text))
            }
            Some(Asked::Chat(chat)) => Some(Prompt::Chat(self.chat(chat))),
            Some(Asked::TokenIds(token_ids)) => {
                if token_ids.ids.is_empty() {
                    self.refuse("token_ids.ids", "expected a prompt, found no ids");
                }
                self.vocabulary("token_ids.ids", &token_ids.ids);
                Some(Prompt::TokenIds(token_ids.ids))
            }
        }
    }

    fn chat(&mut self, chat: pb::Chat) -> Vec<ChatMessage> {
        if !self.limits.has_chat_template {
            let problem = "this model has no chat template; send the prompt as text, or start the \
                           server with --chat-template";
            self.refuse("chat", problem);
        }
        let num_messages = chat.messages.len();
        if !(1..=MAX_CHAT_MESSAGES).contains(&num_messages) {
            let problem =
                format!("expected 1 to {MAX_CHAT_MESSAGES} messages, found {num_messages}");
            self.refuse("chat.messages", problem);
        }
        for (index, message) in chat.messages.iter().enumerate().take(MAX_CHAT_MESSAGES) {
            if !["system", "user", "assistant"].contains(&message.role.as_str()) {
                let found = shortened(&message.role);
                let problem = format!("expected system, user or assistant, found {found:?}");
                self.refuse(format!("chat.messages[{index}].role"), problem);
            }
        }
        let messages = chat.messages.into_iter();
        messages
            .map(|each| ChatMessage {
                role: each.role,
                content: each.content,
            })
            .collect()
    }

    fn sampling(&mut self, sampling: &pb::SamplingParams) {
        // Ranges and comparisons also refuse what is not a number.
        let temperature = sampling.temperature.unwrap_or(0.0);
        if !(0.0..=MAX_TEMPERATURE).contains(&temperature) {
            let problem = format!("expected 0 (greedy) to {MAX_TEMPERATURE}, found {temperature}");
            self.refuse("sampling.temperature", problem);
        }
        let top_p = sampling.top_p.unwrap_or(1.0);
        let is_in_range = top_p > 0.0 && top_p <= 1.0;
        if !is_in_range {
            let problem = format!("expected more than 0 and at most 1, found {top_p}");
            self.refuse("sampling.top_p", problem);
        }
    }

    fn stopping(&mut self, stopping: &pb::StoppingCriteria) {
        if stopping.max_tokens == Some(0) {
            let problem = "expected at least 1, found 0; leave it out for the server's default";
            self.refuse("stopping.max_tokens", problem);
        }
        let num_stops = stopping.stop.len();
        if num_stops > MAX_STOP_STRINGS {
            let problem = format!("expected at most {MAX_STOP_STRINGS} strings, found {num_stops}");
            self.refuse("stopping.stop", problem);
        }
        for (index, stop) in stopping.stop.iter().enumerate().take(MAX_STOP_STRINGS) {
            if !(1..=MAX_STOP_STRING_BYTES).contains(&stop.len()) {
                let found = stop.len();
                let problem = format!("expected 1 to {MAX_STOP_STRING_BYTES} bytes, found {found}");
                self.refuse(format!("stopping.stop[{index}]"), problem);
            }
        }
        let num_ids = stopping.stop_token_ids.len();
        if num_ids > MAX_STOP_TOKEN_IDS {
            let problem = format!("expected at most {MAX_STOP_TOKEN_IDS} ids, found {num_ids}");
            self.refuse("stopping.stop_token_ids", problem);
        }
        self.vocabulary("stopping.stop_token_ids", &stopping.stop_token_ids);
    }

    /// One violation for the first id outside the vocabulary.
    fn vocabulary(&mut self, field: &str, ids: &[u32]) {
        let vocab_size = self.limits.vocab_size;
        if let Some((index, id)) = ids.iter().enumerate().find(|(_, id)| **id >= vocab_size) {
            let problem = format!("expected an id below {vocab_size}, found {id}");
            self.refuse(format!("{field}[{index}]"), problem);
        }
    }
}

/// A prompt must leave room for at least one token of an answer.
pub(crate) fn check_prompt_length(
    num_prompt_tokens: usize,
    limits: &RequestLimits,
) -> Result<(), RequestError> {
    let max = limits.max_context_tokens as usize - 1;
    if (1..=max).contains(&num_prompt_tokens) {
        return Ok(());
    }
    Err(RequestError::Invalid(vec![Violation::new(
        "prompt",
        format!(
            "expected 1 to {max} tokens, found {num_prompt_tokens}; prompt and answer together have \
             at most {} tokens here",
            limits.max_context_tokens
        ),
    )]))
}

/// A call's own deadline, from its `grpc-timeout` header: at most 8 digits and a unit
/// (github.com/grpc/grpc, PROTOCOL-HTTP2). `None` where there is none, or none that can be read.
pub(crate) fn call_timeout(metadata: &tonic::metadata::MetadataMap) -> Option<Duration> {
    let value = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    if digits.len() > 8 {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

/// The beginning of a text that came from outside, for a message.
fn shortened(text: &str) -> &str {
    let end = (0..=text.len().min(64))
        .rev()
        .find(|&end| text.is_char_boundary(end));
    &text[..end.unwrap_or(0)]
}
