//! Loss, gradients and a whole loss curve against those of transformers and PyTorch's AdamW (values
//! and the script that made them in `golden/`, the model in `model/tests/golden`).
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use model::config::LlamaConfig;
use model::weights::{Weights, tensor_specs};
use serde::Deserialize;
use trainer::cli::method::MergeArgs;
use trainer::config::{BaseFormat, Checkpointing, Method, MomentsDtype, OptimizerConfig};
use trainer::dataset::Examples;
use trainer::forward::{Goal, Network, NetworkOptions, tensors_of};
use trainer::gradients::Gradients;
use trainer::lora::merge::merge;
use trainer::lora::{LoraConfig, LoraTarget};
use trainer::optimizer::Optimizer;
use trainer::pack::pack;
use trainer::schedule::{Schedule, ScheduleKind};
use trainer::train::engine::Update;

/// `golden/batches.json`.
#[derive(Deserialize)]
struct Golden {
    batches: Vec<Vec<GoldenExample>>,
    losses: Vec<f64>,
    norms: Vec<f64>,
    last: f64,
}

#[derive(Deserialize)]
struct GoldenExample {
    ids: Vec<u32>,
    label_start: usize,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn golden() -> Golden {
    let bytes = std::fs::read(folder().join("batches.json")).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

fn golden_gradients() -> HashMap<String, Tensor> {
    let path = folder().join("gradients.safetensors");
    candle_core::safetensors::load(path, &Device::Cpu).unwrap()
}

fn flat(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

fn base() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests/golden/llama3_tied_gqa")
}

fn network(method: Method, checkpointing: Checkpointing) -> Network {
    let config = LlamaConfig::load(&base()).unwrap();
    let weights = Weights::load(&base(), &config, DType::F32).unwrap();
    let options = NetworkOptions {
        method,
        checkpointing,
        ..NetworkOptions::default()
    };
    Network::new(config.clone(), tensors_of(&config, &weights), options).unwrap()
}

/// Adds the gradient of the batch's mean loss to `gradients` and returns that loss.
fn loss_and_gradients(
    network: &Network,
    batch: &[GoldenExample],
    max_tokens: usize,
    gradients: &mut Gradients,
) -> f64 {
    let mut examples = Examples::default();
    for example in batch {
        examples.push(&example.ids, example.label_start);
    }
    let all: Vec<u32> = (0..examples.len() as u32).collect();
    let micro_batches = pack(&all, &examples, max_tokens);
    let num_labels: usize = examples.iter().map(|example| example.num_labels()).sum();
    let goal = Goal {
        grad_scale: 1.0 / num_labels as f32,
        dropout: None,
    };
    let sums = micro_batches
        .iter()
        .map(|it| network.forward_backward(it, goal, gradients).unwrap());
    sums.sum::<f64>() / num_labels as f64
}

/// Within 1e-5 of the parameter's largest gradient.
fn check_gradient(name: &str, found: &[f32], expected: &[f32]) {
    assert_eq!(expected.len(), found.len());
    let largest = expected.iter().fold(0f32, |max, it| max.max(it.abs()));
    assert!(largest > 1e-3, "{name}: {largest}");
    let pairs = expected.iter().zip(found);
    let worst = pairs.fold(0f32, |max, (a, b)| max.max((a - b).abs()));
    eprintln!("{name}: largest {largest:.3e}, worst {worst:.1e}");
    assert!(worst <= 1e-5 * largest, "{name}: {worst}");
}

/// Mean loss and every gradient of a batch of uneven lengths, packed into one micro-batch or each
/// example in its own, with activations kept or computed again. The largest gradients of a parameter are
/// 0.03 to 0.44; all agree within 1e-5 of the largest of their parameter (found: 2e-6).
#[test]
fn loss_and_gradients_as_transformers() {
    let (golden, expected) = (golden(), golden_gradients());
    for (checkpointing, max_tokens) in [
        (Checkpointing::Off, 2048),
        (Checkpointing::Off, 1),
        (Checkpointing::On, 2048),
    ] {
        let network = network(Method::Full, checkpointing);
        let mut gradients = Gradients::zeros(&network.parameters);
        let batch = &golden.batches[0];
        let loss = loss_and_gradients(&network, batch, max_tokens, &mut gradients);
        let reference = f64::from(flat(&expected["loss"])[0]);
        assert!((loss - reference).abs() <= 1e-5, "{loss} {reference}");

        let specs = tensor_specs(&network.config);
        assert_eq!(specs.len(), expected.len() - 1);
        for (spec, found) in specs.iter().zip(gradients.in_order()) {
            check_gradient(&spec.name, found, &flat(&expected[&spec.name]));
        }
    }
}

/// Twenty steps of AdamW with weight decay, clipping and a falling rate: every loss, every norm and
/// the loss afterwards (found: within 1e-6 of the losses).
#[test]
fn loss_curve_as_transformers() {
    let golden = golden();
    let network = network(Method::Full, Checkpointing::Off);
    let config = OptimizerConfig {
        schedule: Schedule {
            kind: ScheduleKind::Linear,
            peak_lr: 1e-3,
            warmup_steps: 0,
            min_lr_ratio: 0.0,
        },
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-8,
        weight_decay: 0.1,
        max_grad_norm: 1.0,
        moments: MomentsDtype::F32,
    };
    let mut optimizer = Optimizer::new(config.clone(), 0, &network.parameters);
    let mut gradients = Gradients::zeros(&network.parameters);
    let num_steps = golden.losses.len();
    assert_eq!(num_steps, 20);
    let batches = golden.batches.iter().cycle();
    for (step, batch) in batches.enumerate().take(num_steps) {
        gradients.clear();
        let loss = loss_and_gradients(&network, batch, 64, &mut gradients);
        let norm = gradients.global_norm();
        let (expected, expected_norm) = (golden.losses[step], golden.norms[step]);
        eprintln!(
            "step {step}: loss {loss:.6} ({:+.1e}), norm {norm:.5} ({:+.1e})",
            loss - expected,
            norm - expected_norm
        );
        assert!(
            (loss - expected).abs() <= 1e-4,
            "step {step}: {loss} {expected}"
        );
        let limit = 1e-4 * expected_norm;
        assert!(
            (norm - expected_norm).abs() <= limit,
            "step {step}: {norm} {expected_norm}"
        );
        let progress = step as f64 / num_steps as f64;
        let lr = config.schedule.lr(step as u64, progress);
        let update = Update {
            number: step as u64 + 1,
            lr,
            grad_norm: norm,
        };
        optimizer
            .step(&network.parameters, &gradients, &update)
            .unwrap();
    }
    gradients.clear();
    let last = loss_and_gradients(&network, &golden.batches[0], 64, &mut gradients);
    assert!((last - golden.last).abs() <= 1e-4, "{last} {}", golden.last);
}

/// The adapters that PEFT has written, and what it computes with them: which projections have one.
const ADAPTERS: [(&str, &[LoraTarget]); 2] = [
    ("lora_qv", &[LoraTarget::QProj, LoraTarget::VProj]),
    ("lora_all", &LoraTarget::ALL),
];

/// Loss and gradients of PEFT's adapters, and the loss without them.
#[test]
fn adapters_as_peft() {
    let golden = golden();
    for (name, targets) in ADAPTERS {
        let lora = LoraConfig {
            rank: 4,
            alpha: 8.0,
            dropout: 0.0,
            targets: targets.to_vec(),
            base: BaseFormat::F32,
        };
        let network = network(Method::Lora(lora), Checkpointing::Off);
        let load = |file: &str| {
            candle_core::safetensors::load(folder().join(name).join(file), &Device::Cpu).unwrap()
        };
        let (adapter, expected) = (
            load("adapter_model.safetensors"),
            load("golden.safetensors"),
        );
        let mut gradients = Gradients::zeros(&network.parameters);
        let mut loss = || {
            gradients.clear();
            loss_and_gradients(&network, &golden.batches[0], 2048, &mut gradients)
        };
        let number = |key: &str| f64::from(flat(&expected[key])[0]);
        assert!((loss() - number("loss.base")).abs() <= 1e-5);
        assert_eq!(adapter.len(), network.parameters.len());
        for parameter in &network.parameters {
            let stored = flat(&adapter[&parameter.name]);
            kernels::tensor::f32_update("test", "adapter", &parameter.values, |values| {
                values.copy_from_slice(&stored);
            })
            .unwrap();
        }
        assert!((loss() - number("loss.adapter")).abs() <= 1e-5);
        for (parameter, found) in network.parameters.iter().zip(gradients.in_order()) {
            let key = format!("grad.{}", parameter.name);
            check_gradient(&key, found, &flat(&expected[&key]));
        }
    }
}

/// `trainer merge` of PEFT's adapter folders gives the weights that PEFT merges.
#[test]
fn merged_as_peft() {
    for (name, _) in ADAPTERS {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("merged");
        let args = MergeArgs {
            model: base(),
            adapter: folder().join(name),
            out: out.clone(),
            save_dtype: None,
        };
        merge(&args).unwrap();
        let load = |path: PathBuf| candle_core::safetensors::load(path, &Device::Cpu).unwrap();
        let merged = load(out.join("model.safetensors"));
        let expected = load(folder().join(name).join("golden.safetensors"));
        let mut num_merged = 0;
        for (key, expected) in &expected {
            let Some(weight) = key.strip_prefix("merged.") else {
                continue;
            };
            num_merged += 1;
            let pairs = flat(expected).into_iter().zip(flat(&merged[weight]));
            let worst = pairs.fold(0f32, |max, (a, b)| max.max((a - b).abs()));
            assert!(worst <= 1e-6, "{weight}: {worst}");
        }
        assert!(num_merged >= 4, "{num_merged}");
    }
}
