//! What a checkpoint's `config.json` and `generation_config.json` say, checked: an invalid
//! [`LlamaConfig`] cannot come out of [`LlamaConfig::load`]. How the JSON is read is in
//! `config_json`.

use std::path::Path;

use crate::config_json;
use crate::dtype::StoredDtype;
use crate::error::{ModelError, Result};

/// The architecture of a Llama checkpoint. Field names are those of Hugging Face's `config.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct LlamaConfig {
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub num_key_value_heads: usize,
    pub head_dim: usize,
    pub rms_norm_eps: f64,
    pub rope_theta: f64,
    pub rope_scaling: Option<Llama3RopeScaling>,
    /// The output head is the embedding matrix.
    pub tie_word_embeddings: bool,
    /// Longest sequence in tokens, prompt and answer together.
    pub max_position_embeddings: usize,
    /// Element type the checkpoint's files hold.
    pub dtype: StoredDtype,
    pub bos_token_id: Option<u32>,
    /// Of `config.json` alone; [`GenerationConfig`] has the merged list to stop at.
    pub eos_token_ids: Vec<u32>,
    pub pad_token_id: Option<u32>,
}

/// Llama 3's frequency scaling (`rope_type: llama3`): wave lengths longer than
/// `original_max_position_embeddings / low_freq_factor` are stretched by `factor`, those shorter
/// than `.. / high_freq_factor` are kept, those between are blended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Llama3RopeScaling {
    pub factor: f64,
    pub low_freq_factor: f64,
    pub high_freq_factor: f64,
    pub original_max_position_embeddings: usize,
}

impl LlamaConfig {
    /// Reads and checks `dir/config.json`.
    pub fn load(dir: &Path) -> Result<Self> {
        let path = dir.join("config.json");
        let text = config_json::read_text(dir, "config.json")?;
        Self::parse(&text, &path)
    }

    /// Parses and checks the text of a `config.json`; `path` is named in errors.
    pub fn parse(text: &str, path: &Path) -> Result<Self> {
        let config = config_json::parse_config(text, path)?;
        config.check(path)?;
        Ok(config)
    }

    /// As the text of a `config.json` that transformers (4 and 5) and this crate load.
    pub fn to_json(&self) -> serde_json::Value {
        config_json::config_to_json(self)
    }

    /// Refuses sizes that contradict each other; `path` is named in errors.
    pub fn check(&self, path: &Path) -> Result<()> {
        let wrong = |key: &str, expected: String, found: String| {
            Err(ModelError::value(path, key, expected, found))
        };
        for (key, value) in [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", self.num_key_value_heads),
            ("head_dim", self.head_dim),
            ("max_position_embeddings", self.max_position_embeddings),
        ] {
            // 2^31: ids, positions and slots are u32; anything near it is a mistyped file.
            if value == 0 || value >= 1 << 31 {
                return wrong(
                    key,
                    "a whole number from 1 to 2^31 - 1".into(),
                    value.to_string(),
                );
            }
        }
        if !self
            .num_attention_heads
            .is_multiple_of(self.num_key_value_heads)
        {
            return wrong(
                "num_key_value_heads",
                format!(
                    "a divisor of num_attention_heads ({})",
                    self.num_attention_heads
                ),
                self.num_key_value_heads.to_string(),
            );
        }
        if !self.head_dim.is_multiple_of(2) {
            return wrong(
                "head_dim",
                "an even number".into(),
                self.head_dim.to_string(),
            );
        }
        for (key, value) in [
            ("rms_norm_eps", self.rms_norm_eps),
            ("rope_theta", self.rope_theta),
        ] {
            if !(value.is_finite() && value > 0.0) {
                return wrong(key, "a number above 0".into(), value.to_string());
            }
        }
        for (key, id) in [
            ("bos_token_id", self.bos_token_id),
            ("pad_token_id", self.pad_token_id),
        ]
        .into_iter()
        .chain(
            self.eos_token_ids
                .iter()
                .map(|&id| ("eos_token_id", Some(id))),
        ) {
            if let Some(id) = id.filter(|&id| id as usize >= self.vocab_size) {
                let expected = format!("an id below vocab_size ({})", self.vocab_size);
                return wrong(key, expected, id.to_string());
            }
        }
        self.rope_scaling
            .map_or(Ok(()), |scaling| scaling.check(path))
    }

