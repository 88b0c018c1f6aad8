//! Model folders with random weights, in the same layout as real ones: for tests, benchmarks and
//! trying the tools without a download. The same spec gives the same bytes on every machine.

use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde_json::json;

use crate::config::LlamaConfig;
use crate::error::{ModelError, Result};
use crate::save;
use crate::weights::EMBED;

mod byte_tokenizer;
mod presets;

pub use presets::{PRESETS, preset};

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
/// parts of one random word, centred and scaled: no `ln` and no `cos`, so it is the same everywhere,
/// and within 3.5 deviations.
fn normal(stream: u64, index: u64) -> f32 {
    let word = mix(stream.wrapping_add(index.wrapping_mul(0x9E37_79B9_7F4A_7C15)));
    let sum: u64 = (0..4).map(|part| (word >> (16 * part)) & 0xFFFF).sum();
    (sum as f32 - NORMAL_MEAN) / NORMAL_DEVIATION
}

/// Of the sum of four whole numbers from 0 to 2^16 - 1: 4 (2^16 - 1) / 2 and sqrt(4 (2^32 - 1) / 12).
const NORMAL_MEAN: f32 = 131_070.0;
const NORMAL_DEVIATION: f32 = 37_837.227;

#[cfg(test)]
mod tests;
