//! Model folders with random weights, in the same layout as real ones: for tests, benchmarks and
//! trying the tools without a download. The same spec gives the same bytes on every machine.

use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde_json::json;

use crate::config::{Llama3RopeScaling, LlamaConfig};
use crate::dtype::StoredDtype;
use crate::error::{ModelError, Result};
use crate::save;
use crate::weights::EMBED;

mod byte_tokenizer;

/// What to write.
#[derive(Debug, Clone, PartialEq)]
pub struct RandomModelSpec {
    /// `config.dtype` is the element type of the file.
    pub config: LlamaConfig,
    pub seed: u64,
    /// A folder whose tokenizer files are copied. `None`: a tokenizer with one token for each byte
    /// and Llama 3's special tokens is written, and `config`'s special ids are set to its own.
    pub tokenizer_from: Option<PathBuf>,
}

/// The names [`preset`] knows, with what each is.
pub const PRESETS: [(&str, &str); 5] = [
    ("tiny", "5 M parameters, vocabulary 4,096, f32"),
    ("small", "109 M parameters, vocabulary 4,096, f32"),
    ("1b", "1 B parameters, vocabulary 4,096, bf16"),
    (
        "3b",
        "the shape of Llama-3.2-3B: 3.2 B parameters, vocabulary 128,256, bf16",
    ),
    (
        "llama3-vocab-tiny",
        "8 M parameters, vocabulary 128,256, llama3 rope scaling, bf16",
    ),
];

/// The config of one of [`PRESETS`].
pub fn preset(name: &str) -> Option<LlamaConfig> {
    let base = LlamaConfig {
        vocab_size: 4096,
        hidden_size: 256,
        intermediate_size: 688,
        num_hidden_layers: 6,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 64,
        rms_norm_eps: 1e-5,
        rope_theta: 10_000.0,
        rope_scaling: None,
        tie_word_embeddings: true,
        max_position_embeddings: 2048,
        dtype: StoredDtype::F32,
        bos_token_id: Some(0),
        eos_token_ids: vec![1],
        pad_token_id: Some(3),
    };
    // Special ids, rope and vocabulary of Llama 3.2.
    let llama3 = LlamaConfig {
        vocab_size: 128_256,
        rope_theta: 500_000.0,
        rope_scaling: Some(Llama3RopeScaling {
            factor: 32.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 8192,
        }),
        dtype: StoredDtype::Bf16,
        bos_token_id: Some(128_000),
        eos_token_ids: vec![128_001, 128_008, 128_009],
        pad_token_id: Some(128_004),
        ..base.clone()
    };
    Some(match name {
        "tiny" => base,
        "small" => LlamaConfig {
            hidden_size: 576,
            intermediate_size: 1536,
            num_hidden_layers: 30,
            num_attention_heads: 9,
            num_key_value_heads: 3,
            ..base
        },
        "1b" => LlamaConfig {
            hidden_size: 2048,
            intermediate_size: 8192,
            num_hidden_layers: 16,
            num_attention_heads: 32,
            num_key_value_heads: 8,
            rope_theta: 500_000.0,
            max_position_embeddings: 4096,
            dtype: StoredDtype::Bf16,
            ..base
        },
        "3b" => LlamaConfig {
            hidden_size: 3072,
            intermediate_size: 8192,
            num_hidden_layers: 28,
            num_attention_heads: 24,
            num_key_value_heads: 8,
            head_dim: 128,
            max_position_embeddings: 131_072,
            ..llama3
        },
        "llama3-vocab-tiny" => LlamaConfig {
            hidden_size: 64,
            intermediate_size: 192,
            num_hidden_layers: 2,
            num_attention_heads: 4,
            num_key_value_heads: 2,
            head_dim: 16,
            max_position_embeddings: 8192,
            ..llama3
        },
        _ => return None,
    })
}

/// Writes the folder `dir`, which is made where it does not exist. Holds one tensor in memory.
/// Matrices are normal with deviation 1/sqrt(fan in), the embedding 0.02, norms 1: the layers then
/// dominate the residual stream, so that greedy text varies with its context.
pub fn random_model(spec: &RandomModelSpec, dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir).map_err(ModelError::io(dir, "create"))?;
    let mut config = spec.config.clone();
    match &spec.tokenizer_from {
        Some(source) => copy_tokenizer(source, &config, dir)?,
        None => byte_tokenizer::write(&mut config, dir)?,
    }
    let mut index = 0;
    save::write_checkpoint(dir, &config, None, |tensor, values| {
        index += 1;
        let deviation = match tensor.shape.as_slice() {
            _ if tensor.name == EMBED => 0.02,
            [_, fan_in] => 1.0 / (*fan_in as f32).sqrt(),
            _ => {
                values.resize(tensor.num_elements(), 1.0);
                return Ok(());
            }
        };
        let stream = mix(spec.seed ^ mix(index));
        values.resize(tensor.num_elements(), 0.0);
        // Every value is a function of its place: any split over threads gives the same.
        values
            .par_chunks_mut(1 << 14)
            .enumerate()
            .for_each(|(chunk, values)| {
                for (offset, value) in values.iter_mut().enumerate() {
                    *value = deviation * normal(stream, ((chunk << 14) + offset) as u64);
                }
            });
        Ok(())
    })
}

/// Copies tokenizer files; where they do not say which tokens begin and end a text, adds the
/// `tokenizer_config.json` that does, from `config`'s ids.
fn copy_tokenizer(source: &Path, config: &LlamaConfig, dir: &Path) -> Result<()> {
    let tokenizer = crate::tokenizer::read_tokenizer(source)?.0;
    let num_ids = crate::tokenizer::num_ids(&tokenizer);
    if num_ids > config.vocab_size {
        return Err(ModelError::Tokenizer {
            path: source.join("tokenizer.json"),
            message: format!(
                "expected ids below vocab_size ({}), found {}",
                config.vocab_size,
                num_ids - 1
            ),
        });
    }
    save::copy_companions(source, dir)?;
    let path = dir.join("tokenizer_config.json");
    if path.exists() {
        return Ok(());
    }
    let text = |id: Option<u32>| id.and_then(|id| tokenizer.id_to_token(id));
    let object = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": text(config.bos_token_id),
        "eos_token": text(config.eos_token_ids.first().copied()),
        "pad_token": text(config.pad_token_id),
        "clean_up_tokenization_spaces": false,
    });
    save::write_json(&path, &object)
}

/// splitmix64's finaliser: <https://prng.di.unimi.it/splitmix64.c>.
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// The value at place `index` of a stream of standard normal values. The sum of the four 16-bit
/// parts of one random word, centred and scaled: whole numbers only, so it is the same everywhere
/// (`ln` and `cos` are not), and within 3.5 deviations.
fn normal(stream: u64, index: u64) -> f32 {
    let word = mix(stream.wrapping_add(index.wrapping_mul(0x9E37_79B9_7F4A_7C15)));
    let sum: i64 = (0..4)
        .map(|part| (word >> (16 * part) & 0xFFFF) as i64)
        .sum();
    // Four uniform values of variance (2^32 - 1) / 12 each: deviation sqrt((2^32 - 1) / 3).
    const DEVIATION: f32 = 37_837.23;
    (sum - 131_070) as f32 / DEVIATION
}

#[cfg(test)]
mod tests;