    /// Width of all query heads together.
    pub fn query_size(&self) -> usize {
        self.num_attention_heads * self.head_dim
    }

    /// Width of all key (or value) heads together.
    pub fn kv_size(&self) -> usize {
        self.num_key_value_heads * self.head_dim
    }

    /// Count of weights, a tied head counted once.
    pub fn num_parameters(&self) -> usize {
        crate::weights::tensor_specs(self)
            .iter()
            .map(crate::weights::TensorSpec::num_elements)
            .sum()
    }

    /// Bytes of keys and values one token takes over all layers, at `element_bytes` a value.
    pub fn kv_bytes_per_token(&self, element_bytes: usize) -> usize {
        2 * self.num_hidden_layers * self.kv_size() * element_bytes
    }

    /// The first field in which `self` and `other` differ as architectures, as
    /// `(key, self's value, other's value)`: element type and special ids may differ.
    pub fn architecture_difference(&self, other: &Self) -> Option<(&'static str, String, String)> {
        let fields = |c: &Self| {
            [
                ("vocab_size", c.vocab_size.to_string()),
                ("hidden_size", c.hidden_size.to_string()),
                ("intermediate_size", c.intermediate_size.to_string()),
                ("num_hidden_layers", c.num_hidden_layers.to_string()),
                ("num_attention_heads", c.num_attention_heads.to_string()),
                ("num_key_value_heads", c.num_key_value_heads.to_string()),
                ("head_dim", c.head_dim.to_string()),
                ("rms_norm_eps", c.rms_norm_eps.to_string()),
                ("rope_theta", c.rope_theta.to_string()),
                ("rope_scaling", format!("{:?}", c.rope_scaling)),
                ("tie_word_embeddings", c.tie_word_embeddings.to_string()),
                (
                    "max_position_embeddings",
                    c.max_position_embeddings.to_string(),
                ),
            ]
        };
        fields(self)
            .into_iter()
            .zip(fields(other))
            .find(|((_, ours), (_, theirs))| ours != theirs)
            .map(|((key, ours), (_, theirs))| (key, ours, theirs))
    }
}

impl Llama3RopeScaling {
    fn check(self, path: &Path) -> Result<()> {
        for (key, value) in [
            ("factor", self.factor),
            ("low_freq_factor", self.low_freq_factor),
            ("high_freq_factor", self.high_freq_factor),
            (
                "original_max_position_embeddings",
                self.original_max_position_embeddings as f64,
            ),
        ] {
            if !(value.is_finite() && value > 0.0) {
                let key = format!("rope_scaling.{key}");
                return Err(ModelError::value(
                    path,
                    key,
                    "a number above 0",
                    value.to_string(),
                ));
            }
        }
        if self.high_freq_factor <= self.low_freq_factor {
            return Err(ModelError::value(
                path,
                "rope_scaling.high_freq_factor",
                format!("more than low_freq_factor ({})", self.low_freq_factor),
                self.high_freq_factor.to_string(),
            ));
        }
        Ok(())
    }
}

/// Where generation ends, from `generation_config.json` and `config.json`. Its sampling defaults
/// are deliberately not taken over: greedy or sampling is the request's choice, never a file's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GenerationConfig {
    /// The ids of both files, each once: those of `generation_config.json` first.
    pub eos_token_ids: Vec<u32>,
}

impl GenerationConfig {
    /// Reads `dir/generation_config.json` where it exists and merges `config`'s EOS ids.
    pub fn load(dir: &Path, config: &LlamaConfig) -> Result<Self> {
        let path = dir.join("generation_config.json");
        let mut eos_token_ids = if path.exists() {
            let text = config_json::read_text(dir, "generation_config.json")?;
            config_json::parse_generation_eos(&text, &path, config.vocab_size)?
        } else {
            Vec::new()
        };
        for &id in &config.eos_token_ids {
            if !eos_token_ids.contains(&id) {
                eos_token_ids.push(id);
            }
        }
        Ok(Self { eos_token_ids })
    }
}

#[cfg(test)]
mod tests;
