//! Our logits against those of transformers (values and the script that made them in `golden/`) and
//! against candle_transformers' Llama, a second and independent twin.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use candle_transformers::models::llama as twin;
use model::config::LlamaConfig;
use model::llama::{BatchSequence, Llama, PackedBatch};
use model::random::{RandomModelSpec, preset, random_model};
use model::weights::Weights;

const BLOCK_SIZE: usize = 4;

struct Golden {
    llama: Llama,
    /// Token ids and logits `[T, V]` of every prompt.
    prompts: Vec<(Vec<u32>, Tensor)>,
}

fn golden_folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name)
}

fn load(dir: &Path) -> Llama {
    let config = LlamaConfig::load(dir).unwrap();
    let weights = Weights::load(dir, &config, DType::F32).unwrap();
    Llama::new(config, weights).unwrap()
}

fn golden(name: &str) -> Golden {
    let dir = golden_folder(name);
    let tensors =
        candle_core::safetensors::load(dir.join("golden.safetensors"), &Device::Cpu).unwrap();
    let prompts = (0..tensors.len() / 2).map(|index| {
        let ids = tensors[&format!("input_ids.{index}")]
            .to_vec1::<i32>()
            .unwrap();
        let ids = ids
            .into_iter()
            .map(|id| u32::try_from(id).unwrap())
            .collect();
        (ids, tensors[&format!("logits.{index}")].clone())
    });
    Golden {
        llama: load(&dir),
        prompts: prompts.collect(),
    }
}

fn max_difference(a: &Tensor, b: &Tensor) -> f32 {
    assert_eq!(a.dims(), b.dims());
    (a - b)
        .unwrap()
        .abs()
        .unwrap()
        .max_all()
        .unwrap()
        .to_scalar::<f32>()
        .unwrap()
}

/// The blocks of one sequence among others: every second one, last first.
fn block_table(num_tokens: usize) -> Vec<u32> {
    let num_blocks = num_tokens.div_ceil(BLOCK_SIZE) as u32;
    (0..num_blocks)
        .map(|index| 2 * (num_blocks - 1 - index))
        .collect()
}

/// One chunk of one sequence, all its logits wanted.
fn chunk(ids: &[u32], start: usize, len: usize) -> PackedBatch {
    let block_table = block_table(ids.len());
    let slot = |position: usize| {
        block_table[position / BLOCK_SIZE] * BLOCK_SIZE as u32 + (position % BLOCK_SIZE) as u32
    };
    PackedBatch {
        token_ids: ids[start..start + len].to_vec(),
        positions: (start as u32..(start + len) as u32).collect(),
        slot_mapping: (start..start + len).map(slot).collect(),
        sequences: vec![BatchSequence {
            query_len: len as u32,
            context_len: (start + len) as u32,
            block_table: block_table.clone(),
        }],
        logits_rows: (0..len as u32).collect(),
    }
}

/// Logits `[T, V]` of one sequence run through the cache in chunks of `chunk_len`.
fn paged(llama: &Llama, ids: &[u32], chunk_len: usize) -> Tensor {
    let num_blocks = 2 * ids.len().div_ceil(BLOCK_SIZE);
    let mut kv = llama.new_kv_cache(num_blocks, BLOCK_SIZE).unwrap();
    let mut rows = Vec::new();
    for start in (0..ids.len()).step_by(chunk_len) {
        let len = chunk_len.min(ids.len() - start);
        rows.push(llama.forward(&chunk(ids, start, len), &mut kv).unwrap());
    }
    Tensor::cat(&rows, 0).unwrap()
}

fn check_against_transformers(name: &str) {
    let Golden { llama, prompts } = golden(name);
    for (ids, expected) in &prompts {
        let dense = max_difference(&llama.forward_dense(ids).unwrap(), expected);
        assert!(
            dense <= 1e-4,
            "{name}, dense, {} tokens: {dense}",
            ids.len()
        );
        for chunk_len in [1, 3, 4, 7, 40] {
            let found = max_difference(&paged(&llama, ids, chunk_len), expected);
            assert!(
                found <= 1e-4,
                "{name}, chunks of {chunk_len}, {} tokens: {found}",
                ids.len()
            );
        }
    }
}

/// Llama 3 rope scaling, tied head, grouped heads.
#[test]
fn llama3_scaling_tied_and_grouped_as_transformers() {
    check_against_transformers("llama3_tied_gqa");
}

/// Untied head, a key head for each query head, bf16 in several files.
#[test]
fn untied_and_ungrouped_as_transformers() {
    check_against_transformers("untied_mha");
}

fn bits(logits: &Tensor) -> Vec<u32> {
    let values: Vec<f32> = logits.flatten_all().unwrap().to_vec1().unwrap();
    values.into_iter().map(f32::to_bits).collect()
}

/// A token's logits are the same to the bit however the sequence is cut into chunks.
#[test]
fn chunks_do_not_change_a_bit() {
    for name in ["llama3_tied_gqa", "untied_mha"] {
        let Golden { llama, prompts } = golden(name);
        let (ids, _) = &prompts[1];
        let whole = bits(&paged(&llama, ids, ids.len()));
        for chunk_len in [1, 3, 4, 7] {
            let same = bits(&paged(&llama, ids, chunk_len)) == whole;
            assert!(same, "{name}, chunks of {chunk_len}");
        }
    }
}

