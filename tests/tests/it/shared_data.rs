//! With the reference data beside the repository, where it is at hand: GSM8K's own questions, Llama
//! 3's own tokenizer and chat template, on a model of Llama 3.2's layout with random weights.

use std::path::{Path, PathBuf};

use client::eval::EvalSummary;
use model::random::{RandomModelSpec, preset, random_model};
use proto::genserver::v1::{self as pb, generate_request::Prompt};
use serde::Deserialize;

use crate::{
    loops::{assert_accounted, attempts, read_json},
    process::star,
    server::{TestServer, server_of},
};

const NUM_QUESTIONS: u64 = 32;

/// The reference data, or a loud skip.
#[expect(clippy::disallowed_methods, reason = "tests may read STAR_SHARED_DIR")]
fn shared_dir() -> Option<PathBuf> {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    let dir = std::env::var("STAR_SHARED_DIR").map_or(default, PathBuf::from);
    if dir.join("gsm8k").is_dir() && dir.join("llama3-tokenizer").is_dir() {
        return Some(dir);
    }
    eprintln!(
        "SKIPPED: {} has no gsm8k and llama3-tokenizer",
        dir.display()
    );
    None
}

fn serve_llama3(shared: &Path, dir: &Path) -> TestServer {
    let spec = RandomModelSpec {
        config: preset("llama3-vocab-tiny").expect("a preset"),
        seed: 3,
        tokenizer_from: Some(shared.join("llama3-tokenizer")),
    };
    random_model(&spec, dir).expect("a random model");
    let call = server_of(dir)
        .with("--chat-template", "hf-llama3.2")
        .with("--template-date", "26 Jul 2024");
    TestServer::start(call)
}

/// GSM8K's test questions through Llama 3's tokenizer, as chat and as plain text: each is accounted
/// for, and all are cut, since nothing is said in eight tokens of noise.
#[test]
fn gsm8k_is_accounted_for() {
    let Some(shared) = shared_dir() else { return };
    let dir = tempfile::tempdir().unwrap();
    let server = serve_llama3(&shared, &dir.path().join("model"));
    for format in ["chat", "plain"] {
        let out = dir.path().join(format);
        star([
            "eval",
            "--max-tokens",
            "8",
            "--limit",
            "32",
            "--prompt-format",
            format,
        ])
        .with("--server", server.url())
        .with("--dataset", shared.join("gsm8k/test.jsonl"))
        .with("--out", &out)
        .succeed();
        let summary: EvalSummary = read_json(&out.join("summary.json"));
        assert_accounted(&summary);
        assert_eq!(summary.counts.attempts, NUM_QUESTIONS);
        assert_eq!(summary.manifest.template.is_some(), format == "chat");
        let attempts = attempts(&out);
        assert_eq!(attempts.len() as u64, NUM_QUESTIONS);
        assert!(attempts.iter().all(|attempt| attempt.num_tokens <= 8));
    }
}

/// One case of the golden file.
#[derive(Debug, Deserialize)]
struct Case {
    name: String,
    add_generation_prompt: bool,
    date_string: String,
    messages: Vec<Message>,
    ids: Vec<u32>,
}

#[derive(Debug, Deserialize)]
struct Message {
    role: String,
    content: String,
}

/// A conversation reaches the model as the very ids of the golden cases: as many as there are, and
/// with the answer that those ids get when they are sent as they are.
#[test]
fn chats_have_their_golden_ids() {
    let Some(shared) = shared_dir() else { return };
    let dir = tempfile::tempdir().unwrap();
    let server = serve_llama3(&shared, &dir.path().join("model"));
    let cases: Vec<Case> = read_json(&shared.join("llama3-tokenizer/chat_golden.json"));
    let mut num_checked = 0;
    for case in cases
        .iter()
        .filter(|case| case.add_generation_prompt && case.date_string == "26 Jul 2024")
    {
        let messages = case.messages.iter().map(|message| pb::ChatMessage {
            role: message.role.clone(),
            content: message.content.clone(),
        });
        let as_chat = answer(
            &server,
            Prompt::Chat(pb::Chat {
                messages: messages.collect(),
            }),
        );
        let as_ids = answer(
            &server,
            Prompt::TokenIds(pb::TokenIds {
                ids: case.ids.clone(),
            }),
        );
        let num_prompt_tokens = |answer: &pb::SequenceOutput| {
            answer
                .finish
                .as_ref()
                .map(|finish| finish.num_prompt_tokens)
        };
        assert_eq!(
            num_prompt_tokens(&as_chat),
            Some(case.ids.len() as u32),
            "{}",
            case.name
        );
        assert_eq!(as_chat.token_ids, as_ids.token_ids, "{}", case.name);
        num_checked += 1;
    }
    assert!(num_checked > 0, "the golden file has cases for this date");
}

fn answer(server: &TestServer, prompt: Prompt) -> pb::SequenceOutput {
    server.generate(pb::GenerateRequest {
        prompt: Some(prompt),
        stopping: Some(pb::StoppingCriteria {
            max_new_tokens: Some(6),
            ignore_eos: Some(true),
            ..Default::default()
        }),
        ..Default::default()
    })
}
