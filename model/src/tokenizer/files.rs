//! What a folder says about its tokenizer: the file itself, and from the configs around it which
//! tokens begin and end a text.

use std::path::Path;

use serde_json::Value as Json;
use tokenizers::Tokenizer;

use crate::config::{GenerationConfig, LlamaConfig};
use crate::error::{ModelError, Result};

/// Loads `dir/tokenizer.json`, set to read special tokens in a text as plain text, with its sha256.
pub(crate) fn read_tokenizer(dir: &Path) -> Result<(Tokenizer, String)> {
    let path = dir.join("tokenizer.json");
    let bytes = std::fs::read(&path).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => ModelError::folder(
            dir,
            "has no tokenizer.json (sentencepiece and tiktoken files are not read)",
        ),
        _ => ModelError::Io {
            path,
            action: "read",
            source,
        },
    })?;
    let mut tokenizer = Tokenizer::from_bytes(&bytes)
        .map_err(|error| tokenizer_error(dir, format!("does not load: {error}")))?;
    tokenizer
        .with_truncation(None)
        .map_err(|error| tokenizer_error(dir, error.to_string()))?
        .with_padding(None);
    tokenizer.set_encode_special_tokens(true);
    Ok((tokenizer, crate::manifest::sha256_hex(&bytes)))
}

/// One more than the highest id; ids may have holes.
pub(crate) fn num_ids(tokenizer: &Tokenizer) -> usize {
    let vocabulary = tokenizer.get_vocab(true);
    vocabulary.values().max().map_or(0, |&id| id as usize + 1)
}

pub(super) fn tokenizer_error(dir: &Path, message: String) -> ModelError {
    ModelError::Tokenizer {
        path: dir.join("tokenizer.json"),
        message,
    }
}

pub(super) fn read_config(dir: &Path) -> Result<Option<(LlamaConfig, GenerationConfig)>> {
    if !dir.join("config.json").exists() {
        return Ok(None);
    }
    let config = LlamaConfig::load(dir)?;
    let generation = GenerationConfig::load(dir, &config)?;
    Ok(Some((config, generation)))
}

/// `null` where the file does not exist.
pub(super) fn read_json(path: &Path) -> Result<Json> {
    match std::fs::read_to_string(path) {
        Ok(text) => serde_json::from_str(&text).map_err(|source| ModelError::Json {
            path: path.to_path_buf(),
            source,
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Json::Null),
        Err(source) => Err(ModelError::Io {
            path: path.to_path_buf(),
            action: "read",
            source,
        }),
    }
}

/// A token written as a string or as an object with `content`.
pub(super) fn named_token(object: &Json, key: &str) -> Option<String> {
    let token = &object[key];
    token
        .as_str()
        .or_else(|| token["content"].as_str())
        .map(str::to_owned)
}

/// What the post-processor puts before a text. What it may put after (some add EOS) is left out: a
/// prompt is to be continued.
pub(super) fn prefix_ids(tokenizer: &Tokenizer) -> tokenizers::Result<Vec<u32>> {
    let plain = tokenizer.encode_fast("a", false)?;
    let processed = tokenizer.encode_fast("a", true)?;
    let (plain, processed) = (plain.get_ids(), processed.get_ids());
    if plain.is_empty() {
        return Ok(Vec::new());
    }
    let start = processed
        .windows(plain.len())
        .position(|window| window == plain);
    Ok(processed[..start.unwrap_or(0)].to_vec())
}

/// What ends a text and what ends a turn. An id generation does not stop at would teach the model
/// to run on, so `stops` (where there are any) decide.
pub(super) fn end_ids(
    tokenizer: &Tokenizer,
    eos: Option<u32>,
    stops: &[u32],
) -> (Option<u32>, Option<u32>) {
    let stops_at = |id: &u32| stops.is_empty() || stops.contains(id);
    let text_end = eos.filter(stops_at).or(stops.first().copied());
    let turn_end = tokenizer.token_to_id("<|eot_id|>").filter(stops_at);
    (text_end, turn_end.or(text_end))
}
