//! Protobuf to our types and back: requests are parsed whole, with every violation reported at once,
//! and errors become status codes in one table.

mod prompt;
mod reply;
mod sampling;
mod score;
mod status;

#[cfg(test)]
mod tests;

use std::time::Duration;

use model::tokenizer::Prompt;
use proto::genserver::v1 as pb;

use crate::{
    error::{RequestError, Violation},
    request::{PrefixCache, Sampling},
    swap::ReloadRequest,
};
pub(crate) use reply::{
    Scores, batch_credits, batch_error, batch_response, chunk, response, weights_version,
};
pub(crate) use score::{Completion, ParsedScore, parse_score};
pub(crate) use status::{reload_status, request_status};

/// Larger messages are refused before they are decoded.
pub(crate) const MAX_MESSAGE_BYTES: usize = 4 << 20;
/// More stop strings, or longer ones, cost time at every token.
pub(crate) const MAX_STOP_STRINGS: usize = 16;
pub(crate) const MAX_STOP_STRING_BYTES: usize = 256;
pub(crate) const MAX_STOP_TOKEN_IDS: usize = 64;
/// Each is looked up at every token.
pub(crate) const MAX_LOGIT_BIASES: usize = 1024;
/// As many as anybody samples of one prompt; each is a sequence of its own.
pub(crate) const MAX_NUM_SEQUENCES: u32 = 128;
/// A selection over the vocabulary at every token, and 8 bytes each in the answer.
pub(crate) const MAX_NUM_CANDIDATES: u32 = 20;
/// Ids in one call of `Abort`: a full queue of the default size.
pub(crate) const MAX_REQUEST_IDS: usize = 8192;
pub(crate) const MIN_PRIORITY: i32 = -100;
pub(crate) const MAX_PRIORITY: i32 = 100;
const MAX_REQUEST_ID_BYTES: usize = 256;
const MAX_IDEMPOTENCY_KEY_BYTES: usize = 256;
/// Of one refusal: they travel in the trailers, of which many clients take 8 KiB at most.
const MAX_VIOLATIONS: usize = 20;

/// What a request is checked against.
#[derive(Debug, Clone)]
pub(crate) struct RequestLimits {
    pub vocab_size: u32,
    pub max_context_tokens: u32,
    pub default_max_tokens: u32,
    pub max_num_sequences: u32,
    pub max_num_candidates: u32,
    pub has_chat_template: bool,
    pub eos_token_ids: Vec<u32>,
}

/// A request as it may be served; only parsing makes one.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ParsedRequest {
    /// Empty: the server chooses.
    pub request_id: String,
    pub prompt: Prompt,
    /// Its `seed` is the request's own, or 0 where the server draws it.
    pub sampling: Sampling,
    /// `None` where the server draws it.
    pub seed: Option<u64>,
    pub num_sequences: u32,
    pub max_tokens: u32,
    pub stops: Stops,
    pub num_candidates: Option<u32>,
    pub priority: i32,
    pub prefix_cache: PrefixCache,
    pub time_limit: Option<Duration>,
}

/// What ends an answer before its length does.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Stops {
    /// The checkpoint's own; none where they are to be ignored.
    pub eos_token_ids: Vec<u32>,
    /// The request's own.
    pub token_ids: Vec<u32>,
    pub strings: Vec<String>,
    pub string_text: StopStringText,
    /// Before so many tokens nothing ends the answer.
    pub min_tokens: u32,
}

/// What becomes of the stop string that ended an answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum StopStringText {
    #[default]
    LeftOut,
    Included,
}

/// Checks everything that can be checked before the prompt is tokenised.
pub(crate) fn parse(
    request: pb::GenerateRequest,
    limits: &RequestLimits,
) -> Result<ParsedRequest, RequestError> {
    let mut parser = Parser::new(limits);
    parser.request_id(&request.request_id);
    let prompt = parser.prompt(request.prompt);
    let asked = request.sampling.unwrap_or_default();
    let (seed, num_sequences) = (asked.seed, asked.num_sequences.unwrap_or(1));
    let sampling = parser.sampling(asked);
    parser.count(
        "sampling.num_sequences",
        num_sequences,
        limits.max_num_sequences,
    );
    let stopping = request.stopping.unwrap_or_default();
    let max_tokens = stopping.max_new_tokens.unwrap_or(limits.default_max_tokens);
    let stops = parser.stopping(stopping, max_tokens);
    parser.time_limit(request.time_limit_ms);
    let priority = parser.priority(request.priority);
    let response = request.response.unwrap_or_default();
    let num_candidates = parser.candidates("response.num_candidates", response.num_candidates);
    let kv = request.kv.unwrap_or_default();
    let prompt = parser.finish(prompt)?;
    Ok(ParsedRequest {
        request_id: request.request_id,
        prompt,
        sampling,
        seed,
        num_sequences,
        max_tokens,
        stops,
        num_candidates: match response.output_logprobs {
            Some(true) => Some(num_candidates.unwrap_or(0)),
            _ => num_candidates.filter(|count| *count > 0),
        },
        priority,
        prefix_cache: match kv.bypass_prefix_cache {
            Some(true) => PrefixCache::Bypass,
            _ => PrefixCache::Use,
        },
        time_limit: duration(request.time_limit_ms),
    })
}

