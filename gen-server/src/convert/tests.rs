//! What is accepted, what is refused, and in which words.

use expect_test::{Expect, expect};
use proto::genserver::v1::generate_request::Prompt as Asked;

use super::*;

fn limits() -> RequestLimits {
    RequestLimits {
        vocab_size: 100,
        max_context_tokens: 64,
        default_max_tokens: 16,
        has_chat_template: false,
        eos_token_ids: vec![1, 2],
    }
}

fn text(text: &str) -> pb::GenerateRequest {
    pb::GenerateRequest {
        prompt: Some(Asked::Text(text.to_owned())),
        ..Default::default()
    }
}

fn check_refused(request: pb::GenerateRequest, expected: &Expect) {
    let error = parse(request, &limits()).unwrap_err();
    let RequestError::Invalid(violations) = error else {
        panic!("{error:?}")
    };
    let lines: Vec<String> = violations
        .iter()
        .map(|each| format!("{}: {}\n", each.field, each.problem))
        .collect();
    expected.assert_eq(&lines.concat());
}

/// A prompt alone is enough: greedy, the server's length, the checkpoint's stop tokens.
#[test]
fn defaults_are_filled_in() {
    let parsed = parse(text("Q: 1+1?"), &limits()).unwrap();
    assert_eq!(
        (parsed.temperature, parsed.top_p, parsed.top_k),
        (0.0, 1.0, 0)
    );
    assert_eq!((parsed.max_tokens, parsed.seed), (16, None));
    assert_eq!(*parsed.stop_token_ids, [1, 2]);
}

/// ignore_eos leaves only the caller's own stop tokens.
#[test]
fn ignore_eos_keeps_own_stop_tokens() {
    let stopping = pb::StoppingCriteria {
        stop_token_ids: vec![7],
        ignore_eos: Some(true),
        ..Default::default()
    };
    let request = pb::GenerateRequest {
        stopping: Some(stopping),
        ..text("a")
    };
    assert_eq!(*parse(request, &limits()).unwrap().stop_token_ids, [7]);
}

/// All violations are reported at once, each with its field, what was expected and what was found.
#[test]
fn every_violation_is_reported() {
    let request = pb::GenerateRequest {
        request_id: "x".repeat(300),
        prompt: Some(Asked::TokenIds(pb::TokenIds { ids: vec![5, 100] })),
        sampling: Some(pb::SamplingParams {
            temperature: Some(f32::NAN),
            top_p: Some(0.0),
            top_k: Some(3),
            seed: None,
        }),
        stopping: Some(pb::StoppingCriteria {
            max_tokens: Some(0),
            stop: vec!["ok".to_owned(), String::new()],
            stop_token_ids: vec![100],
            ignore_eos: None,
        }),
        time_limit_ms: Some(0),
    };
    check_refused(
        request,
        &expect![[r"
        request_id: expected at most 256 bytes, found 300
        token_ids.ids[1]: expected an id below 100, found 100
        sampling.temperature: expected 0 (greedy) to 100, found NaN
        sampling.top_p: expected more than 0 and at most 1, found 0
        stopping.max_tokens: expected at least 1, found 0; leave it out for the server's default
        stopping.stop[1]: expected 1 to 256 bytes, found 0
        stopping.stop_token_ids[0]: expected an id below 100, found 100
        time_limit_ms: expected at least 1, found 0; leave it out for no limit
    "]],
    );
}

/// A request without a prompt, an empty one, and a conversation without a template.
#[test]
fn prompts_are_checked() {
    check_refused(
        pb::GenerateRequest::default(),
        &expect![[r"
        prompt: expected one of text, chat and token_ids, found none
    "]],
    );
    check_refused(
        text(""),
        &expect![[r"
        text: expected a prompt, found an empty text
    "]],
    );
    let message = pb::ChatMessage {
        role: "wizard".to_owned(),
        content: "hi".to_owned(),
    };
    let chat = pb::Chat {
        messages: vec![message],
    };
    let request = pb::GenerateRequest {
        prompt: Some(Asked::Chat(chat)),
        ..pb::GenerateRequest::default()
    };
    check_refused(
        request,
        &expect![[r#"
        chat: this model has no chat template; send the prompt as text, or start the server with --chat-template
        chat.messages[0].role: expected system, user or assistant, found "wizard"
    "#]],
    );
}

/// A prompt that leaves no room for an answer is refused, not cut.
#[test]
fn long_prompts_are_refused() {
    check_prompt_length(63, &limits()).unwrap();
    let error = check_prompt_length(64, &limits()).unwrap_err();
    expect!["prompt: expected 1 to 63 tokens, found 64; prompt and answer together have at most 64 tokens here"].assert_eq(&error.to_string());
    check_prompt_length(0, &limits()).unwrap_err();
}

/// The call's deadline as gRPC writes it; nonsense is no deadline.
#[test]
fn call_timeouts_are_read() {
    let timeout = |value: &str| {
        let mut metadata = tonic::metadata::MetadataMap::new();
        metadata.insert("grpc-timeout", value.parse().unwrap());
        call_timeout(&metadata)
    };
    assert_eq!(timeout("500m"), Some(Duration::from_millis(500)));
    assert_eq!(timeout("2S"), Some(Duration::from_secs(2)));
    assert_eq!(timeout("99999999H"), Some(Duration::from_hours(99_999_999)));
    for nonsense in ["", "m", "5", "5x", "-5m", "123456789m"] {
        assert_eq!(timeout(nonsense), None, "{nonsense:?}");
    }
    assert_eq!(call_timeout(&tonic::metadata::MetadataMap::new()), None);
}

/// Each error has its code, and retryable ones say when.
#[test]
fn errors_have_codes_and_details() {
    use tonic::Code;
    use tonic_types::StatusExt as _;
    let full = request_status(&RequestError::QueueFull {
        max_queued_requests: 3,
    });
    assert_eq!(full.code(), Code::ResourceExhausted);
    assert!(full.get_details_retry_info().unwrap().retry_delay.is_some());
    let draining = request_status(&RequestError::Draining);
    assert_eq!(draining.code(), Code::Unavailable);
    assert!(
        draining
            .get_details_retry_info()
            .unwrap()
            .retry_delay
            .is_some()
    );
    let invalid = request_status(&RequestError::Invalid(vec![Violation::new(
        "text", "empty",
    )]));
    assert_eq!(invalid.code(), Code::InvalidArgument);
    assert_eq!(
        invalid.get_details_bad_request().unwrap().field_violations[0].field,
        "text"
    );
    let missing = crate::swap::ReloadError::Missing {
        checkpoint: "a".to_owned(),
    };
    assert_eq!(reload_status(&missing).code(), Code::NotFound);
}
