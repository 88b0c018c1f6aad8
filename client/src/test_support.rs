//! Small questions, methods and contexts for tests. Test code only.

use std::time::Duration;

use data::{
    answer::{Rule, extract},
    number::Number,
    prompt::PromptTemplate,
    question::Question,
    record::{Attempt, Decoding, FinishReason, PromptStamp, Source, Verdict, WeightsStamp},
};

use crate::{
    dataset::Keys,
    fake_server::FakeServer,
    generate::{Backoff, BulkLimits},
    interrupt::Interrupt,
    preflight::OnTrouble,
    progress::ProgressMode,
    sampling::Sampling,
    session::{Context, FormatChoice, Method, Questions},
};

/// Questions `What is 0`, `What is 1`, …, each with its number as the gold answer.
pub(crate) fn questions(count: u32) -> Questions {
    let list = (0..count).map(|index| Question {
        id: format!("q{index}"),
        question: format!("What is {index}"),
        answer: format!("It is {index}.\n#### {index}"),
        gold: Number::parse(&index.to_string()).unwrap(),
    });
    Questions {
        path: "test.jsonl".to_owned(),
        sha256: "abc".to_owned(),
        keys: Keys::default(),
        list: list.collect(),
    }
}

/// Greedy, the question alone as the prompt.
pub(crate) fn method(seed: u64) -> Method {
    Method {
        prompt: PromptTemplate::from_text("plain", "{question}").unwrap(),
        hint_prompt: Some(PromptTemplate::from_text("hint", "{question} hint {gold}").unwrap()),
        format: FormatChoice::Auto,
        decoding: Decoding::greedy(64),
        resampling: None,
        seed,
        rule: Rule::Numeric,
        sampling: Sampling {
            max_hints: 1,
            ..Sampling::only(1)
        },
        iteration: 0,
    }
}

/// Quick retries, nothing shown.
pub(crate) async fn context(server: &FakeServer) -> Context {
    Context {
        server: server.connect().await,
        progress: ProgressMode::Hidden,
        interrupt: Interrupt::default(),
        preflight: OnTrouble::Stop,
        limits: BulkLimits {
            max_in_flight: 8,
            patience: Duration::from_secs(20),
            stall: Duration::from_secs(20),
            max_tries: 3,
            backoff: Backoff {
                start: Duration::from_millis(1),
                max: Duration::from_millis(4),
            },
        },
    }
}

/// An attempt that ended by itself with this text, judged.
pub(crate) fn attempt(text: &str, gold: i64) -> Attempt {
    let gold = Number::from(gold);
    let extraction = extract(text, Rule::Numeric);
    Attempt {
        dataset_sha256: "abc".to_owned(),
        question_id: "q0".to_owned(),
        iteration: 0,
        source: Source::Forward,
        sample: 0,
        weights: WeightsStamp {
            version: 1,
            digest: "digest-1".to_owned(),
            checkpoint: "base".to_owned(),
        },
        prompt: PromptStamp {
            name: "plain".to_owned(),
            digest: "def".to_owned(),
        },
        template: None,
        decoding: Decoding::greedy(64),
        seed: 0,
        text: text.to_owned(),
        num_tokens: 3,
        finish_reason: FinishReason::Stop,
        rule: Rule::Numeric,
        value: extraction.value,
        gold,
        verdict: Verdict::judge(&extraction, FinishReason::Stop, gold),
        flags: extraction.flags,
        leaks: Vec::new(),
    }
}
