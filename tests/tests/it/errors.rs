//! What goes wrong is said in a sentence that names the thing and what to do, with an exit code that
//! is not zero, and nothing else suffers from it.

use std::{fs, path::Path};

use proto::genserver::v1::{self as pb, generate_request::Prompt};

use crate::{
    process::{gen_server, star, trainer},
    server::{TestServer, generation_client, server_of},
    world::{write_questions, write_random_model},
};

/// Port 1 is reserved, and nobody listens there.
const NOBODY: &str = "127.0.0.1:1";

#[track_caller]
fn assert_says(message: &str, words: &[&str]) {
    for word in words {
        assert!(message.contains(word), "{word:?} is not in: {message}");
    }
}

/// A model folder that is not there is named by each program.
#[test]
fn a_missing_model_folder() {
    let dir = tempfile::tempdir().unwrap();
    let absent = dir.path().join("absent");
    let questions = dir.path().join("questions.jsonl");
    write_questions(&questions, 0..300);
    let told = gen_server(["--listen", "127.0.0.1:0"])
        .with("--model", &absent)
        .fail_with(78);
    assert_says(&told, &["--model", "absent"]);
    let told = trainer(["sft"])
        .with("--model", &absent)
        .with("--train", &questions)
        .with("--out", dir.path().join("out"))
        .fail_with(1);
    assert_says(&told, &["absent", "config.json"]);
    let test = dir.path().join("test.jsonl");
    write_questions(&test, 300..310);
    let told = star(["run"])
        .with("--model", &absent)
        .with("--train", &questions)
        .with("--test", &test)
        .with("--out", dir.path().join("run"))
        .fail_with(2);
    assert_says(&told, &["absent", "config.json"]);
}

/// A line that is no question is named by file and number, before anything is asked of a server.
#[test]
fn a_wrong_line() {
    let dir = tempfile::tempdir().unwrap();
    let questions = dir.path().join("questions.jsonl");
    write_questions(&questions, 0..2);
    let good = fs::read_to_string(&questions).unwrap();
    fs::write(
        &questions,
        format!("{good}{{\"question\": \"How many?\"}}\n"),
    )
    .unwrap();
    for command in ["eval", "bootstrap"] {
        let told = star([command, "--server", NOBODY])
            .with("--dataset", &questions)
            .with("--out", dir.path().join("out"))
            .fail_with(1);
        assert_says(&told, &["questions.jsonl", "line 3", "answer"]);
    }
    let model = dir.path().join("model");
    write_random_model(&model, 32);
    let told = trainer(["sft"])
        .with("--model", &model)
        .with("--train", &questions)
        .with("--out", dir.path().join("out"))
        .fail_with(1);
    assert_says(&told, &["questions.jsonl", "3", "answer"]);
}

/// A question file that is not there is named.
#[test]
fn a_missing_question_file() {
    let dir = tempfile::tempdir().unwrap();
    let told = star(["eval", "--server", NOBODY])
        .with("--dataset", dir.path().join("absent.jsonl"))
        .with("--out", dir.path().join("out"))
        .fail_with(1);
    assert_says(&told, &["absent.jsonl"]);
}

/// Where no server answers, the sentence says how to start one.
#[test]
fn no_server() {
    let dir = tempfile::tempdir().unwrap();
    let questions = dir.path().join("questions.jsonl");
    write_questions(&questions, 0..2);
    let told = star(["eval", "--server", NOBODY])
        .with("--dataset", &questions)
        .with("--out", dir.path().join("out"))
        .fail_with(1);
    assert_says(&told, &[NOBODY, "gen-server --model"]);
    for command in [
        star(["status"]),
        star(["reload", "base"]),
        star(["generate", "Hello"]),
    ] {
        assert_says(
            &command.with("--server", NOBODY).fail_with(1),
            &["gen-server --model"],
        );
    }
}

/// A checkpoint of another architecture is refused by the key that differs, a damaged one by its
/// manifest, an absent one and one outside the root by name; the old weights go on serving.
#[test]
fn a_checkpoint_that_does_not_fit() {
    let dir = tempfile::tempdir().unwrap();
    let (model, root) = (dir.path().join("model"), dir.path().join("root"));
    write_random_model(&model, 32);
    write_random_model(&root.join("wider"), 64);
    write_random_model(&root.join("damaged"), 32);
    model::manifest::Manifest::write(&root.join("damaged")).unwrap();
    flip_last_byte(&root.join("damaged/model.safetensors"));
    let server = TestServer::start(server_of(&model).with("--checkpoint-root", &root));
    let before = (server.weights(), answer_of(&server));
    for (name, words) in [
        ("wider", &["hidden_size", "32", "64"][..]),
        ("damaged", &["model.safetensors", "sha256"]),
        ("absent", &["absent", "no such folder"]),
        ("../model", &["../model", "below the checkpoint root"]),
    ] {
        let told = star(["reload"])
            .and(name)
            .with("--server", server.url())
            .fail_with(1);
        assert_says(&told, words);
        assert_eq!((server.weights(), answer_of(&server)), before, "{name}");
    }
}

fn flip_last_byte(path: &Path) {
    let mut bytes = fs::read(path).expect("a file of ours");
    *bytes.last_mut().expect("it is not empty") ^= 1;
    fs::write(path, bytes).expect("a file of ours");
}

fn answer_of(server: &TestServer) -> Vec<u32> {
    server.generate(short_request()).token_ids
}

fn short_request() -> pb::GenerateRequest {
    pb::GenerateRequest {
        prompt: Some(Prompt::Text("Once upon a time".to_owned())),
        stopping: Some(pb::StoppingCriteria {
            max_new_tokens: Some(4),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// A full queue refuses a single prompt with a sentence; when there is room again it is answered.
#[test]
fn a_full_queue() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("model");
    write_random_model(&model, 32);
    let server = TestServer::start(server_of(&model).with("--max-queued-requests", "1"));
    let generate =
        || star(["generate", "Hello", "--max-tokens", "2"]).with("--server", server.url());
    let told = server.block_on(async |url| {
        let endless = pb::GenerateRequest {
            stopping: Some(pb::StoppingCriteria {
                max_new_tokens: Some(60_000),
                ignore_eos: Some(true),
                ..Default::default()
            }),
            ..short_request()
        };
        let mut client = generation_client(url).await;
        let mut stream = client.generate_stream(endless).await.unwrap().into_inner();
        stream.message().await.unwrap();
        generate().fail_with(1)
        // Here the stream is dropped, and with it the request.
    });
    assert_says(&told, &["queue is full", "retry"]);
    crate::process::wait_for("room in the queue", || {
        (generate().end().code == Some(0)).then_some(())
    });
}
