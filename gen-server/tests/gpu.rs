//! The program's words on machines with and without a GPU; with one it is the software GPU, or the machine's.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    path::Path,
    process::{Command, Output},
};

use model::random::{RandomModelSpec, preset, random_model};

fn gen_server(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gen-server"));
    command.args(words).env_remove("RUST_LOG");
    command
}

fn text(output: &Output) -> String {
    let both = [output.stdout.as_slice(), &output.stderr].concat();
    String::from_utf8(both).unwrap()
}

fn has_hardware() -> bool {
    Path::new("/dev/nvidiactl").exists()
}

/// With the software GPU's libraries, where there is no other; `None`, said loudly, without either.
fn on_gpu(words: &[&str]) -> Option<Output> {
    let mut command = gen_server(words);
    if !has_hardware() {
        let Some(folder) = cuda_emulator::library_folder() else {
            eprintln!("SKIPPED: no GPU, and no C++ compiler to build the software one with");
            return None;
        };
        command.env("LD_LIBRARY_PATH", folder);
    }
    Some(command.output().unwrap())
}

#[test]
fn the_doctor_finds_nothing_wrong() {
    let Some(output) = on_gpu(&["doctor"]) else {
        return;
    };
    let text = text(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("ok "))
        .collect();
    assert_eq!(lines.len(), 5, "{text}");
    let agree = "GPU against CPU: log probabilities of 9 steps agree: float32 ";
    assert!(text.contains(agree), "{text}");
}

#[test]
fn the_doctor_speaks_json() {
    let Some(output) = on_gpu(&["doctor", "--json"]) else {
        return;
    };
    let text = text(&output);
    let lines = text
        .lines()
        .filter(|line| line.starts_with(r#"{"what":"doctor""#));
    assert_eq!(
        lines.filter(|line| line.contains(r#""ok":true"#)).count(),
        5,
        "{text}"
    );
}

/// Without a driver everything starts, and says what is missing.
#[test]
fn without_a_gpu_one_sentence_says_so() {
    if has_hardware() {
        return;
    }
    let output = gen_server(&["doctor"]).output().unwrap();
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.starts_with("FAILED  driver, GPU, kernels: libcuda.so.1 was not found"),
        "{said}"
    );
    assert_eq!(said.lines().count(), 1, "{said}");

    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../data/demo/model");
    let output = gen_server(&["--model", model, "--device", "cuda"])
        .output()
        .unwrap();
    let said = text(&output);
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(
        said.contains("gen-server: libcuda.so.1 was not found"),
        "{said}"
    );
}

#[test]
fn what_a_gpu_cannot_do_is_refused() {
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../data/demo/model");
    let words = [
        "--model",
        model,
        "--device",
        "cuda",
        "--dtype",
        "f32",
        "--kv-cache-dtype",
        "bf16",
        "--block-size",
        "8",
    ];
    let output = gen_server(&words).output().unwrap();
    let said = text(&output);
    assert_eq!(output.status.code(), Some(78), "{said}");
    for problem in [
        "--kv-cache-dtype: expected auto or fp8 with --dtype f32, found bf16",
        "--block-size: expected a multiple of 16 with --device cuda, found 8",
    ] {
        assert!(said.contains(problem), "{said}");
    }
}

/// A model is loaded and timed, then its memory is given back and the parts are timed.
#[test]
fn a_step_is_taken_apart() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = preset("tiny").unwrap();
    (config.vocab_size, config.hidden_size) = (304, 64);
    (config.intermediate_size, config.num_hidden_layers) = (96, 2);
    (config.num_attention_heads, config.num_key_value_heads) = (2, 1);
    (config.head_dim, config.max_position_embeddings) = (64, 128);
    let spec = RandomModelSpec {
        config,
        seed: 1,
        tokenizer_from: None,
    };
    random_model(&spec, dir.path()).unwrap();
    let model = dir.path().to_str().unwrap();
    let mut words = vec!["speed", "--parts", "--model", model, "--device", "cuda"];
    words.extend(["--phases", "2x20,p16,p9999", "--max-num-seqs", "4"]);
    let Some(output) = on_gpu(&words) else {
        return;
    };
    let said = text(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("left out: p9999: "), "{said}");
    let is_last = |line: &&str| line.starts_with("measured step");
    assert_eq!(said.lines().filter(is_last).count(), 2, "{said}");
}

#[test]
fn parts_are_those_of_a_gpu() {
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../data/demo/model");
    let words = ["speed", "--parts", "--model", model];
    let output = gen_server(&words).output().unwrap();
    let said = text(&output);
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(
        said.contains("gen-server: --parts: expected --device cuda"),
        "{said}"
    );
}

#[test]
fn steps_are_timed() {
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../data/demo/model");
    let words = [
        "speed",
        "--model",
        model,
        "--phases",
        "2x20,p16,p9999",
        "--json",
    ];
    let output = gen_server(&words).output().unwrap();
    let said = text(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(
        said.contains(r#"{"what":"decode","batch":2,"context":20,"shared":0,"ms_per_step":"#),
        "{said}"
    );
    assert!(
        said.contains(r#"{"what":"prefill","tokens":16,"ms":"#),
        "{said}"
    );
    assert!(
        said.contains("left out: p9999: tokens: expected at most 512"),
        "{said}"
    );
}
