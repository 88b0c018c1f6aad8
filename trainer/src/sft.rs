//! `trainer sft`: from arguments to a plan for the loop. Question files become examples whose prompt
//! has the very token ids that evaluation will put to the server.

mod dry_run;
mod examples;
mod prepare;
mod together;

use std::path::Path;

use candle_core::{Device, Tensor};
use model::config::LlamaConfig;
use model::load::TensorReader;

use self::dry_run::run_plan;
pub(crate) use self::examples::prompt;
use self::examples::{ExampleSet, write_dropped};
use self::prepare::{Prepared, prepare};
use self::together::{agree, connect, log_folder, newest_for_all};
use crate::cli::args::SftArgs;
use crate::cli::method::PlanArgs;
use crate::config::{RuntimeConfig, TrainingConfig};
use crate::distributed::Group;
use crate::error::Result;
use crate::folders::Folder;
use crate::forward::{Network, NetworkOptions};
use crate::gpu::GpuEngine;
use crate::metrics::{MetricsLog, Rates};
use crate::optimizer::Optimizer;
use crate::outputs::{Checkpoints, Outputs, Saving};
use crate::pack::windows;
use crate::progress::{Event, Progress, ProgressMode};
use crate::resume::{OutFolder, load_state, read_state};
use crate::stop::StopFlag;
use crate::throughput::ModelFlops;
use crate::train::cpu::CpuEngine;
use crate::train::engine::Engine;
use crate::train::lanes::total_lanes;
use crate::train::{Budget, Outcome, Plan, TrainState, share_accuracies, train};

/// Fine-tunes as `args` say; resumes where `args.out` has a complete checkpoint. With `--dry-run` it
/// prints the run's plan instead.
pub fn run(args: &SftArgs, stop: &StopFlag, progress: &mut Progress) -> Result<Outcome> {
    let mut prepared = prepare(args)?;
    if args.dry_run {
        print_plan(&prepared, (args, None), progress);
        return Ok(Outcome::Finished);
    }
    let mut group = connect(args, &prepared.config)?;
    // The others are there to hear of it where this fails.
    let gpu = args.common.device.open(args.ranks.as_ref())?;
    prepared.config.num_lanes = match gpu {
        Some(_) => group.size(),
        None => total_lanes(&prepared.folder.config, &group),
    };
    let _claim = match group.rank() {
        0 => {
            let claim = OutFolder::claim(&args.out)?;
            write_dropped(&args.out, &prepared.set.dropped)?;
            Some(claim)
        }
        // Rank 0 writes; the others only compute, and say nothing.
        _ => None,
    };
    let mut quiet = Progress::new(ProgressMode::Quiet);
    let progress = if group.rank() == 0 {
        progress
    } else {
        &mut quiet
    };
    let runtime = RuntimeConfig {
        out: args.out.clone(),
        notify: args.notify.config()?,
        steps: args.steps.config(),
        guard: args.common.guard.config()?,
        best: args
            .best
            .config(&args.notify, prepared.set.validation.len())?,
        accuracy: prepared.accuracy.take(),
        peak_tflops: args.common.logs.peak_tflops(
            prepared.config.precision.compute(),
            (gpu.as_ref(), group.size()),
        )?,
    };
    let Prepared {
        folder,
        mut config,
        set,
        ..
    } = prepared;
    let (engine, digest) = load_engine(&args.model, &folder.config, &config, (gpu, &group))?;
    config.model_digest = digest;
    agree(&mut group, &config, &runtime)?;
    let mut state = TrainState::new(engine, group);
    let found = newest_for_all(&runtime.out, &mut state.group, progress)?;
    if let Some(found) = &found {
        load_state(found, read_state(found, &config)?, &mut state)?;
        let counters = state.position.counters;
        progress.emit(Event::Resumed {
            epoch: counters.epochs_done,
            step: counters.steps,
            path: found.path.clone(),
        });
    }
    run_loop(
        (&mut state, found.as_ref()),
        &set,
        (config, runtime, &args.model),
        (stop, progress),
    )
}

/// `trainer plan`: the plan of the fine-tuning that `args` say, at the given rate.
pub fn plan(args: &PlanArgs, progress: &mut Progress) -> Result<()> {
    let prepared = prepare(&args.sft)?;
    print_plan(&prepared, (&args.sft, args.tokens_per_s), progress);
    Ok(())
}