/// The ids of a call of `Abort`.
pub(crate) fn parse_abort(request: pb::AbortRequest) -> Result<Vec<String>, RequestError> {
    let ids = request.request_ids;
    if (1..=MAX_REQUEST_IDS).contains(&ids.len()) {
        return Ok(ids);
    }
    let problem = format!("expected 1 to {MAX_REQUEST_IDS} ids, found {}", ids.len());
    Err(RequestError::Invalid(vec![Violation::new(
        "request_ids",
        problem,
    )]))
}

/// The name of the checkpoint is checked where it becomes a folder.
pub(crate) fn parse_reload(
    request: pb::ReloadCheckpointRequest,
) -> Result<ReloadRequest, RequestError> {
    let key_bytes = request.idempotency_key.len();
    if key_bytes > MAX_IDEMPOTENCY_KEY_BYTES {
        let problem =
            format!("expected at most {MAX_IDEMPOTENCY_KEY_BYTES} bytes, found {key_bytes}");
        let violation = Violation::new("idempotency_key", problem);
        return Err(RequestError::Invalid(vec![violation]));
    }
    let given = |text: String| (!text.is_empty()).then_some(text);
    Ok(ReloadRequest {
        checkpoint: request.checkpoint,
        expected_manifest_sha256: given(request.expected_manifest_sha256),
        idempotency_key: given(request.idempotency_key),
    })
}

fn duration(ms: Option<u32>) -> Option<Duration> {
    ms.map(|ms| Duration::from_millis(u64::from(ms)))
}

/// Collects what is wrong, so that all of it is told at once.
struct Parser<'a> {
    limits: &'a RequestLimits,
    violations: Vec<Violation>,
}

impl<'a> Parser<'a> {
    fn new(limits: &'a RequestLimits) -> Self {
        Self {
            limits,
            violations: Vec::new(),
        }
    }

    fn refuse(&mut self, field: impl Into<String>, problem: impl Into<String>) {
        self.violations.push(Violation::new(field, problem));
    }

    /// The prompt, unless anything was wrong.
    fn finish<T>(mut self, prompt: Option<T>) -> Result<T, RequestError> {
        let num_left_out = self.violations.len().saturating_sub(MAX_VIOLATIONS);
        if num_left_out > 0 {
            self.violations.truncate(MAX_VIOLATIONS);
            self.refuse("request", format!("{num_left_out} more violations"));
        }
        match prompt {
            Some(prompt) if self.violations.is_empty() => Ok(prompt),
            _ => Err(RequestError::Invalid(self.violations)),
        }
    }

    fn request_id(&mut self, request_id: &str) {
        let found = request_id.len();
        if found > MAX_REQUEST_ID_BYTES {
            let problem = format!("expected at most {MAX_REQUEST_ID_BYTES} bytes, found {found}");
            self.refuse("request_id", problem);
        }
    }

    fn time_limit(&mut self, ms: Option<u32>) {
        if ms == Some(0) {
            let problem = "expected at least 1, found 0; leave it out for no limit";
            self.refuse("time_limit_ms", problem);
        }
    }

    fn priority(&mut self, priority: Option<i32>) -> i32 {
        let priority = priority.unwrap_or(0);
        if !(MIN_PRIORITY..=MAX_PRIORITY).contains(&priority) {
            let problem = format!("expected {MIN_PRIORITY} to {MAX_PRIORITY}, found {priority}");
            self.refuse("priority", problem);
        }
        priority
    }

    /// At least 1.
    fn count(&mut self, field: &str, found: u32, max: u32) {
        if !(1..=max).contains(&found) {
            self.refuse(field, format!("expected 1 to {max}, found {found}"));
        }
    }

    fn candidates(&mut self, field: &str, count: Option<u32>) -> Option<u32> {
        let max = self.limits.max_num_candidates;
        if let Some(found) = count.filter(|count| *count > max) {
            self.refuse(field, format!("expected at most {max}, found {found}"));
        }
        count
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
    num_tokens: usize,
    limits: &RequestLimits,
) -> Result<(), RequestError> {
    check_length(
        num_tokens,
        1,
        limits.max_context_tokens as usize - 1,
        limits,
    )
}

/// Nothing is generated after what is scored, and at least one token of it has one before it.
pub(crate) fn check_scored_length(
    num_tokens: usize,
    limits: &RequestLimits,
) -> Result<(), RequestError> {
    check_length(num_tokens, 2, limits.max_context_tokens as usize, limits)
}

fn check_length(
    num_tokens: usize,
    min: usize,
    max: usize,
    limits: &RequestLimits,
) -> Result<(), RequestError> {
    if (min..=max).contains(&num_tokens) {
        return Ok(());
    }
    Err(RequestError::Length {
        num_tokens,
        min,
        max,
        max_context_tokens: limits.max_context_tokens,
    })
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
