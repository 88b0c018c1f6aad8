use candle_core::DType;

use super::*;
use crate::testing::{random_folder, tiny_config};

fn llama() -> Llama {
    let dir = random_folder(tiny_config());
    let config = LlamaConfig::load(dir.path()).unwrap();
    let weights = Weights::load(dir.path(), &config, DType::F32).unwrap();
    Llama::new(config, weights).unwrap()
}

fn batch() -> PackedBatch {
    PackedBatch {
        token_ids: vec![7, 8, 9],
        positions: vec![0, 1, 2],
        slot_mapping: vec![0, 1, 2],
        sequences: vec![BatchSequence {
            query_len: 3,
            context_len: 3,
            block_table: vec![0],
        }],
        logits_rows: vec![2],
    }
}

/// Weights of another config, or of another element type, make no model.
#[test]
fn weights_must_be_the_configs() {
    let dir = random_folder(tiny_config());
    let config = LlamaConfig::load(dir.path()).unwrap();
    let weights = Weights::load(dir.path(), &config, DType::F32).unwrap();
    let other = LlamaConfig {
        intermediate_size: 25,
        ..config.clone()
    };
    let error = Llama::new(other, weights.clone()).unwrap_err().to_string();
    assert!(
        error.contains("model.layers.0.mlp.gate_proj.weight: expected [25, 16]"),
        "{error}"
    );
    let other = LlamaConfig {
        num_hidden_layers: 3,
        ..config.clone()
    };
    let error = Llama::new(other, weights.clone()).unwrap_err().to_string();
    assert!(error.contains("expected 29 tensors, found 20"), "{error}");
    let norm = weights.norm.to_dtype(DType::BF16).unwrap();
    let error = Llama::new(config, Weights { norm, ..weights })
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("model.norm.weight: expected [16], f32"),
        "{error}"
    );
}

/// A batch that contradicts itself or the model is an error that names the field, never a panic.
#[test]
fn broken_batches_are_named() {
    let llama = llama();
    let mut kv = llama.new_kv_cache(2, 4).unwrap();
    let mut check = |change: &dyn Fn(&mut PackedBatch), expected: &str| {
        let mut batch = batch();
        change(&mut batch);
        let message = llama.forward(&batch, &mut kv).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    };
    check(
        &|b| b.token_ids.clear(),
        "batch: token_ids: expected at least one, found none",
    );
    check(
        &|b| b.token_ids[1] = 270,
        "batch: token_ids: expected values below 270, found 270",
    );
    check(
        &|b| b.positions[2] = 64,
        "batch: positions: expected values below 64, found 64",
    );
    check(
        &|b| b.positions.push(3),
        "batch: positions: expected 3, one per token, found 4",
    );
    check(
        &|b| b.slot_mapping.truncate(1),
        "batch: slot_mapping: expected 3, one per token, found 1",
    );
    check(
        &|b| b.logits_rows[0] = 3,
        "batch: logits_rows: expected values below 3, found 3",
    );
    check(
        &|b| b.sequences[0].query_len = 2,
        "query_lens that add up to 3, found 2",
    );
    // What the kernels check.
    check(&|b| b.slot_mapping[0] = 8, "");
    check(&|b| b.sequences[0].block_table[0] = 2, "");
    check(&|b| b.sequences[0].context_len = 5, "");
    check(&|b| b.sequences[0].context_len = 2, "");
    assert!(llama.forward(&batch(), &mut kv).is_ok());
}

/// Running the same weights twice gives the same bits.
#[test]
fn runs_repeat_to_the_bit() {
    let run = || {
        let llama = llama();
        let mut kv = llama.new_kv_cache(1, 4).unwrap();
        llama
            .forward(&batch(), &mut kv)
            .unwrap()
            .to_vec2::<f32>()
            .unwrap()
    };
    assert_eq!(run(), run());
}

/// Llama-3.2's frequencies: short waves kept, long ones divided by the factor, those between in
/// between and falling (values of transformers' `_compute_llama3_parameters`).
#[test]
fn llama3_frequencies() {
    let config = crate::random::preset("3b").unwrap();
    let plain = inverse_frequencies(&LlamaConfig {
        rope_scaling: None,
        ..config.clone()
    });
    let scaled = inverse_frequencies(&config);
    assert_eq!(scaled.len(), 64);
    for (i, (&scaled, &plain)) in scaled.iter().zip(&plain).enumerate() {
        let wave_length = 2.0 * std::f32::consts::PI / plain;
        if wave_length < 2048.0 {
            assert_eq!(scaled.to_bits(), plain.to_bits(), "{i}");
        } else if wave_length > 8192.0 {
            assert!((scaled - plain / 32.0).abs() <= 1e-6 * plain, "{i}");
        } else {
            assert!(scaled < plain && scaled > plain / 32.0, "{i}");
        }
    }
    assert!(scaled.windows(2).all(|pair| pair[1] < pair[0]));
}
