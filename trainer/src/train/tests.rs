use candle_core::{Device, Tensor};
use model::weights::tensor_specs;

use super::cpu::CpuEngine;
use super::*;
use crate::config::{Checkpointing, MomentsDtype, OptimizerConfig, Precision};
use crate::forward::{Network, NetworkOptions};
use crate::metrics::MetricsLog;
use crate::optimizer::Optimizer;
use crate::outputs::Saving;
use crate::progress::Progress;
use crate::schedule::ScheduleKind;
use crate::testing::{Head, examples, optimizer_config, tiny_network, tiny_network_with};
use crate::weights::Slot;

const GUARD: GuardConfig = GuardConfig {
    spike: None,
    max_skipped_in_a_row: 5,
};

fn schedule(peak_lr: f64) -> Schedule {
    Schedule {
        kind: ScheduleKind::Linear,
        peak_lr,
        warmup_steps: 0,
        min_lr_ratio: 0.0,
    }
}

fn state(lr: f64) -> TrainState {
    let config = optimizer_config(lr, MomentsDtype::F32);
    let network = tiny_network(Head::Tied, Checkpointing::Auto);
    on_cpu(network, config)
}

fn on_cpu(network: Network, config: OptimizerConfig) -> TrainState {
    let optimizer = Optimizer::new(config, 3, &network.parameters);
    let engine = CpuEngine::new(network, optimizer, &Group::Single);
    TrainState::new(Box::new(engine), Group::Single)
}

fn plan<'a>(examples: &'a Examples, validation: &'a Examples, epochs: u32) -> Plan<'a> {
    let window = Window::Examples(3);
    let order: Vec<u32> = (0..examples.len() as u32).collect();
    let steps = windows(&order, examples, window).len() as u64;
    Plan {
        examples,
        validation,
        window,
        max_tokens_per_micro_batch: 64,
        schedule: schedule(1e-2),
        epochs,
        budget: Budget::Steps(steps * u64::from(epochs)),
        time_limit: None,
        seed: 3,
        guard: GUARD,
        best: BestConfig::default(),
    }
}

/// Runs a plan without checkpoints and returns what it said.
fn run(state: &mut TrainState, plan: &Plan<'_>, stop: &StopFlag) -> (Result<Outcome>, Vec<Event>) {
    let out = tempfile::tempdir().unwrap();
    let mut progress = Progress::memory();
    let metrics = MetricsLog::open(out.path(), 0, &[]).unwrap();
    let outcome = {
        let mut outputs = Outputs::new(
            out.path(),
            Saving::Never,
            out.path(),
            metrics,
            &mut progress,
        );
        train(state, plan, &mut outputs, stop)
    };
    (outcome, progress.events().to_vec())
}

/// One micro-batch of eight examples or eight of one: the same step, although lengths are uneven.
#[test]
fn accumulation_equals_one_batch() {
    let examples = examples(&[14, 3, 9, 4, 12, 6, 3, 20]);
    let all: Vec<u32> = (0..8).collect();
    let step = |max_tokens| {
        let mut state = state(1e-3);
        let batches = pack(&all, &examples, max_tokens);
        let report = state.step(&batches, 1e-3, &GUARD).unwrap();
        (batches.len(), report.loss(), report.grad_norm)
    };
    let (one, one_loss, one_norm) = step(1000);
    let (eight, eight_loss, eight_norm) = step(1);
    assert_eq!((one, eight), (1, 8));
    assert!(
        (one_loss - eight_loss).abs() < 1e-6 * one_loss,
        "{one_loss} {eight_loss}"
    );
    assert!(
        (one_norm - eight_norm).abs() < 1e-5 * one_norm,
        "{one_norm} {eight_norm}"
    );
}

/// The rate begins at the peak and would be 0 at the step after the last, the partial last window
/// of every epoch counted.
#[test]
fn schedule_counts_real_steps() {
    let (examples, none) = (examples(&[5; 7]), Examples::default());
    let plan = plan(&examples, &none, 2);
    let (outcome, events) = run(&mut state(1e-2), &plan, &StopFlag::default());
    assert_eq!(outcome.unwrap(), Outcome::Finished);
    let rates: Vec<f64> = events
        .iter()
        .filter_map(|event| match event {
            Event::Step { lr, .. } => Some(*lr),
            _ => None,
        })
        .collect();
    assert_eq!(rates.len(), 6);
    assert!((rates[0] - 1e-2).abs() < 1e-12, "{rates:?}");
    assert!((rates[5] - 1e-2 / 6.0).abs() < 1e-12, "{rates:?}");
    assert!(plan.schedule.lr(6, 1.0).abs() < 1e-12);
}

