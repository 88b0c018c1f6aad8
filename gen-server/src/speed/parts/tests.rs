//! Parts of a tiny model's steps, on the software GPU where there is no other.

use cuda_emulator::Provided;
use model::{
    config::LlamaConfig,
    random::{RandomModelSpec, random_model},
};

use super::*;
use crate::{backend::fake::tiny_config, config::KvCacheSize, config::Quantization};

const NUM_LAYERS: usize = 3;

/// The smallest that the kernels take, in int8, too.
fn model() -> LlamaConfig {
    LlamaConfig {
        vocab_size: 304,
        hidden_size: 64,
        intermediate_size: 128,
        num_hidden_layers: NUM_LAYERS,
        num_attention_heads: 3,
        num_key_value_heads: 1,
        head_dim: 64,
        ..tiny_config()
    }
}

fn measured(phase: &str, change: impl FnOnce(&mut ServerConfig)) -> Option<StepParts> {
    if let Provided::Nothing(why) = cuda_emulator::load() {
        eprintln!("SKIPPED, no GPU: {why}");
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let spec = RandomModelSpec {
        config: model(),
        seed: 1,
        tokenizer_from: None,
    };
    random_model(&spec, dir.path()).unwrap();
    let mut config = ServerConfig::for_model(dir.path()).on(config::Device::Cuda);
    config.kv_cache = KvCacheSize::Blocks(10.try_into().unwrap());
    (config.max_num_seqs, config.max_num_batched_tokens) = (8, 128);
    change(&mut config);
    let step = Measured {
        phase: phase.parse().unwrap(),
        ms_per_step: 2.0,
        num_steps: 5,
    };
    Some(PartsBench::open(&config).unwrap().measure(&step).unwrap())
}

/// Name, rows and number of each part.
fn counts(step: &StepParts) -> Vec<(&'static str, usize, usize)> {
    let counts = step.parts.iter().map(|it| (it.name, it.rows, it.count));
    counts.collect()
}

const PRODUCTS: [&str; 5] = ["qkv", "o", "gate_up", "down", "head"];

fn flops(step: &StepParts, is_wanted: impl Fn(&str) -> bool) -> usize {
    let parts = step.parts.iter().filter(|part| is_wanted(part.name));
    parts.map(|part| part.count * part.num_flops).sum()
}

/// Three sequences are padded to four; every weight of a product is multiplied with each, once.
#[test]
fn a_decode_is_its_layers_and_its_ends() {
    let Some(step) = measured("3x40", |_| ()) else {
        return;
    };
    let n = NUM_LAYERS;
    let expected = [
        ("carry", 4, 1),
        ("embedding", 4, 1),
        ("rms_norm", 4, 2 * n + 1),
        ("qkv", 4, n),
        ("rope_kv", 4, n),
        ("attention", 4, n),
        ("o", 4, n),
        ("gate_up", 4, n),
        ("swiglu", 4, n),
        ("down", 4, n),
        ("gather", 4, 1),
        ("head", 4, 1),
        ("sampling", 4, 1),
    ];
    assert_eq!(counts(&step), expected);
    let model = model();
    // The head is the embedding.
    let num_weights = model.num_parameters() - (2 * n + 1) * model.hidden_size;
    let products = flops(&step, |name| PRODUCTS.contains(&name));
    assert_eq!(products, 2 * 4 * num_weights);
    let attention = flops(&step, |name| name == "attention");
    // Scores and sums, for each of 40 keys of three sequences.
    assert_eq!(attention, n * 3 * 40 * 4 * model.query_size());
    let part = |name| step.parts.iter().find(|part| part.name == name).unwrap();
    let cached = 3 * 40 * 2 * model.kv_size() * 2;
    let (queries, out) = (3 * model.query_size() * 2, 3 * model.query_size() * 2);
    assert_eq!(part("attention").num_bytes, cached + queries + out);
}

/// Of the last layer what follows attention is computed for the rows that logits are wanted for.
#[test]
fn a_prompt_ends_with_few_rows() {
    let Some(step) = measured("p90", |_| ()) else {
        return;
    };
    let n = NUM_LAYERS;
    let expected = [
        ("carry", 96, 1),
        ("embedding", 96, 1),
        ("rms_norm", 96, 2 * n - 1),
        ("qkv", 96, n),
        ("rope_kv", 96, n),
        ("attention", 96, n),
        ("o", 96, n - 1),
        ("gate_up", 96, n - 1),
        ("swiglu", 96, n - 1),
        ("down", 96, n - 1),
        ("o", 8, 1),
        ("rms_norm", 8, 2),
        ("gate_up", 8, 1),
        ("swiglu", 8, 1),
        ("down", 8, 1),
        ("gather attended", 8, 1),
        ("gather", 8, 1),
        ("head", 8, 1),
        ("sampling", 8, 1),
    ];
    assert_eq!(counts(&step), expected);
    let attention = flops(&step, |name| name == "attention");
    assert_eq!(attention, n * 90 * 91 / 2 * 4 * model().query_size());
}

/// Times are there, least times follow from the ceilings, and each bf16 product was tried with all that cublasLt suggests.
#[test]
fn parts_are_timed() {
    for quantize in [None, Some(Quantization::Int8)] {
        for phase in ["3x40", "p90"] {
            let change = |config: &mut ServerConfig| {
                if let Some(quantization) = quantize {
                    config.precision = Precision::Quantized(quantization);
                    config.gpu.kv_cache_dtype = config::KvCacheDtype::Fp8;
                }
            };
            let Some(step) = measured(phase, change) else {
                return;
            };
            for part in &step.parts {
                let shown = (phase, quantize, part.name);
                assert!(part.us > 0.0 && part.num_bytes > 0, "{shown:?}");
                let by_memory = 1e6 * part.num_bytes as f64 / step.ceilings.bytes_per_s;
                let by_products = 1e6 * part.num_flops as f64 / step.ceilings.flops_per_s;
                let difference = part.least_us - by_memory.max(by_products);
                assert!(difference.abs() < 1e-6 * part.least_us, "{shown:?}");
                let is_by_memory = by_memory >= by_products;
                assert_eq!(part.bound == "memory", is_by_memory, "{shown:?}");
                let is_tried = quantize.is_none() && PRODUCTS.contains(&part.name);
                assert_eq!(part.trial.is_some(), is_tried, "{shown:?}");
                if let Some(trial) = part.trial {
                    assert!(trial.us > 0.0 && trial.number <= trial.num_suggested);
                }
            }
            assert!(step.best_us() <= step.sum(|part| part.us));
        }
    }
}

/// A line for each part and one for the step, and the step's own time below the table.
#[test]
fn parts_are_told() {
    let Some(step) = measured("3x40", |_| ()) else {
        return;
    };
    let lines = step.json();
    assert_eq!(lines.len(), step.parts.len() + 1);
    let start = r#"{"what":"part","phase":"3x40","part":"carry","rows":4,"us":"#;
    assert!(lines[0].starts_with(start), "{}", lines[0]);
    let start = r#"{"what":"parts","phase":"3x40","step_us":2000.000,"sum_us":"#;
    assert!(lines.last().unwrap().starts_with(start), "{lines:?}");
    let table = step.to_string();
    let last = table.lines().last().unwrap();
    assert!(
        last.starts_with("measured step") && last.contains(" 2000.0 "),
        "{table}"
    );
}

/// On a CPU, and in f32, there is nothing to take apart.
#[test]
fn what_has_no_such_kernels_is_refused() {
    let mut config = ServerConfig::for_model("model");
    let refused = check(&config).unwrap_err().to_string();
    assert!(
        refused.starts_with("--parts: expected --device cuda"),
        "{refused}"
    );
    config.device = config::Device::Cuda;
    let refused = check(&config).unwrap_err().to_string();
    assert!(refused.contains("found f32"), "{refused}");
    assert!(check(&config.on(config::Device::Cuda)).is_ok());
}
