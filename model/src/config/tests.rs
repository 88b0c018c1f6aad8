use std::path::Path;

use serde_json::{Value, json};

use super::*;
use crate::testing::tiny_config;

fn llama32() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama",
        "vocab_size": 128_256, "hidden_size": 3072, "intermediate_size": 8192,
        "num_hidden_layers": 28, "num_attention_heads": 24, "num_key_value_heads": 8,
        "head_dim": 128, "rms_norm_eps": 1e-5, "hidden_act": "silu", "rope_theta": 500_000.0,
        "rope_scaling": {
            "rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
        },
        "tie_word_embeddings": true, "max_position_embeddings": 131_072,
        "attention_bias": false, "mlp_bias": false, "torch_dtype": "bfloat16",
        "bos_token_id": 128_000, "eos_token_id": [128_001, 128_008, 128_009],
        "pretraining_tp": 1, "use_cache": true, "transformers_version": "4.45.0.dev0",
    })
}

fn parse(value: &Value) -> Result<LlamaConfig> {
    LlamaConfig::parse(&value.to_string(), Path::new("m/config.json"))
}

fn with(key: &str, value: Value) -> Value {
    let mut config = llama32();
    config[key] = value;
    config
}

/// The published config of Llama-3.2-3B is the preset of its shape.
#[test]
fn llama32_is_understood() {
    let config = parse(&llama32()).unwrap();
    assert_eq!(
        config,
        crate::random::preset("3b")
            .map(|p| LlamaConfig {
                pad_token_id: None,
                ..p
            })
            .unwrap()
    );
    // 3.21 B, the tied head counted once.
    assert_eq!(config.num_parameters(), 3_212_749_824);
    assert_eq!(config.kv_bytes_per_token(2), 114_688);
}

/// Transformers 5 writes theta and scaling together as `rope_parameters`, and `dtype`.
#[test]
fn transformers_5_form_means_the_same() {
    let mut v5 = llama32();
    let object = v5.as_object_mut().unwrap();
    let theta = object.remove("rope_theta").unwrap();
    let mut rope = object.remove("rope_scaling").unwrap();
    rope["rope_theta"] = theta;
    object.insert("rope_parameters".into(), rope);
    let dtype = object.remove("torch_dtype").unwrap();
    object.insert("dtype".into(), dtype);
    assert_eq!(parse(&v5).unwrap(), parse(&llama32()).unwrap());
}

/// What is written is read back, and every value that may be left out has transformers' default.
#[test]
fn written_configs_are_read_back() {
    for name in ["tiny", "tiny-704", "small", "1b", "3b", "llama3-vocab-tiny"] {
        let config = crate::random::preset(name).unwrap();
        assert_eq!(parse(&config.to_json()).unwrap(), config, "{name}");
    }
    let least = json!({
        "model_type": "llama", "vocab_size": 8, "hidden_size": 8, "intermediate_size": 8,
        "num_hidden_layers": 1, "num_attention_heads": 2,
    });
    let config = parse(&least).unwrap();
    assert_eq!((config.num_key_value_heads, config.head_dim), (2, 4));
    assert_eq!((config.rope_theta, config.rms_norm_eps), (10_000.0, 1e-6));
    assert!(!config.tie_word_embeddings);
}