/// Of several ranks, the first says what each of them needs.
fn print_plan(
    prepared: &Prepared,
    (args, tokens_per_s): (&SftArgs, Option<f64>),
    progress: &mut Progress,
) {
    let (rank, size) = args
        .ranks
        .as_ref()
        .map_or((0, 1), |ranks| (ranks.rank(), ranks.size()));
    if rank == 0 {
        let plan = run_plan(prepared, size, tokens_per_s);
        progress.print(&plan, &plan.text());
    }
}

/// The base model, ready to be trained, and the digest of its files.
fn load_engine(
    model: &Path,
    architecture: &LlamaConfig,
    config: &TrainingConfig,
    (gpu, group): (Option<cuda::Device>, &Group),
) -> Result<(Box<dyn Engine>, String)> {
    let options = NetworkOptions {
        method: config.method.clone(),
        precision: config.precision,
        checkpointing: config.checkpointing,
        label_smoothing: config.label_smoothing as f32,
        seed: config.seed,
        max_positions: config.max_length,
    };
    let mut reader = TensorReader::open(model, architecture)?;
    let tensors = reader.by_ref().map(|tensor| {
        let (spec, values) = tensor?;
        let tensor = Tensor::from_vec(values, spec.shape.as_slice(), &Device::Cpu)?;
        Ok((spec, tensor))
    });
    let optimizer = config.optimizer.clone();
    let engine: Box<dyn Engine> = if let Some(device) = gpu {
        let max_tokens = config.largest_micro_batch();
        let options = (options, optimizer);
        let architecture = architecture.clone();
        Box::new(GpuEngine::new(
            device,
            architecture,
            tensors,
            options,
            max_tokens,
        )?)
    } else {
        let network = Network::new(architecture.clone(), tensors, options)?;
        let optimizer = Optimizer::new(optimizer, config.seed, &network.parameters);
        Box::new(CpuEngine::new(network, optimizer, group))
    };
    Ok((engine, reader.digest()))
}

fn run_loop(
    (state, found): (&mut TrainState, Option<&Folder>),
    set: &ExampleSet,
    (config, runtime, model): (TrainingConfig, RuntimeConfig, &Path),
    (stop, progress): (&StopFlag, &mut Progress),
) -> Result<Outcome> {
    let order: Vec<u32> = (0..set.train.len() as u32).collect();
    let steps_per_epoch = windows(&order, &set.train, config.window).len() as u64;
    let plan = Plan {
        examples: &set.train,
        validation: &set.validation,
        window: config.window,
        max_tokens_per_micro_batch: config.max_tokens_per_micro_batch,
        schedule: config.optimizer.schedule.clone(),
        epochs: config.epochs,
        budget: Budget::Steps(steps_per_epoch * u64::from(config.epochs)),
        time_limit: None,
        seed: config.seed,
        guard: runtime.guard,
        best: runtime.best,
    };
    let count = |truncated: bool| {
        set.dropped
            .iter()
            .filter(|dropped| dropped.truncated == truncated)
            .count() as u64
    };
    progress.emit(Event::Start {
        command: "sft".to_string(),
        out: runtime.out.clone(),
        num_parameters: state.engine.config().num_parameters() as u64,
        num_train_examples: set.train.len() as u64,
        num_validation_examples: set.validation.len() as u64,
        num_skipped_too_long: count(false),
        num_truncated: count(true),
        num_epochs: config.epochs,
        total_steps: Some(steps_per_epoch * u64::from(config.epochs)),
        first_epoch: state.position.epoch(),
    });
    if set.num_split_at_border > 0 {
        let count = set.num_split_at_border;
        progress.emit(Event::Warning {
            message: format!(
                "in {count} examples prompt and answer meet inside a token; they were encoded apart"
            ),
        });
    }
    let position = &state.position;
    let logs = log_folder(&runtime.out, &state.group)?;
    let metrics = MetricsLog::open(&logs, position.counters.steps, &position.history)?;
    let metrics = metrics.with_rates(Rates {
        flops: ModelFlops::of(&*state.engine),
        peak_tflops: runtime.peak_tflops,
    });
    let RuntimeConfig { notify, steps, .. } = runtime;
    let saving = if state.group.rank() == 0 {
        let checkpoints = Checkpoints::new(config, notify, steps, runtime.accuracy);
        Saving::Checkpoints(Box::new(checkpoints))
    } else {
        Saving::Elsewhere
    };
    let mut outputs = Outputs::new(&runtime.out, saving, model, metrics, progress);
    if let Some(found) = found {
        if state.group.rank() == 0 {
            outputs.after_resume(&mut state.position, found, (&plan, stop))?;
        }
        share_accuracies(state, &plan)?;
    }
    train(state, &plan, &mut outputs, stop)
}

#[cfg(test)]
mod tests;
