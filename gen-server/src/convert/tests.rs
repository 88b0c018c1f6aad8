//! What is accepted, what is refused, and in which words.

use expect_test::{Expect, expect};
use proto::genserver::v1::generate_request::Prompt as Asked;

use super::*;

fn limits() -> RequestLimits {
    RequestLimits {
        vocab_size: 100,
        max_context_tokens: 64,
        default_max_tokens: 16,
        max_num_sequences: 8,
        max_num_candidates: 5,
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
    check_violations(parse(request, &limits()).unwrap_err(), expected);
}

fn check_violations(error: RequestError, expected: &Expect) {
    let RequestError::Invalid(violations) = error else {
        panic!("{error:?}")
    };
    let lines: Vec<String> = violations
        .iter()
        .map(|each| format!("{}: {}\n", each.field, each.problem))
        .collect();
    expected.assert_eq(&lines.concat());
}

/// A prompt alone is enough: greedy, one answer, the server's length, the checkpoint's stop tokens.
#[test]
fn defaults_are_filled_in() {
    let parsed = parse(text("Q: 1+1?"), &limits()).unwrap();
    assert_eq!(parsed.sampling, Sampling::GREEDY);
    assert_eq!((parsed.max_tokens, parsed.seed), (16, None));
    assert_eq!((parsed.num_sequences, parsed.priority), (1, 0));
    assert_eq!(parsed.num_candidates, None);
    assert_eq!(parsed.prefix_cache, PrefixCache::Use);
    let stops = Stops {
        eos_token_ids: vec![1, 2],
        ..Stops::default()
    };
    assert_eq!(parsed.stops, stops);
}

/// Every field arrives where it belongs.
#[test]
fn every_field_is_taken_over() {
    let request = pb::GenerateRequest {
        sampling: Some(pb::SamplingParams {
            temperature: Some(0.5),
            top_p: Some(0.9),
            top_k: Some(40),
            seed: Some(7),
            min_p: Some(0.1),
            repetition_penalty: Some(1.5),
            frequency_penalty: Some(-2.0),
            presence_penalty: Some(2.0),
            logit_bias: [(9, -100.0), (3, 1.5)].into(),
            num_sequences: Some(4),
        }),
        stopping: Some(pb::StoppingCriteria {
            max_new_tokens: Some(9),
            stop_strings: vec!["Q:".to_owned()],
            stop_token_ids: vec![7],
            ignore_eos: Some(true),
            min_new_tokens: Some(9),
            include_stop_strings: Some(true),
        }),
        priority: Some(-100),
        response: Some(pb::ResponseOptions {
            output_logprobs: None,
            num_candidates: Some(5),
        }),
        kv: Some(pb::KvCacheParameters {
            bypass_prefix_cache: Some(true),
        }),
        time_limit_ms: Some(20),
        ..text("a")
    };
    let parsed = parse(request, &limits()).unwrap();
    let sampling = Sampling {
        temperature: 0.5,
        top_p: 0.9,
        top_k: 40,
        min_p: 0.1,
        repetition_penalty: 1.5,
        frequency_penalty: -2.0,
        presence_penalty: 2.0,
        logit_bias: vec![(3, 1.5), (9, -100.0)],
        seed: 7,
    };
    assert_eq!(parsed.sampling, sampling);
    let stops = Stops {
        eos_token_ids: vec![],
        token_ids: vec![7],
        strings: vec!["Q:".to_owned()],
        string_text: StopStringText::Included,
        min_tokens: 9,
    };
    assert_eq!(parsed.stops, stops);
    assert_eq!((parsed.max_tokens, parsed.num_sequences), (9, 4));
    assert_eq!((parsed.priority, parsed.num_candidates), (-100, Some(5)));
    assert_eq!(parsed.prefix_cache, PrefixCache::Bypass);
    assert_eq!(parsed.time_limit, Some(Duration::from_millis(20)));
}

/// Candidates imply log probabilities; none of them, and no wish for log probabilities, is neither.
#[test]
fn log_probabilities_are_asked_for_in_two_ways() {
    let candidates = |output_logprobs, num_candidates| {
        let response = Some(pb::ResponseOptions {
            output_logprobs,
            num_candidates,
        });
        let request = pb::GenerateRequest {
            response,
            ..text("a")
        };
        parse(request, &limits()).unwrap().num_candidates
    };
    assert_eq!(candidates(None, None), None);
    assert_eq!(candidates(Some(false), Some(0)), None);
    assert_eq!(candidates(Some(true), None), Some(0));
    assert_eq!(candidates(Some(true), Some(2)), Some(2));
    assert_eq!(candidates(None, Some(2)), Some(2));
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
            min_p: Some(1.5),
            repetition_penalty: Some(0.0),
            frequency_penalty: Some(f32::INFINITY),
            presence_penalty: Some(-2.5),
            logit_bias: [(100, 0.0), (7, f32::NAN), (8, 1000.0), (9, 1.0)].into(),
            num_sequences: Some(0),
        }),
        stopping: Some(pb::StoppingCriteria {
            max_new_tokens: Some(0),
            stop_strings: vec!["ok".to_owned(), String::new()],
            stop_token_ids: vec![100],
            min_new_tokens: Some(3),
            ..Default::default()
        }),
        time_limit_ms: Some(0),
        priority: Some(101),
        response: Some(pb::ResponseOptions {
            output_logprobs: None,
            num_candidates: Some(6),
        }),
        kv: None,
    };
    check_refused(
        request,
        &expect![[r"
        request_id: expected at most 256 bytes, found 300
        token_ids.ids[1]: expected an id below 100, found 100
        sampling.temperature: expected 0 to 100, found NaN
        sampling.top_p: expected more than 0 and at most 1, found 0
        sampling.min_p: expected 0 to 1, found 1.5
        sampling.repetition_penalty: expected 0.01 to 100, found 0
        sampling.frequency_penalty: expected -2 to 2, found inf
        sampling.presence_penalty: expected -2 to 2, found -2.5
        sampling.logit_bias[7]: expected -100 to 100, found NaN
        sampling.logit_bias[8]: expected -100 to 100, found 1000
        sampling.logit_bias[100]: expected an id below 100, found 100
        sampling.num_sequences: expected 1 to 8, found 0
        stopping.max_new_tokens: expected at least 1, found 0; leave it out for the server's default
        stopping.stop_strings[1]: expected 1 to 256 bytes, found 0
        stopping.stop_token_ids[0]: expected an id below 100, found 100
        stopping.min_new_tokens: expected at most max_new_tokens, which is 0, found 3
        time_limit_ms: expected at least 1, found 0; leave it out for no limit
        priority: expected -100 to 100, found 101
        response.num_candidates: expected at most 5, found 6
    "]],
    );
}

/// Nothing repeated is without a bound: beyond it there is one violation, not one for each element.
#[test]
fn repeated_fields_are_bounded() {
    let request = pb::GenerateRequest {
        sampling: Some(pb::SamplingParams {
            logit_bias: (0..1025).map(|id| (id, f32::NAN)).collect(),
            num_sequences: Some(u32::MAX),
            ..Default::default()
        }),
        stopping: Some(pb::StoppingCriteria {
            stop_strings: vec!["a".to_owned(); 17],
            stop_token_ids: vec![1; 65],
            ..Default::default()
        }),
        ..text("a")
    };
    check_refused(
        request,
        &expect![[r"
        sampling.logit_bias: expected at most 1024 ids, found 1025
        sampling.num_sequences: expected 1 to 8, found 4294967295
        stopping.stop_strings: expected at most 16 strings, found 17
        stopping.stop_token_ids: expected at most 64 ids, found 65
    "]],
    );
    let ids = |num_ids| pb::AbortRequest {
        request_ids: vec![String::new(); num_ids],
    };
    check_violations(
        parse_abort(ids(8193)).unwrap_err(),
        &expect![[r"
        request_ids: expected 1 to 8192 ids, found 8193
    "]],
    );
    parse_abort(ids(0)).unwrap_err();
    assert_eq!(parse_abort(ids(8192)).unwrap().len(), 8192);
}

/// A refusal fits into the trailers of a call, however much is wrong.
#[test]
fn refusals_are_bounded() {
    let message = pb::ChatMessage {
        role: "r".repeat(1000),
        content: String::new(),
    };
    let chat = pb::Chat {
        messages: vec![message; 1000],
    };
    let request = pb::GenerateRequest {
        prompt: Some(Asked::Chat(chat)),
        sampling: Some(pb::SamplingParams {
            logit_bias: (0..1024).map(|id| (id, f32::NAN)).collect(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let error = parse(request, &limits()).unwrap_err();
    let RequestError::Invalid(violations) = &error else {
        panic!("{error:?}")
    };
    let last = violations.last().unwrap();
    assert_eq!(last.problem, "2005 more violations");
    let status = request_status(&error);
    // Bytes travel as base64, four for three.
    let num_bytes = status.message().len() + status.details().len() * 4 / 3;
    assert!(num_bytes < 8192, "{num_bytes}");
}

/// A key is remembered, so it is bounded.
#[test]
fn idempotency_keys_are_bounded() {
    let reload = |num_bytes| pb::ReloadCheckpointRequest {
        checkpoint: "a".to_owned(),
        expected_manifest_sha256: String::new(),
        idempotency_key: "k".repeat(num_bytes),
    };
    let parsed = parse_reload(reload(0)).unwrap();
    assert_eq!(
        (parsed.idempotency_key, parsed.expected_manifest_sha256),
        (None, None)
    );
    parse_reload(reload(256)).unwrap();
    check_violations(
        parse_reload(reload(257)).unwrap_err(),
        &expect![[r"
        idempotency_key: expected at most 256 bytes, found 257
    "]],
    );
}

/// The least length is checked against the greatest as it is after the defaults.
#[test]
fn lengths_are_checked_after_defaults() {
    let lengths = |min, max| {
        let stopping = Some(pb::StoppingCriteria {
            min_new_tokens: min,
            max_new_tokens: max,
            ..Default::default()
        });
        pb::GenerateRequest {
            stopping,
            ..text("a")
        }
    };
    parse(lengths(Some(16), None), &limits()).unwrap();
    check_refused(
        lengths(Some(17), None),
        &expect![[r"
        stopping.min_new_tokens: expected at most max_new_tokens, which is 16, found 17
    "]],
    );
    check_refused(
        lengths(Some(5), Some(4)),
        &expect![[r"
        stopping.min_new_tokens: expected at most max_new_tokens, which is 4, found 5
    "]],
    );
    // A vocabulary of stop tokens has nothing to say before them.
    let mut request = lengths(Some(1), None);
    request.stopping.as_mut().unwrap().stop_token_ids = vec![0, 3, 0];
    let small = RequestLimits {
        vocab_size: 4,
        ..limits()
    };
    check_violations(
        parse(request, &small).unwrap_err(),
        &expect![[r"
        stopping.min_new_tokens: every token is a stop token, so that none is left to draw before them
    "]],
    );
}

/// A score has a completion in text or ids, or none; the end of an answer needs text.
#[test]
fn scores_are_checked() {
    use pb::score_request::{Completion as Asked, Prompt};
    let score = |completion, append_eos| pb::ScoreRequest {
        prompt: Some(Prompt::Text("a".to_owned())),
        completion,
        append_eos,
        ..Default::default()
    };
    let text = |text: &str| Some(Asked::CompletionText(text.to_owned()));
    let ids = |ids: &[u32]| {
        Some(Asked::CompletionTokenIds(pb::TokenIds {
            ids: ids.to_vec(),
        }))
    };
    let completion = |asked, append_eos| {
        let parsed = parse_score(score(asked, append_eos), &limits());
        parsed.map(|parsed| parsed.completion)
    };
    assert_eq!(completion(None, None).unwrap(), Completion::None);
    let b = || "b".to_owned();
    assert_eq!(completion(text("b"), None).unwrap(), Completion::Text(b()));
    let whole = completion(text("b"), Some(true)).unwrap();
    assert_eq!(whole, Completion::TextAndEnd(b()));
    let end = completion(text(""), Some(true)).unwrap();
    assert_eq!(end, Completion::TextAndEnd(String::new()));
    let of_ids = completion(ids(&[4]), Some(false)).unwrap();
    assert_eq!(of_ids, Completion::TokenIds(vec![4]));

    let refused = |request| parse_score(request, &limits()).unwrap_err();
    check_violations(
        refused(score(text(""), None)),
        &expect![[r"
        completion_text: expected a text, found an empty one; leave it out to score the prompt
    "]],
    );
    check_violations(
        refused(score(ids(&[]), Some(true))),
        &expect![[r"
        append_eos: expected completion_text beside it; end token ids with the id itself
        completion_token_ids.ids: expected ids, found none; leave it out to score the prompt
    "]],
    );
    let request = pb::ScoreRequest {
        num_candidates: Some(6),
        time_limit_ms: Some(0),
        priority: Some(-101),
        prompt: None,
        ..score(ids(&[3, 100]), None)
    };
    check_violations(
        refused(request),
        &expect![[r"
        prompt: expected one of text, chat and token_ids, found none
        completion_token_ids.ids[1]: expected an id below 100, found 100
        num_candidates: expected at most 5, found 6
        time_limit_ms: expected at least 1, found 0; leave it out for no limit
        priority: expected -100 to 100, found -101
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
    // Nothing is generated after a score.
    check_scored_length(64, &limits()).unwrap();
    check_scored_length(65, &limits()).unwrap_err();
    check_scored_length(1, &limits()).unwrap_err();
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
    assert_eq!(full.get_details_error_info().unwrap().reason, "QUEUE_FULL");
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
    let long = request_status(&check_prompt_length(64, &limits()).unwrap_err());
    let info = long.get_details_error_info().unwrap();
    assert_eq!(
        (info.reason.as_str(), info.domain.as_str()),
        ("PROMPT_LENGTH", "genserver.v1")
    );
    assert_eq!(
        (&*info.metadata["num_tokens"], &*info.metadata["max_tokens"]),
        ("64", "63")
    );
    let aborted = request_status(&RequestError::Aborted);
    assert_eq!(aborted.code(), Code::Cancelled);
    let missing = crate::swap::ReloadError::Missing {
        checkpoint: "a".to_owned(),
    };
    assert_eq!(reload_status(&missing).code(), Code::NotFound);
}
