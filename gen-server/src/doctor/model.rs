//! A small model with random weights through both backends: prefill and decode, kernels, cache and sampling
//! of the GPU against those of the CPU.

use std::{fs, path::Path, sync::Arc};

use model::{
    config::LlamaConfig,
    random::{RandomModelSpec, preset, random_model},
};

use crate::{
    backend::{self, Backend},
    config::{Device, Dtype, GpuConfig, KvCacheSize, Precision, Quantization, ServerConfig},
    engine::{
        batch::{BatchSequence, Drawing, LogitsRow, Purpose, StepBatch},
        runner::{RunnerError, Sampled},
    },
    request::{Sampling, Stopping},
};

const NUM_PROMPT_TOKENS: u32 = 40;
const NUM_DECODES: u32 = 8;
const BLOCK_SIZE: u32 = 32;

/// What the GPU computes in, what that is compared with, and by how much log probabilities may differ.
const PRECISIONS: [(Precision, Precision, f32); 3] = [
    // Only sums are in another order.
    (F32, F32, 1e-4),
    // Both round to bf16, in other places: log probabilities of such a model agree to two digits.
    (BF16, BF16, 0.05),
    // Weights in int8 are wrong by six times as much (see the tests of `model::gpu`).
    (INT8, F32, 0.3),
];
const F32: Precision = Precision::Float(Dtype::F32);
const BF16: Precision = Precision::Float(Dtype::Bf16);
const INT8: Precision = Precision::Quantized(Quantization::Int8);

/// Steps of one sequence on both, in every precision; the GPU gets the CPU's tokens.
pub(super) fn agrees(ordinal: usize, scratch: &Path) -> Result<String, String> {
    let folder = scratch.join(format!("gen-server-doctor-{}", std::process::id()));
    let result = compare_all(ordinal, &folder);
    drop(fs::remove_dir_all(&folder));
    result
}

fn compare_all(ordinal: usize, folder: &Path) -> Result<String, String> {
    write_model(folder)?;
    let mut found = Vec::new();
    for (on_gpu, on_cpu, allowed) in PRECISIONS {
        let name = on_gpu.name();
        let largest = compare((on_gpu, on_cpu), ordinal, folder)
            .map_err(|error| format!("{name}: {error}"))?;
        if largest > allowed {
            return Err(format!(
                "{name}: log probabilities differ by {largest:.1e}, allowed are {allowed:.0e}: the \
                 kernels are wrong on this GPU; run the kernels' tests (cuda/build.sh makes them) and \
                 report it"
            ));
        }
        found.push(format!("{name} {largest:.1e}"));
    }
    Ok(format!(
        "log probabilities of {} steps agree: {}",
        NUM_DECODES + 1,
        found.join(", ")
    ))
}

fn write_model(folder: &Path) -> Result<(), String> {
    let tiny = preset("tiny-704").ok_or("no preset of that name")?;
    let config = LlamaConfig {
        vocab_size: 512,
        num_hidden_layers: 2,
        ..tiny
    };
    let spec = RandomModelSpec {
        config,
        seed: 5,
        tokenizer_from: None,
    };
    random_model(&spec, folder).map_err(|error| error.to_string())
}

/// The largest difference of a log probability.
fn compare(
    (on_gpu, on_cpu): (Precision, Precision),
    ordinal: usize,
    folder: &Path,
) -> Result<f32, String> {
    let mut cpu = load(folder, (Device::Cpu, on_cpu), ordinal)?;
    let mut gpu = load(folder, (Device::Cuda, on_gpu), ordinal)?;
    let (mut largest, mut num_steps) = (0.0_f32, 0);
    let mut tokens: Vec<u32> = (0..NUM_PROMPT_TOKENS).map(|at| 5 + at * 37 % 500).collect();
    let mut start = 0;
    while num_steps <= NUM_DECODES {
        let step = batch(&tokens[start..], start as u32);
        let (expected, found) = (run(&mut cpu, &step)?, run(&mut gpu, &step)?);
        largest = largest.max(difference(&expected, &found)?);
        start = tokens.len();
        tokens.push(expected.token);
        num_steps += 1;
    }
    Ok(largest)
}

fn load(
    folder: &Path,
    (device, precision): (Device, Precision),
    ordinal: usize,
) -> Result<Backend, String> {
    let mut config = ServerConfig::for_model(folder);
    config.device = device;
    config.gpu = GpuConfig {
        ordinal,
        ..GpuConfig::default()
    };
    config.precision = precision;
    config.kv_cache = KvCacheSize::Blocks(4.try_into().map_err(|_| "no blocks")?);
    config.block_size = BLOCK_SIZE;
    config.max_num_seqs = 2;
    config.max_num_batched_tokens = 64;
    backend::load(&config).map_err(|error| error.to_string())
}

/// The tokens from `start` on of one sequence, of which the last asks for the next.
fn batch(tokens: &[u32], start: u32) -> StepBatch {
    let end = start + tokens.len() as u32;
    let mut batch = StepBatch::default();
    batch.token_ids.extend_from_slice(tokens);
    batch.positions.extend(start..end);
    batch.slots.extend(start..end);
    batch.block_tables.extend(0..end.div_ceil(BLOCK_SIZE));
    batch.sequences.push(BatchSequence {
        query_len: tokens.len() as u32,
        context_len: end,
        block_table_start: 0,
        block_table_len: end.div_ceil(BLOCK_SIZE),
    });
    batch.rows.push(LogitsRow {
        row: tokens.len() as u32 - 1,
        drawing: 0,
        position: u64::from(end),
        purpose: Purpose::Draw,
    });
    batch.drawings.push(Drawing {
        sampling: Arc::new(Sampling::GREEDY),
        stopping: Arc::new(Stopping::default()),
        num_candidates: Some(5),
        num_prompt_tokens: NUM_PROMPT_TOKENS as usize,
        history: 0..0,
    });
    batch
}

fn run(backend: &mut Backend, batch: &StepBatch) -> Result<Sampled, String> {
    let mut outcomes = Vec::new();
    let text = |error: RunnerError| error.to_string();
    backend.runner.submit(batch).map_err(text)?;
    backend.runner.collect(&mut outcomes).map_err(text)?;
    outcomes
        .pop()
        .flatten()
        .ok_or_else(|| "a logit was not finite".to_owned())
}

/// Of the log probabilities of the CPU's best tokens that the GPU names, too.
fn difference(cpu: &Sampled, gpu: &Sampled) -> Result<f32, String> {
    let missing = || "log probabilities are missing".to_owned();
    let cpu = &cpu.logprobs.as_ref().ok_or_else(missing)?.candidates;
    let gpu = &gpu.logprobs.as_ref().ok_or_else(missing)?.candidates;
    let mut largest = 0.0_f32;
    for ((_, expected), (_, found)) in cpu.iter().zip(gpu) {
        largest = largest.max((expected - found).abs());
    }
    let best = gpu.iter().find(|(token, _)| *token == cpu[0].0);
    match best {
        Some(_) if cpu.len() == gpu.len() => Ok(largest),
        _ => Err("the best token of the CPU is not among those of the GPU".to_owned()),
    }
}
