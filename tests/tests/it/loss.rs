//! The loss of a test set under a live server's weights is the trainer's own.

use std::{fs, path::Path};

use data::{prompt::PromptTemplate, split::holdout_by_question};
use serde_json::Value;

use crate::{
    process::{star, trainer},
    server::{TestServer, server_of},
};

/// Two ways to the same sum in f32: packed and in blocks.
const TOLERANCE: f64 = 1e-4;
const NUM_EXAMPLES: usize = 24;

fn demo(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../data/demo")
        .join(name)
}

/// `star loss` of a file, as JSON.
fn loss_of(server: &TestServer, file: &Path) -> Value {
    let printed = star(["loss", "--json", "--annotations", "keep"])
        .with("--server", server.url())
        .with("--dataset", file)
        .succeed();
    serde_json::from_str(&printed).expect("JSON")
}

/// On the demo's model and examples: the loss of the first training step, which is made before any
/// change of the weights, and the validation loss where the learning rate changes nothing.
#[test]
fn it_is_the_trainers_loss() {
    let dir = tempfile::tempdir().unwrap();
    let text = fs::read_to_string(demo("test.jsonl")).unwrap();
    let lines: Vec<&str> = text.lines().take(NUM_EXAMPLES).collect();
    let questions: Vec<String> = lines
        .iter()
        .map(|line| {
            let value: Value = serde_json::from_str(line).unwrap();
            value["question"].as_str().unwrap().to_owned()
        })
        .collect();
    let split = holdout_by_question(questions.iter().map(String::as_str), 0.5, 3).unwrap();
    let write = |name: &str, is_wanted: &dyn Fn(usize) -> bool| {
        let kept = lines
            .iter()
            .enumerate()
            .filter(|(index, _)| is_wanted(*index));
        let kept: String = kept.map(|(_, line)| format!("{line}\n")).collect();
        let file = dir.path().join(name);
        fs::write(&file, kept).unwrap();
        file
    };
    let all = write("all.jsonl", &|_| true);
    let held_out = write("held-out.jsonl", &|index| split.held_out.contains(&index));
    let trained = write("trained.jsonl", &|index| !split.held_out.contains(&index));

    let out = dir.path().join("out");
    trainer(["sft", "--progress", "quiet", "--seed", "3", "--epochs", "1"])
        .with("--model", demo("model"))
        .with("--train", &all)
        .with("--out", &out)
        .with("--validation-fraction", "0.5")
        .with("--batch-size", "1000")
        .with("--lr", "1e-30")
        .succeed();
    let metrics = fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    let step: Value = serde_json::from_str(metrics.lines().next().unwrap()).unwrap();
    let losses = fs::read_to_string(out.join("losses.csv")).unwrap();
    let epoch = losses.lines().nth(1).unwrap();
    let validation: f64 = epoch.split(',').nth(3).unwrap().parse().unwrap();

    let server = TestServer::start(server_of(&demo("model")));
    for (file, expected) in [
        (&trained, step["loss"].as_f64().unwrap()),
        (&held_out, validation),
    ] {
        let summary = loss_of(&server, file);
        let loss = summary["loss"].as_f64().unwrap();
        eprintln!("star loss {loss:.7}, trainer {expected:.7}");
        assert!(
            (loss - expected).abs() < TOLERANCE,
            "{loss} is not {expected}"
        );
        assert_eq!(
            summary["prompt"],
            PromptTemplate::by_name("basic").unwrap().name()
        );
        assert_eq!(summary["too_long"], Value::Array(vec![]));
    }
    let numbers = |key: &str| {
        [&trained, &held_out, &all].map(|file| loss_of(&server, file)[key].as_u64().unwrap())
    };
    let [one, two, both] = numbers("num_tokens");
    assert_eq!(one + two, both, "every token is scored once");
}

/// What is longer than the server's context or the caller's limit is counted and listed, and the
/// result is on disk where it was asked for.
#[test]
fn what_is_too_long_is_listed() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("questions.jsonl");
    let long = "long ".repeat(20_000);
    let line =
        |prompt: &str| serde_json::json!({ "prompt": prompt, "completion": " 2" }).to_string();
    fs::write(&file, format!("{}\n{}\n", line("1 + 1 ="), line(&long))).unwrap();
    let server = TestServer::start(server_of(&demo("model")));
    let out = dir.path().join("loss.json");
    let printed = star(["loss", "--prompt-format", "plain"])
        .with("--server", server.url())
        .with("--dataset", &file)
        .with("--out", &out)
        .succeed();
    assert!(
        printed.contains("2 examples = 1 scored + 1 too long"),
        "{printed}"
    );
    let summary: Value = serde_json::from_slice(&fs::read(&out).unwrap()).unwrap();
    assert_eq!(summary["too_long"][0]["line"], 2);
    assert!(summary["too_long"][0]["num_tokens"].as_u64().unwrap() > 20_000);
    let refused = star(["loss", "--prompt-format", "plain", "--max-length", "2"])
        .with("--server", server.url())
        .with("--dataset", &file)
        .fail_with(1);
    assert!(refused.contains("too long"), "{refused}");
}
