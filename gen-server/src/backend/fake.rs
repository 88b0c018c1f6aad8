//! A backend without a model, for tests of everything around it: the fake runner, a byte tokenizer,
//! and a loader whose checkpoints are folders with a file named `version`.

use std::{fs, path::Path, sync::Arc, sync::mpsc::Receiver};

use model::{
    config::LlamaConfig,
    dtype::StoredDtype,
    random::{RandomModelSpec, random_model},
    tokenizer::ModelTokenizer,
};

use super::{Backend, LoadError, Loaded, Loader, ModelInfo};
use crate::{
    engine::{
        fake::{self, FakeRunner},
        runner::StagedWeights,
        scheduler::Limits,
    },
    request::WeightsVersion,
};

/// A token that the fake model never makes, so that answers have the length that was asked for.
pub(crate) const EOS: u32 = 1;

const MAX_CONTEXT_TOKENS: usize = 256;
/// Where a test lets the engine make its steps: long enough that a request outlasts what the test does
/// beside it.
const MAX_GATED_CONTEXT_TOKENS: usize = 4096;

/// The smallest Llama there is, with a tokenizer of one token per byte.
pub(crate) fn tiny_config() -> LlamaConfig {
    LlamaConfig {
        vocab_size: 300,
        hidden_size: 32,
        intermediate_size: 48,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 8,
        rms_norm_eps: 1e-5,
        rope_theta: 10_000.0,
        rope_scaling: None,
        tie_word_embeddings: true,
        max_position_embeddings: 256,
        dtype: StoredDtype::F32,
        bos_token_id: Some(0),
        eos_token_ids: vec![EOS],
        pad_token_id: None,
    }
}

/// Writes a random model of the tiny architecture.
pub(crate) fn write_tiny_model(dir: &Path, seed: u64) {
    let spec = RandomModelSpec {
        config: tiny_config(),
        seed,
        tokenizer_from: None,
    };
    random_model(&spec, dir).unwrap();
}

/// See the file's head.
pub(crate) fn fake_backend(limits: Limits, gate: Option<Receiver<()>>) -> Backend {
    let dir = tempfile::tempdir().unwrap();
    write_tiny_model(dir.path(), 1);
    let mut runner = FakeRunner::new(limits.num_blocks, limits.block_size, 1);
    let max_context_tokens = if gate.is_some() {
        MAX_GATED_CONTEXT_TOKENS
    } else {
        MAX_CONTEXT_TOKENS
    };
    runner.gate = gate;
    Backend {
        runner: Box::new(runner),
        loader: Arc::new(FakeLoader),
        tokenizer: ModelTokenizer::load(dir.path()).unwrap(),
        model: ModelInfo {
            architecture: "Fake".to_owned(),
            num_parameters: 0,
            dtype: "none".to_owned(),
            vocab_size: fake::VOCAB_SIZE,
            eos_token_ids: vec![],
        },
        limits,
        max_context_tokens,
        weights: WeightsVersion {
            number: 1,
            digest: "1".into(),
            checkpoint: "base".into(),
        },
    }
}

#[derive(Debug)]
struct FakeLoader;

impl Loader for FakeLoader {
    fn load(&self, folder: &Path, _expected: Option<&str>) -> Result<Loaded, LoadError> {
        let file = folder.join("version");
        let text = fs::read_to_string(&file)
            .map_err(|error| LoadError::Unusable(format!("{}: {error}", file.display())))?;
        let version: u64 = text.trim().parse().map_err(|_| {
            LoadError::OtherArchitecture(format!("version: expected a number, found {text}"))
        })?;
        let weights = StagedWeights(Box::new(version));
        Ok(Loaded {
            weights,
            digest: version.to_string(),
        })
    }
}
