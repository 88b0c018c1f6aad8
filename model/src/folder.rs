//! A checkpoint folder as a whole: the first thing a program opens.

use std::path::{Path, PathBuf};

use crate::config::{GenerationConfig, LlamaConfig};
use crate::config_json;
use crate::error::{ModelError, Result};

/// A folder in Hugging Face layout whose configs have been read and checked; weights and tokenizer
/// are loaded on demand ([`crate::weights::Weights::load`], [`crate::tokenizer::ModelTokenizer`]).
#[derive(Debug, Clone)]
pub struct ModelFolder {
    pub path: PathBuf,
    pub config: LlamaConfig,
    pub generation: GenerationConfig,
    /// Keys of `config.json` that nothing here knows. `LlamaForCausalLM` of transformers does not
    /// read them either, so they change no logits there; worth a line in the log.
    pub unknown_config_keys: Vec<String>,
}

impl ModelFolder {
    pub fn open(path: &Path) -> Result<Self> {
        if !path.is_dir() {
            let what = if path.exists() {
                "is not a folder"
            } else {
                "does not exist"
            };
            let message = format!(
                "{what}; expected a model folder with config.json, tokenizer.json and model.safetensors"
            );
            return Err(ModelError::folder(path, message));
        }
        let config = LlamaConfig::load(path)?;
        let generation = GenerationConfig::load(path, &config)?;
        let text = config_json::read_text(path, "config.json")?;
        let unknown_config_keys = config_json::unknown_keys(&text, &path.join("config.json"))?;
        Ok(Self {
            unknown_config_keys,
            path: path.to_path_buf(),
            config,
            generation,
        })
    }
}
