//! How long a training step takes, and where the time goes: `cargo run --release -p trainer --example
//! step_speed [dense2|tiny|small] [repetitions]`. Random weights, full batches; nothing is written.
//! With `MALLOC_MMAP_THRESHOLD_=2147483647 MALLOC_TRIM_THRESHOLD_=2147483647` memory is kept as the
//! trainer keeps it.
#![expect(clippy::print_stdout, reason = "a measurement is printed")]

use std::time::{Duration, Instant};

use anyhow::Context;
use model::config::LlamaConfig;
use model::random::preset;
use rayon::prelude::*;
use trainer::config::{Checkpointing, OptimizerConfig};
use trainer::forward::Network;
use trainer::gradients::Gradients;
use trainer::init::random_weights;
use trainer::optimizer::Optimizer;
use trainer::pack::MicroBatch;
use trainer::schedule::{Schedule, ScheduleKind};

/// Tokens of a sequence.
const SEGMENT: u32 = 256;

/// `train`'s bound on lanes.
const MAX_LANE_PARAMETERS: usize = 64 << 20;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().unwrap_or_else(|| "tiny".to_owned());
    let repetitions: usize = arguments.next().map_or(Ok(5), |text| text.parse())?;
    let (config, num_segments) = shape(&name)?;
    let checkpointing = Checkpointing::Off;
    let network = Network::new(config.clone(), random_weights(&config, 1)?, checkpointing)?;
    let mut optimizer = Optimizer::new(optimizer_config(), &config);
    // As `train` does it: a lane for each segment where gradients are small, else one for all.
    let is_small = config.num_parameters() <= MAX_LANE_PARAMETERS;
    let per_batch = if is_small { 1 } else { num_segments };
    let batches: Vec<MicroBatch> = (0..num_segments / per_batch)
        .map(|index| batch(index, per_batch, config.vocab_size as u32))
        .collect();
    let mut lanes = vec![Gradients::zeros(&config); batches.len()];
    let grad_scale = 1.0 / (SEGMENT * num_segments) as f32;
    let mut best = [Duration::MAX; 3];
    for _ in 0..repetitions {
        let times = step(
            (&network, &mut optimizer),
            (&batches, &mut lanes),
            grad_scale,
        )?;
        for (best, time) in best.iter_mut().zip(times) {
            *best = time.min(*best);
        }
    }
    let [gradients, optimizer, step] = best.map(|time| time.as_secs_f64() * 1e3);
    println!("{name}: gradients {gradients:.1} ms, optimizer {optimizer:.1} ms, step {step:.1} ms");
    Ok(())
}

/// One step over a lane for each micro-batch: times of the gradients, of the update and of both.
fn step(
    (network, optimizer): (&Network, &mut Optimizer),
    (batches, lanes): (&[MicroBatch], &mut [Gradients]),
    grad_scale: f32,
) -> anyhow::Result<[Duration; 3]> {
    let start = Instant::now();
    let losses: trainer::error::Result<Vec<f64>> = lanes
        .par_iter_mut()
        .zip(batches)
        .map(|(gradients, batch)| {
            gradients.clear();
            network.forward_backward(batch, grad_scale, gradients)
        })
        .collect();
    std::hint::black_box(losses?);
    let (gradients, others) = lanes.split_first_mut().context("a lane")?;
    for other in others.iter() {
        gradients.add(other);
    }
    let middle = Instant::now();
    let norm = gradients.global_norm();
    optimizer.step(&network.weights, gradients, (1e-4, norm))?;
    let end = Instant::now();
    Ok([middle - start, end - middle, end - start])
}

/// The named shape and its number of segments of a step.
fn shape(name: &str) -> anyhow::Result<(LlamaConfig, u32)> {
    if name != "dense2" {
        return Ok((preset(name).context("a preset's name")?, 4));
    }
    let tiny = preset("tiny").context("a preset's name")?;
    let config = LlamaConfig {
        vocab_size: 8192,
        hidden_size: 512,
        intermediate_size: 1536,
        num_hidden_layers: 2,
        num_attention_heads: 8,
        num_key_value_heads: 2,
        ..tiny
    };
    Ok((config, 1))
}

fn batch(index: u32, num_segments: u32, vocab_size: u32) -> MicroBatch {
    let num_tokens = num_segments * SEGMENT;
    let id = |i: u32| (index * num_tokens + i).wrapping_mul(2_654_435_769) % vocab_size;
    MicroBatch {
        token_ids: (0..num_tokens).map(id).collect(),
        positions: (0..num_tokens).map(|i| i % SEGMENT).collect(),
        segment_bounds: (0..=num_segments).map(|i| i * SEGMENT).collect(),
        label_rows: (0..num_tokens).collect(),
        targets: (1..=num_tokens).map(id).collect(),
    }
}

fn optimizer_config() -> OptimizerConfig {
    OptimizerConfig {
        schedule: Schedule {
            kind: ScheduleKind::Constant,
            peak_lr: 1e-4,
            warmup_steps: 0,
            min_lr_ratio: 1.0,
        },
        beta1: 0.9,
        beta2: 0.95,
        eps: 1e-8,
        weight_decay: 0.1,
        max_grad_norm: 1.0,
    }
}