/// A value we do not serve is refused with file, key, expected and found.
#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn wrong_values_are_named() {
    let check = |key: &str, value: Value, message: &str| {
        let error = parse(&with(key, value)).unwrap_err().to_string();
        assert_eq!(error, format!("m/config.json: {message}"));
    };
    check(
        "architectures",
        json!(["MistralForCausalLM"]),
        r#"architectures: expected LlamaForCausalLM, found ["MistralForCausalLM"]"#,
    );
    check(
        "model_type",
        json!("qwen2"),
        "model_type: expected llama, found qwen2",
    );
    check(
        "hidden_act",
        json!("gelu"),
        r#"hidden_act: expected "silu", found "gelu""#,
    );
    check(
        "attention_bias",
        json!(true),
        "attention_bias: expected false, found true",
    );
    check(
        "mlp_bias",
        json!(true),
        "mlp_bias: expected false, found true",
    );
    check(
        "hidden_size",
        json!("3072"),
        r#"hidden_size: expected a whole number, found "3072""#,
    );
    check(
        "hidden_size",
        Value::Null,
        "hidden_size: expected a whole number, found nothing",
    );
    check(
        "num_hidden_layers",
        json!(0),
        "num_hidden_layers: expected a whole number from 1 to 2^31 - 1, found 0",
    );
    check(
        "num_key_value_heads",
        json!(7),
        "num_key_value_heads: expected a divisor of num_attention_heads (24), found 7",
    );
    check(
        "head_dim",
        json!(127),
        "head_dim: expected an even number, found 127",
    );
    check(
        "rms_norm_eps",
        json!(-1.0),
        "rms_norm_eps: expected a number above 0, found -1",
    );
    check(
        "torch_dtype",
        json!("int8"),
        "torch_dtype: expected bfloat16, float16 or float32, found int8",
    );
    check(
        "dtype",
        json!("float32"),
        "torch_dtype: expected the same as dtype, found bfloat16",
    );
    check(
        "eos_token_id",
        json!([1, 128_256]),
        "eos_token_id: expected an id below vocab_size (128256), found 128256",
    );
    check(
        "eos_token_id",
        json!("1"),
        r#"eos_token_id: expected a token id or a list of token ids, found "1""#,
    );
    check(
        "rope_scaling",
        json!({ "rope_type": "yarn", "factor": 2.0 }),
        "rope_scaling.rope_type: expected llama3 or default, found yarn",
    );
    check(
        "rope_scaling",
        json!({ "type": "linear", "factor": 2.0 }),
        "rope_scaling.rope_type: expected llama3 or default, found linear",
    );
    check(
        "rope_scaling",
        json!({ "rope_type": "llama3" }),
        "rope_scaling.factor: expected a number, found nothing",
    );
    check(
        "rope_parameters",
        json!({ "rope_type": "default", "rope_theta": 5.0 }),
        "rope_scaling: expected the same as rope_parameters (None), \
         found Some(Llama3RopeScaling { factor: 32.0, low_freq_factor: 1.0, high_freq_factor: 4.0, \
         original_max_position_embeddings: 8192 })",
    );
    check(
        "partial_rotary_factor",
        json!(0.5),
        "partial_rotary_factor: expected 1.0, found 0.5",
    );
    check(
        "quantization_config",
        json!({ "quant_method": "awq" }),
        "quantization_config: expected nothing (weights in bf16, f16 or f32), \
         found a quantized checkpoint",
    );
}

/// Without `head_dim`, heads must divide the hidden size.
#[test]
fn head_dim_is_derived_or_refused() {
    let mut config = with("num_attention_heads", json!(25));
    config.as_object_mut().unwrap().remove("head_dim");
    assert_eq!(
        parse(&config).unwrap_err().to_string(),
        "m/config.json: num_attention_heads: expected a divisor of hidden_size (3072), \
         as head_dim is not given, found 25"
    );
}

/// Text that is no JSON, or no object, is refused by file.
#[test]
fn broken_files_are_named() {
    let path = Path::new("m/config.json");
    let error = LlamaConfig::parse("{", path).unwrap_err().to_string();
    assert!(
        error.starts_with("m/config.json: not valid JSON: "),
        "{error}"
    );
    let error = LlamaConfig::parse("[]", path).unwrap_err().to_string();
    assert_eq!(
        error,
        "m/config.json: (the whole file): expected a JSON object, found []"
    );
    let error = LlamaConfig::load(Path::new("/nowhere"))
        .unwrap_err()
        .to_string();
    assert_eq!(error, "/nowhere: has no config.json; is it a model folder?");
}

/// EOS ids come from both files, each once; one id and a list are the same thing.
#[test]
fn eos_ids_are_merged() {
    let dir = tempfile::tempdir().unwrap();
    let config = LlamaConfig {
        eos_token_ids: vec![5, 1],
        ..tiny_config()
    };
    let load = |text: &str| {
        std::fs::write(dir.path().join("generation_config.json"), text).unwrap();
        GenerationConfig::load(dir.path(), &config).map(|g| g.eos_token_ids)
    };
    let none = GenerationConfig::load(dir.path(), &config).unwrap();
    assert_eq!(none.eos_token_ids, [5, 1]);
    assert_eq!(load(r#"{"eos_token_id": 3}"#).unwrap(), [3, 5, 1]);
    assert_eq!(load(r#"{"eos_token_id": [1, 2, 1]}"#).unwrap(), [1, 2, 5]);
    let error = load(r#"{"eos_token_id": 270}"#).unwrap_err().to_string();
    assert!(
        error.ends_with("expected ids below vocab_size (270), found 270"),
        "{error}"
    );
}

/// Keys nobody knows are reported, known harmless ones are not.
#[test]
fn unknown_keys_are_reported() {
    let text = with("unsloth_version", json!("2024.9")).to_string();
    let keys = crate::config_json::unknown_keys(&text, Path::new("config.json")).unwrap();
    assert_eq!(keys, ["unsloth_version"]);
}

/// Two configs differ as architectures in sizes, not in element type or special ids.
#[test]
fn architectures_are_compared() {
    let ours = tiny_config();
    let other = LlamaConfig {
        dtype: StoredDtype::Bf16,
        eos_token_ids: vec![],
        ..ours.clone()
    };
    assert_eq!(ours.architecture_difference(&other), None);
    let other = LlamaConfig {
        hidden_size: 32,
        ..ours.clone()
    };
    let expected = ("hidden_size", "16".to_owned(), "32".to_owned());
    assert_eq!(ours.architecture_difference(&other), Some(expected));
}
