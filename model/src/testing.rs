//! Folders that the unit tests of several modules start from.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::config::LlamaConfig;
use crate::random::{RandomModelSpec, preset, random_model};

/// A config of a few thousand parameters, for the byte tokenizer.
pub(crate) fn tiny_config() -> LlamaConfig {
    LlamaConfig {
        vocab_size: 270,
        hidden_size: 16,
        intermediate_size: 24,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 4,
        max_position_embeddings: 64,
        ..preset("tiny").expect("a preset")
    }
}

/// A random model of `config` with the byte tokenizer.
pub(crate) fn random_folder(config: LlamaConfig) -> TempDir {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let spec = RandomModelSpec {
        config,
        seed: 7,
        tokenizer_from: None,
    };
    random_model(&spec, dir.path()).expect("a random model");
    dir
}

/// The reference material some tests read where it is at hand; they must skip, saying so, where it
/// is not.
#[expect(clippy::disallowed_methods, reason = "tests may read STAR_SHARED_DIR")]
pub(crate) fn shared_dir(name: &str) -> Option<PathBuf> {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    let root = std::env::var("STAR_SHARED_DIR").map_or(default, PathBuf::from);
    let dir = root.join(name);
    if dir.is_dir() {
        return Some(dir);
    }
    eprintln!("SKIPPED: {} is not there", dir.display());
    None
}