/// Several sequences in one batch, some decoding and some in prefill, have to the bit what they have alone; only
/// the rows asked for come back, in the order asked for.
#[test]
fn sequences_of_a_batch_are_alone() {
    let Golden { llama, prompts } = golden("llama3_tied_gqa");
    let (long, _) = &prompts[1];
    let (first, second) = (&long[..9], &long[20..33]);
    let alone = |ids: &[u32]| {
        paged(&llama, ids, ids.len())
            .narrow(0, ids.len() - 1, 1)
            .unwrap()
    };

    let mut kv = llama.new_kv_cache(16, BLOCK_SIZE).unwrap();
    // The blocks of the second begin at 8, those of the first are 4, 2, 0.
    let shifted = |mut batch: PackedBatch| {
        batch
            .slot_mapping
            .iter_mut()
            .for_each(|slot| *slot += 8 * BLOCK_SIZE as u32);
        batch.sequences[0]
            .block_table
            .iter_mut()
            .for_each(|block| *block += 8);
        batch
    };
    llama.forward(&chunk(first, 0, 8), &mut kv).unwrap();
    llama
        .forward(&shifted(chunk(second, 0, 5)), &mut kv)
        .unwrap();
    let (a, b) = (chunk(first, 8, 1), shifted(chunk(second, 5, 8)));
    let both = PackedBatch {
        token_ids: [a.token_ids, b.token_ids].concat(),
        positions: [a.positions, b.positions].concat(),
        slot_mapping: [a.slot_mapping, b.slot_mapping].concat(),
        sequences: [a.sequences, b.sequences].concat(),
        logits_rows: vec![8, 0],
    };
    let logits = llama.forward(&both, &mut kv).unwrap();
    let expected = Tensor::cat(&[alone(second), alone(first)], 0).unwrap();
    assert!(bits(&logits) == bits(&expected), "{logits} {expected}");
}

/// A prefill chunk whose logits nobody wants gives none, and fills the cache all the same.
#[test]
fn no_rows_give_no_logits() {
    let Golden { llama, prompts } = golden("llama3_tied_gqa");
    let (ids, expected) = &prompts[1];
    let mut kv = llama
        .new_kv_cache(2 * ids.len().div_ceil(BLOCK_SIZE), BLOCK_SIZE)
        .unwrap();
    let head = PackedBatch {
        logits_rows: vec![],
        ..chunk(ids, 0, 39)
    };
    assert_eq!(llama.forward(&head, &mut kv).unwrap().dims(), [0, 96]);
    let last = llama.forward(&chunk(ids, 39, 1), &mut kv).unwrap();
    assert!(max_difference(&last, &expected.narrow(0, 39, 1).unwrap()) <= 1e-4);
}

/// candle_transformers' Llama, reading the same folder with its own code.
fn twin_last_logits(dir: &Path, ids: &[u32]) -> Tensor {
    let text = std::fs::read(dir.join("config.json")).unwrap();
    let config: twin::LlamaConfig = serde_json::from_slice(&text).unwrap();
    let config = config.into_config(false);
    let tensors =
        candle_core::safetensors::load(dir.join("model.safetensors"), &Device::Cpu).unwrap();
    let vb = candle_nn::VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
    let llama = twin::Llama::load(vb, &config).unwrap();
    let mut cache = twin::Cache::new(false, DType::F32, &config, &Device::Cpu).unwrap();
    let ids = Tensor::new(ids, &Device::Cpu)
        .unwrap()
        .unsqueeze(0)
        .unwrap();
    llama.forward(&ids, 0, &mut cache).unwrap()
}

/// Random models of both kinds, written by us, give the same logits through the second twin.
#[test]
fn candle_transformers_agrees() {
    let scaled = LlamaConfig {
        vocab_size: 300,
        hidden_size: 48,
        intermediate_size: 64,
        num_attention_heads: 6,
        head_dim: 8,
        dtype: model::dtype::StoredDtype::F32,
        max_position_embeddings: 128,
        ..preset("llama3-vocab-tiny").unwrap()
    };
    let plain = LlamaConfig {
        rope_scaling: None,
        rope_theta: 10_000.0,
        num_key_value_heads: 6,
        tie_word_embeddings: false,
        ..scaled.clone()
    };
    for config in [scaled, plain] {
        let dir = tempfile::tempdir().unwrap();
        let spec = RandomModelSpec {
            config,
            seed: 11,
            tokenizer_from: None,
        };
        random_model(&spec, dir.path()).unwrap();
        let llama = load(dir.path());
        let ids: Vec<u32> = (0..50).map(|i| (i * 37 + 11) % 300).collect();
        for len in [1, 2, 17, 50] {
            let expected = twin_last_logits(dir.path(), &ids[..len]);
            let found = paged(&llama, &ids[..len], 8).narrow(0, len - 1, 1).unwrap();
            let difference = max_difference(&found, &expected);
            assert!(difference <= 1e-4, "{len} tokens: {difference}");
        }
    }
}