/// The weights' way in 200 steps of 1e-5 from real gradients, in the order of the parameters.
fn journey(precision: Precision, moments: MomentsDtype) -> Vec<f32> {
    let options = NetworkOptions {
        precision,
        ..NetworkOptions::default()
    };
    let network = tiny_network_with(Head::Tied, options);
    let mut state = on_cpu(network, optimizer_config(1e-5, moments));
    let num_weights = tensor_specs(state.engine.config()).len();
    let weights = |state: &TrainState| -> Vec<f32> {
        let values = (0..num_weights).flat_map(|number| state.engine.merged(number).unwrap());
        values.collect()
    };
    let before = weights(&state);
    let examples = examples(&[14, 3, 9, 4, 12, 6, 3, 20]);
    for step in 0..200_u32 {
        let chosen = [step % 8, (step + 3) % 8];
        let batches = pack(&chosen, &examples, 64);
        state.step(&batches, 1e-5, &GUARD).unwrap();
    }
    let after = weights(&state);
    after.iter().zip(&before).map(|(a, b)| a - b).collect()
}

/// In every number format the weights make the way of f32: its projection is above 0.95 (an all-bf16
/// AdamW that rounds to nearest makes an eighth of it).
#[test]
fn every_format_makes_the_way_of_f32() {
    let reference = journey(Precision::F32, MomentsDtype::F32);
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        let products = a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b));
        products.sum()
    };
    for (precision, moments) in [
        (Precision::Bf16, MomentsDtype::F32),
        (Precision::F32, MomentsDtype::Int8),
        (Precision::Bf16Weights, MomentsDtype::F32),
        (Precision::Bf16Weights, MomentsDtype::Bf16),
        (Precision::Bf16Weights, MomentsDtype::Int8),
    ] {
        let found = journey(precision, moments);
        let projection = dot(&found, &reference) / dot(&reference, &reference);
        eprintln!("{precision:?}, moments {moments:?}: {projection:.4}");
        assert!(
            projection >= 0.95,
            "{precision:?} {moments:?}: {projection}"
        );
    }
}

/// A tiny model learns eight examples by heart.
#[test]
fn overfits_eight_examples() {
    let (examples, none) = (examples(&[9; 8]), Examples::default());
    let plan = Plan {
        window: Window::Examples(8),
        budget: Budget::Steps(150),
        epochs: 150,
        schedule: schedule(2e-2),
        ..plan(&examples, &none, 150)
    };
    let mut state = state(2e-2);
    run(&mut state, &plan, &StopFlag::default()).0.unwrap();
    let loss = state.evaluate(&examples, 64).unwrap().unwrap();
    assert!(loss < 0.05, "{loss}");
}

/// A loss that is not finite skips the update; five in a row end the run with a reason.
#[test]
fn not_finite_steps_are_skipped_then_fatal() {
    let (examples, none) = (examples(&[9; 30]), Examples::default());
    let mut state = state(1e-2);
    let parameters = state.engine.parameters();
    let norm = parameters
        .iter()
        .position(|p| p.name == "model.norm.weight");
    let nan = Tensor::full(f32::NAN, 12, &Device::Cpu).unwrap();
    state.engine.set_values(Slot(norm.unwrap()), &nan).unwrap();
    let before = embedding(&state);
    let (outcome, events) = run(&mut state, &plan(&examples, &none, 1), &StopFlag::default());
    let error = outcome.unwrap_err().to_string();
    assert!(error.contains("5 steps in a row"), "{error}");
    let skipped = |event: &&Event| matches!(event, Event::StepSkipped { .. });
    assert_eq!(events.iter().filter(skipped).count(), 5);
    assert_eq!(state.position.counters.skipped_steps, 5);
    assert_eq!(embedding(&state), before);
}

fn embedding(state: &TrainState) -> Vec<f32> {
    state.engine.merged(0).unwrap()
}

/// A raised flag ends the run after the step that is under way.
#[test]
fn stop_finishes_the_step() {
    let (examples, none) = (examples(&[9; 30]), Examples::default());
    let stop = StopFlag::default();
    stop.raise();
    let mut state = state(1e-2);
    let (outcome, events) = run(&mut state, &plan(&examples, &none, 1), &stop);
    assert_eq!(outcome.unwrap(), Outcome::Interrupted);
    assert_eq!(state.position.counters.steps, 1);
    assert!(matches!(
        events.last(),
        Some(Event::Done {
            interrupted: true,
            ..
        })
    ));
}

/// A token budget ends the run in the middle of an epoch, with progress at 1.
#[test]
fn token_budget_ends_the_run() {
    let (examples, none) = (examples(&[9; 30]), Examples::default());
    let plan = Plan {
        budget: Budget::Tokens(50),
        ..plan(&examples, &none, 9)
    };
    let mut state = state(1e-2);
    let (outcome, _) = run(&mut state, &plan, &StopFlag::default());
    assert_eq!(outcome.unwrap(), Outcome::Finished);
    // Three examples of eight inputs a step.
    assert_eq!(
        (
            state.position.counters.steps,
            state.position.counters.tokens
        ),
        (3, 72)
    );
}

/// Steps do not depend on the number of threads.
#[test]
fn threads_change_nothing() {
    let (examples, none) = (examples(&[14, 3, 9, 4, 12, 6]), Examples::default());
    let plan = plan(&examples, &none, 2);
    let weights_after = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| {
            let mut state = state(1e-2);
            run(&mut state, &plan, &StopFlag::default()).0.unwrap();
            embedding(&state)
        })
    };
    assert_eq!(weights_after(1), weights_after(3));
}
