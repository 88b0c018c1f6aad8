//! From a prepared run to its plan: what is counted here is counted as the run itself would.

use crate::budget::{Budget, Largest, Shape};
use crate::config::DeviceKind;
use crate::memory::resident;
use crate::pack::{pack, windows};
use crate::plan::RunPlan;
use crate::rng::shuffled;
use crate::throughput::ModelFlops;
use crate::train::lanes::{deal, lanes_at_once, lanes_per_process};

use super::prepare::Prepared;

/// Works out what training on `prepared` needs as so many ranks. `tokens_per_s`: a rate of all of them to
/// work the time out with.
pub(super) fn run_plan(
    prepared: &Prepared,
    num_ranks: usize,
    tokens_per_s: Option<f64>,
) -> RunPlan {
    let Prepared {
        folder,
        config,
        set,
        ..
    } = prepared;
    let architecture = &folder.config;
    let shape = Shape {
        config: architecture,
        method: &config.method,
        precision: config.precision,
        moments: config.optimizer.moments,
        checkpointing: config.checkpointing,
        save_dtype: config.save_dtype,
        max_positions: architecture.max_position_embeddings.min(config.max_length),
        num_ranks,
        lanes_at_once: lanes_at_once(),
        gpu_tokens: match config.device {
            DeviceKind::Cpu => None,
            DeviceKind::Cuda => Some(config.largest_micro_batch()),
        },
    };
    let own_lanes = match config.device {
        DeviceKind::Cpu => lanes_per_process(architecture.num_parameters(), num_ranks),
        DeviceKind::Cuda => 1,
    };
    let num_lanes = num_ranks * own_lanes;
    let max_tokens = config.max_tokens_per_micro_batch;
    let (mut largest, mut steps) = (Largest::default(), 0);
    for epoch in 1..=config.epochs {
        let order = shuffled(set.train.len(), config.seed, epoch);
        for window in windows(&order, &set.train, config.window) {
            largest.add(&deal(&order[window], &set.train, (num_lanes, max_tokens)));
            steps += 1;
        }
    }
    let mut evaluated = Largest::default();
    let all: Vec<u32> = (0..set.validation.len() as u32).collect();
    evaluated.add(&pack(&all, &set.validation, max_tokens));
    let tokens = set.train.num_inputs() as u64;
    let labels: u64 = set
        .train
        .iter()
        .map(|example| example.num_labels() as u64)
        .sum();
    // A token sees those before it and itself.
    let pairs = set.train.iter().map(|example| {
        let inputs = example.num_inputs() as u64;
        inputs * (inputs + 1) / 2
    });
    let memory = Budget::new(&shape, largest, evaluated);
    let flops = ModelFlops::new(architecture, &config.method, memory.num_trained);
    let flops_per_epoch = flops.of_step(tokens, pairs.sum());
    let longest = set.train.iter().map(|example| example.ids.len()).max();
    RunPlan {
        device: config.device,
        num_ranks,
        memory,
        program: resident().map_or(0, |memory| memory.now as usize),
        num_train_examples: set.train.len(),
        num_validation_examples: set.validation.len(),
        num_dropped: set.dropped.len(),
        longest_example: longest.unwrap_or(0),
        tokens_per_epoch: tokens,
        label_tokens_per_epoch: labels,
        epochs: config.epochs,
        steps,
        largest_micro_batch_tokens: largest.num_tokens,
        flops: flops_per_epoch * f64::from(config.epochs),
        tokens_per_s,
    }
}
