//! The best epoch, early stopping, and an accuracy that nobody can give.

use super::*;
use crate::best::{Best, Metric};

const HELD_OUT: [&str; 2] = ["--validation-fraction", "0.3"];

fn best(setup: &Setup, out: &str) -> Best {
    Best::read(&setup.path(out)).expect("there is a best epoch")
}

/// `best.json` names the epoch of the lowest validation loss, with all losses so far.
#[test]
fn best_epoch_is_written() {
    let setup = Setup::new(StoredDtype::F32);
    let (_, events) = Setup::run(&setup.args("out", &[&SMALL[..], &HELD_OUT].concat()));
    let losses: Vec<f64> = events
        .iter()
        .filter_map(|event| match event {
            Event::EpochEnd {
                validation_loss, ..
            } => *validation_loss,
            _ => None,
        })
        .collect();
    let best = best(&setup, "out");
    let values: Vec<f64> = best.values.iter().map(|value| value.value).collect();
    assert_eq!(values, losses);
    assert_eq!(best.metric, Metric::ValidationLoss);
    assert!(losses.iter().all(|&loss| loss >= best.value));
    assert!(
        setup
            .path("out")
            .join(best.path)
            .join("model.safetensors")
            .exists()
    );
}

/// Epochs that get no better end the run; the same command again finds it ended, and a larger
/// patience goes on.
#[test]
fn patience_ends_the_run() {
    let setup = Setup::new(StoredDtype::F32);
    let flags = |patience| {
        let stopping = [
            "--early-stopping-patience",
            patience,
            "--min-improvement",
            "50",
        ];
        [&SMALL[..], &HELD_OUT, &stopping].concat()
    };
    for _ in 0..2 {
        let (outcome, events) = Setup::run(&setup.args("out", &flags("1")));
        assert_eq!(outcome.unwrap(), Outcome::Finished);
        assert!(!setup.path("out/epoch_3").exists());
        let ended = |event: &&Event| matches!(event, Event::EarlyStop { epoch: 2, .. });
        assert_eq!(events.iter().filter(ended).count(), 1);
    }
    Setup::run(&setup.args("out", &flags("3"))).0.unwrap();
    assert!(setup.path("out/epoch_3").exists());
    assert_eq!(best(&setup, "out").values.len(), 3);
}

/// Where no server has loaded an epoch its accuracy is missing: a warning, and neither the patience
/// nor `best.json` counts it.
#[test]
fn missing_accuracy_is_a_warning() {
    let setup = Setup::new(StoredDtype::F32);
    let questions = setup.path("train.jsonl").display().to_string();
    let accuracy = [
        "--accuracy-questions",
        &questions,
        "--best-by",
        "accuracy",
        "--early-stopping-patience",
        "1",
        "--server",
        "http://127.0.0.1:1",
    ];
    let (outcome, events) = Setup::run(&setup.args("out", &[&SMALL[..], &accuracy].concat()));
    assert_eq!(outcome.unwrap(), Outcome::Finished);
    let warned = |event: &&Event| matches!(event, Event::Warning { message } if message.contains("is missing"));
    assert_eq!(events.iter().filter(warned).count(), 3);
    assert!(setup.path("out/epoch_3").exists());
    assert_eq!(Best::read(&setup.path("out")), None);
}

/// An epoch is measured after its checkpoint was written; a process that ended just then finds the
/// value in `best.json`.
#[test]
fn accuracy_is_found_again() {
    let setup = Setup::new(StoredDtype::F32);
    let questions = setup.path("train.jsonl").display().to_string();
    let accuracy = [
        "--accuracy-questions",
        &questions,
        "--best-by",
        "accuracy",
        "--server",
        "http://127.0.0.1:1",
    ];
    let flags = [&SMALL[..], &accuracy].concat();
    let args = setup.args("out", &flags);
    run(&args, &StopFlag::at_look(5), &mut Progress::memory()).unwrap();
    let measured = Best {
        epoch: 1,
        path: "epoch_1".into(),
        metric: Metric::Accuracy,
        value: 0.75,
        values: vec![crate::best::EpochValue {
            epoch: 1,
            value: 0.75,
        }],
    };
    measured.write(&setup.path("out")).unwrap();
    Setup::run(&args).0.unwrap();
    assert_eq!(best(&setup, "out"), measured);
    let state = std::fs::read_to_string(setup.path("out/epoch_3/trainer_state/state.json"));
    assert!(state.unwrap().contains("0.75"));
}

/// What cannot be measured is refused before anything is trained.
#[test]
fn metrics_without_data_are_refused() {
    let setup = Setup::new(StoredDtype::F32);
    let error = |flags: &[&str]| {
        let args = setup.args("out", &[&SMALL[..], flags].concat());
        Setup::run(&args).0.unwrap_err().to_string()
    };
    let accuracy = error(&["--best-by", "accuracy"]);
    assert!(accuracy.contains("--accuracy-questions"), "{accuracy}");
    let patience = error(&[
        "--early-stopping-patience",
        "1",
        "--validation-fraction",
        "0",
    ]);
    assert!(patience.contains("--validation-fraction"), "{patience}");
}
