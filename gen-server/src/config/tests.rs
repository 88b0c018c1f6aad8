//! The command line: what it accepts, and that it reports every mistake at once.

use clap::{CommandFactory as _, Parser as _};
use expect_test::expect;

use super::*;

fn args(more: &[&str]) -> Args {
    let model = env!("CARGO_MANIFEST_DIR"); // any folder: it is not opened here
    let words = ["gen-server", "--model", model]
        .into_iter()
        .chain(more.iter().copied());
    Args::try_parse_from(words).unwrap()
}

fn mistakes(more: &[&str]) -> String {
    ServerConfig::from_args(&args(more))
        .unwrap_err()
        .to_string()
}

/// The options agree with each other, and the defaults are a valid configuration.
#[test]
fn defaults_are_valid() {
    Args::command().debug_assert();
    let config = ServerConfig::from_args(&args(&[])).unwrap();
    assert_eq!(config.max_num_seqs, DEFAULT_MAX_NUM_SEQS);
    assert_eq!(config.kv_cache, KvCacheSize::Auto);
    assert_eq!(config.chat_template, TemplateChoice::Auto);
}

/// Weights are f32 unless another type is asked for; a type and a quantization exclude each other.
#[test]
fn precision() {
    let name = |more: &[&str]| {
        let config = ServerConfig::from_args(&args(more)).unwrap();
        config.precision.name()
    };
    assert_eq!(name(&[]), "float32");
    assert_eq!(name(&["--dtype", "f32"]), "float32");
    assert_eq!(name(&["--dtype", "bf16"]), "bfloat16");
    assert_eq!(name(&["--quantize", "int8"]), "int8");
    let both = [
        "gen-server",
        "--model",
        ".",
        "--dtype",
        "bf16",
        "--quantize",
        "int8",
    ];
    assert!(Args::try_parse_from(both).is_err());
}

/// A GPU computes in bf16 unless it is told otherwise.
#[test]
fn precision_on_a_gpu() {
    let on_gpu =
        |more: &[&str]| ServerConfig::from_args(&args(&[&["--device", "cuda"], more].concat()));
    let name = |more: &[&str]| on_gpu(more).unwrap().precision.name();
    assert_eq!(name(&[]), "bfloat16");
    assert_eq!(name(&["--quantize", "int8"]), "int8");
    assert_eq!(
        name(&["--dtype", "f32", "--kv-cache-dtype", "fp8"]),
        "float32"
    );
    let bf16_cache = on_gpu(&["--dtype", "f32", "--kv-cache-dtype", "bf16"]);
    expect!["--kv-cache-dtype: expected auto or fp8 with --dtype f32, found bf16"]
        .assert_eq(&bf16_cache.unwrap_err().to_string());
}

/// Every mistake is reported, not only the first.
#[test]
fn all_mistakes_are_reported_at_once() {
    let found = mistakes(&[
        "--checkpoint-root",
        "/nonexistent/root",
        "--block-size",
        "0",
        "--max-num-seqs",
        "64",
        "--max-num-batched-tokens",
        "32",
        "--chat-template",
        "nonesuch",
        "--threads",
        "0",
        "--num-blocks",
        "0",
    ]);
    expect![[r#"
        --num-blocks: expected at least 1, found 0
        --chat-template: expected auto, none, hf-llama3.2, meta-llama3 or an existing file, found "nonesuch"
        --checkpoint-root: no folder at /nonexistent/root; create it before the start
        --block-size: expected 1 to 1024, found 0
        --max-num-batched-tokens: expected at least --max-num-seqs (64), since each sequence takes a token of the step, found 32
        --threads: expected at least 1, found 0"#]].assert_eq(&found);
}

/// A model that is nowhere is one mistake, with what to do.
#[test]
fn a_missing_model_is_named() {
    let args = Args::try_parse_from(["gen-server", "--model", "/nonexistent/model"]).unwrap();
    expect!["--model: /nonexistent/model: does not exist; give a folder with config.json, tokenizer.json and model.safetensors, or org/name of a downloaded model"]
        .assert_eq(&ServerConfig::from_args(&args).unwrap_err().to_string());
}

/// Other hosts may only come in with a token, or when the operator says that anybody may.
#[test]
fn an_open_address_needs_a_token() {
    expect!["--listen: 0.0.0.0:0 can be reached by other hosts: give --auth-token-file FILE, or --insecure to let everybody on the network generate and reload"].assert_eq(&mistakes(&["--listen", "0.0.0.0:0"]));
    ServerConfig::from_args(&args(&["--listen", "0.0.0.0:0", "--insecure"])).unwrap();
    ServerConfig::from_args(&args(&["--listen", "127.0.0.1:0"])).unwrap();
    ServerConfig::from_args(&args(&["--listen", "[::1]:0"])).unwrap();

    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    let with_token = [
        "--listen",
        "0.0.0.0:0",
        "--auth-token-file",
        file.to_str().unwrap(),
    ];
    std::fs::write(&file, "0123456789abcdef\n").unwrap();
    let config = ServerConfig::from_args(&args(&with_token)).unwrap();
    assert_eq!(
        config.auth_token.as_ref().unwrap().expose(),
        "0123456789abcdef"
    );
    assert!(!format!("{config:?}").contains("0123456789abcdef"));
    std::fs::write(&file, "short\n").unwrap();
    expect!["--auth-token-file: the token must be at least 16 printable ASCII characters without spaces, found 5 bytes; `openssl rand -hex 32` makes one"].assert_eq(&mistakes(&with_token));
}
