//! Tiny models, examples and folders for the tests of this crate.

use std::net::TcpListener;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use candle_core::Tensor;
use model::config::{Llama3RopeScaling, LlamaConfig};
use model::dtype::StoredDtype;
use model::weights::Weights;

use crate::config::{Checkpointing, MomentsDtype, OptimizerConfig};
use crate::dataset::Examples;
use crate::forward::{Network, NetworkOptions, tensors_of};
use crate::init::random_weights;
use crate::rng::{CounterRng, Stream};
use crate::schedule::{Schedule, ScheduleKind};

/// Which output head a tiny model has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Head {
    Tied,
    Untied,
}

/// Two layers and grouped heads; the tied one has llama3 rope scaling, the other none.
pub(crate) fn tiny_config(head: Head) -> LlamaConfig {
    let tied = head == Head::Tied;
    LlamaConfig {
        vocab_size: 19,
        hidden_size: 12,
        intermediate_size: 20,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 4,
        rms_norm_eps: 1e-5,
        rope_theta: 10_000.0,
        rope_scaling: tied.then_some(Llama3RopeScaling {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 16,
        }),
        tie_word_embeddings: tied,
        max_position_embeddings: 64,
        dtype: StoredDtype::F32,
        bos_token_id: Some(0),
        eos_token_ids: vec![1],
        pad_token_id: None,
    }
}

/// A tiny network whose weights are large enough for every gradient to be well above rounding.
pub(crate) fn tiny_network(head: Head, checkpointing: Checkpointing) -> Network {
    tiny_network_with(
        head,
        NetworkOptions {
            checkpointing,
            ..NetworkOptions::default()
        },
    )
}

/// As [`tiny_network`], trained in another way.
pub(crate) fn tiny_network_with(head: Head, options: NetworkOptions) -> Network {
    let config = tiny_config(head);
    let tensors = tensors_of(&config, &tiny_weights(&config));
    Network::new(config, tensors, options).unwrap()
}

/// As [`tiny_config`], of sizes that the GPU's kernels take.
pub(crate) fn gpu_config(head: Head) -> LlamaConfig {
    LlamaConfig {
        vocab_size: 24,
        hidden_size: 32,
        intermediate_size: 48,
        num_attention_heads: 2,
        num_key_value_heads: 1,
        head_dim: 64,
        ..tiny_config(head)
    }
}

/// Weights that are large enough for every gradient to be well above rounding.
pub(crate) fn tiny_weights(config: &LlamaConfig) -> Weights {
    let weights = random_weights(config, 5).unwrap();
    for (index, (_, weight)) in weights.named().iter().enumerate() {
        let rng = CounterRng::new(
            9,
            Stream::Init {
                parameter: 1000 + index as u32,
            },
        );
        kernels::tensor::f32_update("test", "weight", weight, |values| {
            for (at, value) in values.iter_mut().enumerate() {
                *value += 0.3 * rng.normal(at as u64) as f32;
            }
        })
        .unwrap();
    }
    weights
}

/// AdamW at a constant rate.
pub(crate) fn optimizer_config(lr: f64, moments: MomentsDtype) -> OptimizerConfig {
    OptimizerConfig {
        schedule: Schedule {
            kind: ScheduleKind::Constant,
            peak_lr: lr,
            warmup_steps: 0,
            min_lr_ratio: 0.0,
        },
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-8,
        weight_decay: 0.0,
        max_grad_norm: 1.0,
        moments,
    }
}

/// Examples of these numbers of ids with a prompt of 2, ids drawn from the tiny vocabulary.
pub(crate) fn examples(lengths: &[usize]) -> Examples {
    let mut examples = Examples::default();
    for (index, &length) in lengths.iter().enumerate() {
        let rng = CounterRng::new(index as u64, Stream::Init { parameter: 7 });
        let ids: Vec<u32> = (0..length as u64)
            .map(|at| rng.below(at, 19) as u32)
            .collect();
        examples.push(&ids, 2);
    }
    examples
}

/// Writes a folder with a random tiny model and a trained tokenizer; returns its config.
pub(crate) fn write_model_folder(dir: &Path, dtype: StoredDtype) -> LlamaConfig {
    let config = LlamaConfig {
        head_dim: 8,
        dtype,
        ..tiny_config(Head::Tied)
    };
    write_folder_of(dir, &config)
}

/// As [`write_model_folder`], of sizes that the GPU's kernels take.
pub(crate) fn write_gpu_model_folder(dir: &Path, dtype: StoredDtype) -> LlamaConfig {
    let config = LlamaConfig {
        dtype,
        ..gpu_config(Head::Tied)
    };
    write_folder_of(dir, &config)
}

fn write_folder_of(dir: &Path, heads: &LlamaConfig) -> LlamaConfig {
    let words = [
        "Tom",
        "has",
        "apples",
        "pens",
        "buys",
        "more",
        "and",
        "sells",
        "How many?",
    ];
    let documents: Vec<String> = (0..200)
        .map(|n| {
            format!(
                "Q: {} {} {n} {}\nA: {}",
                words[n % 9],
                words[n % 7],
                words[n % 5],
                n + 1
            )
        })
        .collect();
    let trained = crate::tokenizer_training::train_tokenizer(&documents, 300, dir).unwrap();
    let config = LlamaConfig {
        vocab_size: 304,
        hidden_size: 32,
        intermediate_size: 64,
        max_position_embeddings: 256,
        bos_token_id: Some(trained.special.bos),
        eos_token_ids: vec![trained.special.eos],
        pad_token_id: Some(trained.special.pad),
        ..heads.clone()
    };
    let weights = random_weights(&config, 1).unwrap();
    let beside = tempfile::tempdir().unwrap();
    model::save::save_checkpoint(beside.path(), &config, &weights, None).unwrap();
    for name in ["config.json", "generation_config.json", "model.safetensors"] {
        std::fs::copy(beside.path().join(name), dir.join(name)).unwrap();
    }
    config
}

/// A port that nobody listens at, below those that the system hands out by itself: nothing else here
/// gets it before it is used.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let first = std::process::id().wrapping_mul(64);
    let ports = std::iter::repeat_with(|| first.wrapping_add(NEXT.fetch_add(1, Relaxed)) % 12_000);
    let mut ports = ports.map(|port| 20_000 + port as u16);
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    ports.find(free).unwrap()
}

/// The entry of a gradient where a difference quotient in f32 says most.
pub(crate) fn largest_entry(gradient: &[f32]) -> usize {
    let larger = |best: usize, at: usize| {
        if gradient[at].abs() > gradient[best].abs() {
            at
        } else {
            best
        }
    };
    (0..gradient.len()).reduce(larger).unwrap()
}

/// How the loss moves with one entry of a weight: the central difference over `step` to both sides.
pub(crate) fn difference_quotient(
    (weight, at): (&Tensor, usize),
    step: f32,
    loss: impl Fn() -> f64,
) -> f64 {
    let add = |by: f32| {
        kernels::tensor::f32_update("test", "weight", weight, |values| values[at] += by).unwrap();
    };
    let moved = |by: f32| {
        add(by);
        let value = loss();
        add(-by);
        value
    };
    (moved(step) - moved(-step)) / f64::from(2.0 * step)
}
