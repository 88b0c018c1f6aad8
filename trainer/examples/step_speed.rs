//! How long a training step takes, and where the time goes: `cargo run --release -p trainer --example
//! step_speed [dense2|tiny|small] [f32|bf16] [repetitions]`. Random weights, full batches; nothing is written.
//! With `MALLOC_MMAP_THRESHOLD_=2147483647 MALLOC_TRIM_THRESHOLD_=2147483647` memory is kept as the
//! trainer keeps it.
#![expect(clippy::print_stdout, reason = "a measurement is printed")]

use std::time::{Duration, Instant};

use anyhow::Context;
use model::config::LlamaConfig;
use model::random::preset;
use trainer::config::{Checkpointing, MomentsDtype, OptimizerConfig, Precision};
use trainer::distributed::Group;
use trainer::forward::{Network, NetworkOptions, tensors_of};
use trainer::init::random_weights;
use trainer::optimizer::Optimizer;
use trainer::pack::MicroBatch;
use trainer::schedule::{Schedule, ScheduleKind};
use trainer::train::engine::{StepGoal, Update};
use trainer::train::lanes::Lanes;

const SEGMENT: u32 = 256;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().unwrap_or_else(|| "tiny".to_owned());
    let precision = match arguments.next().as_deref() {
        Some("bf16") => Precision::Bf16,
        _ => Precision::F32,
    };
    let repetitions: usize = arguments.next().map_or(Ok(5), |text| text.parse())?;
    let (config, num_segments) = shape(&name)?;
    let options = NetworkOptions {
        precision,
        checkpointing: Checkpointing::Off,
        ..NetworkOptions::default()
    };
    let weights = random_weights(&config, 1)?;
    let tensors = tensors_of(&config, &weights);
    let network = Network::new(config.clone(), tensors, options)?;
    let mut optimizer = Optimizer::new(optimizer_config(), 0, &network.parameters);
    let batches: Vec<MicroBatch> = (0..num_segments)
        .map(|segment| batch(segment, config.vocab_size as u32))
        .collect();
    let mut lanes = Lanes::new(&network, &Group::Single);
    let mut best = [Duration::MAX; 3];
    for _ in 0..repetitions {
        let times = step((&network, &mut optimizer), &batches, &mut lanes)?;
        for (best, time) in best.iter_mut().zip(times) {
            *best = time.min(*best);
        }
    }
    let [gradients, optimizer, step] = best.map(|time| time.as_secs_f64() * 1e3);
    println!("{name}: gradients {gradients:.1} ms, optimizer {optimizer:.1} ms, step {step:.1} ms");
    Ok(())
}

/// One step: times of the gradients, of the update and of both.
fn step(
    (network, optimizer): (&Network, &mut Optimizer),
    batches: &[MicroBatch],
    lanes: &mut Lanes,
) -> anyhow::Result<[Duration; 3]> {
    let num_labels: usize = batches.iter().map(MicroBatch::num_labels).sum();
    let goal = StepGoal {
        steps: 0,
        grad_scale: 1.0 / num_labels as f32,
    };
    let start = Instant::now();
    lanes.forward_backward(network, batches, goal, &mut Group::Single)?;
    let middle = Instant::now();
    let update = Update {
        number: 1,
        lr: 1e-4,
        grad_norm: lanes.gradients().global_norm(),
    };
    optimizer.step(&network.parameters, lanes.gradients(), &update)?;
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

fn batch(segment: u32, vocab_size: u32) -> MicroBatch {
    let id = |i: u32| (segment * SEGMENT + i).wrapping_mul(2_654_435_769) % vocab_size;
    MicroBatch {
        token_ids: (0..SEGMENT).map(id).collect(),
        positions: (0..SEGMENT).collect(),
        segment_bounds: vec![0, SEGMENT],
        label_rows: (0..SEGMENT).collect(),
        targets: (1..=SEGMENT).map(id).collect(),
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
        moments: MomentsDtype::F32,
    }
}
