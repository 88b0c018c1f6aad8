//! The binary as a user meets it: start, address, answer, signal, exit; and how it says no.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use model::random::{RandomModelSpec, preset, random_model};
use proto::genserver::v1::{
    GenerateRequest, ReloadCheckpointRequest, StoppingCriteria, control_client::ControlClient,
    generate_request::Prompt, generation_client::GenerationClient,
};

fn write_model(dir: &Path, seed: u64) {
    let mut config = preset("tiny").unwrap();
    (
        config.vocab_size,
        config.hidden_size,
        config.intermediate_size,
    ) = (300, 32, 48);
    (
        config.num_hidden_layers,
        config.head_dim,
        config.max_position_embeddings,
    ) = (2, 8, 128);
    random_model(
        &RandomModelSpec {
            config,
            seed,
            tokenizer_from: None,
        },
        dir,
    )
    .unwrap();
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gen-server"));
    command
        .args(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Ends the server if a test fails.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
    }
}

/// From start to stop: the address is announced, prompts are answered, a checkpoint is swapped in, and
/// SIGTERM ends it with success.
#[tokio::test]
async fn a_server_serves_and_stops() {
    let dir = tempfile::tempdir().unwrap();
    let (base, endpoint) = (dir.path().join("base"), dir.path().join("endpoint"));
    write_model(&base, 1);
    write_model(&dir.path().join("star/epoch_1"), 2);
    let root = dir.path().to_str().unwrap();
    let mut server = Running(
        command(&[
            "--model",
            base.to_str().unwrap(),
            "--checkpoint-root",
            root,
            "--listen",
            "127.0.0.1:0",
            "--endpoint-file",
            endpoint.to_str().unwrap(),
        ])
        .spawn()
        .unwrap(),
    );
    let mut line = String::new();
    BufReader::new(server.0.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let url = line
        .trim()
        .strip_prefix("listening on ")
        .unwrap()
        .to_owned();
    assert_eq!(std::fs::read_to_string(&endpoint).unwrap().trim(), url);

    let mut client = GenerationClient::connect(url.clone()).await.unwrap();
    let stopping = StoppingCriteria {
        max_new_tokens: Some(8),
        ..Default::default()
    };
    let asked = GenerateRequest {
        prompt: Some(Prompt::Text("Q: How many?\nA:".to_owned())),
        stopping: Some(stopping),
        ..Default::default()
    };
    let first = client.generate(asked.clone()).await.unwrap().into_inner();
    let first = first.outputs[0].clone();
    assert_eq!(first.finish.unwrap().weights.unwrap().checkpoint, "base");
    let mut control = ControlClient::connect(url).await.unwrap();
    let checkpoint = "star/epoch_1".to_owned();
    let reload = ReloadCheckpointRequest {
        checkpoint,
        ..Default::default()
    };
    control.reload_checkpoint(reload).await.unwrap();
    let second = client.generate(asked).await.unwrap().into_inner();
    let second = second.outputs[0].clone();
    assert_eq!(
        second.finish.unwrap().weights.unwrap().checkpoint,
        "star/epoch_1"
    );
    assert_ne!(first.token_ids, second.token_ids);

    let pid = rustix::process::Pid::from_child(&server.0);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(server.0.wait().unwrap().success());
    assert!(!endpoint.exists(), "whoever finds the file may believe it");
}

fn refused(args: &[&str]) -> Output {
    let output = command(args).output().unwrap();
    assert!(!output.status.success());
    output
}

/// A model that is not there is a sentence and the exit code for a wrong configuration.
#[test]
fn a_missing_model_is_refused() {
    let output = refused(&["--model", "/nonexistent/model"]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        text.contains("--model: /nonexistent/model: does not exist; give a folder"),
        "{text}"
    );
    assert_eq!(output.status.code(), Some(78));
}

/// A folder that is no model is a sentence, too.
#[test]
fn a_folder_without_a_model_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let output = refused(&[
        "--model",
        dir.path().to_str().unwrap(),
        "--listen",
        "127.0.0.1:0",
    ]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("config.json"), "{text}");
}

/// An address that is taken is named, with what to do.
#[test]
fn a_taken_address_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    write_model(dir.path(), 1);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = refused(&[
        "--model",
        dir.path().to_str().unwrap(),
        "--listen",
        &address,
    ]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        text.contains(&format!(
            "cannot listen on {address}; is another server there?"
        )),
        "{text}"
    );
}
