//! Runs that end anywhere and go on: the same bits as a run that was never stopped.

use super::*;

/// A rate that makes the loss jump and a guard that skips the jumps, so that what it remembers
/// matters.
const JUMPY: [&str; 18] = [
    "--epochs",
    "3",
    "--lr",
    "0.1",
    "--batch-size",
    "2",
    "--prompt",
    "sft",
    "--seed",
    "5",
    "--validation-fraction",
    "0.3",
    "--spike-sigma",
    "0.8",
    "--spike-window",
    "4",
    "--max-skipped-steps",
    "20",
];

/// Runs until the flag raises itself at this look, of which there is one between two steps.
fn run_until(args: &SftArgs, look: u64) -> Outcome {
    run(args, &StopFlag::at_look(look), &mut Progress::memory()).unwrap()
}

pub(super) fn steps_in(setup: &Setup, out: &str) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(setup.path(out).join("metrics.jsonl")).unwrap();
    let lines = text.lines().map(|line| {
        let mut step: serde_json::Value = serde_json::from_str(line).unwrap();
        for measured in StepMetrics::MEASURED {
            step[measured] = 0.into();
        }
        step
    });
    lines.collect()
}

/// Everything a run leaves, but times and step folders.
fn assert_same(setup: &Setup, one: &str, other: &str) {
    for file in [
        "epoch_1/model.safetensors",
        "epoch_1/manifest.json",
        "epoch_2/model.safetensors",
        "epoch_3/model.safetensors",
        "epoch_3/manifest.json",
        "epoch_3/trainer_state/optimizer.safetensors",
        "epoch_3/trainer_state/state.json",
        "losses.csv",
        "best.json",
    ] {
        let read = |out: &str| std::fs::read(setup.path(out).join(file)).unwrap();
        assert!(read(one) == read(other), "{other}: {file} differs");
    }
    assert_eq!(steps_in(setup, one), steps_in(setup, other), "{other}");
}

/// Stopped after any one step and run again: the weights, moments, order, losses, skipped steps and
/// log of an uninterrupted run, bit for bit.
#[test]
fn resume_at_every_step_changes_nothing() {
    let setup = Setup::new(StoredDtype::Bf16);
    let (outcome, events) = Setup::run(&setup.args("whole", &JUMPY));
    assert_eq!(outcome.unwrap(), Outcome::Finished);
    let skipped = |event: &&Event| matches!(event, Event::StepSkipped { .. });
    assert!(events.iter().filter(skipped).count() > 0, "the guard works");
    let num_steps = steps_in(&setup, "whole").len() as u64;
    let in_epoch = num_steps / 3;

    for step in 1..num_steps {
        let out = format!("stopped_at_{step}");
        let args = setup.args(&out, &JUMPY);
        assert_eq!(run_until(&args, step), Outcome::Interrupted);
        let saved = if step.is_multiple_of(in_epoch) {
            format!("epoch_{}", step / in_epoch)
        } else {
            format!("step_{step}")
        };
        let state = setup.path(&out).join(saved).join("trainer_state");
        assert!(verify_folder(&state).unwrap().is_some(), "{state:?}");
        let (outcome, events) = Setup::run(&args);
        assert_eq!(outcome.unwrap(), Outcome::Finished);
        let resumed =
            |event: &Event| matches!(event, Event::Resumed { step: at, .. } if *at == step);
        assert!(resumed(&events[0]), "{events:?}");
        assert_same(&setup, "whole", &out);
    }
}

/// A process for every step, with weights in f32 and a partial last window.
#[test]
fn one_step_at_a_time_changes_nothing() {
    let setup = Setup::new(StoredDtype::F32);
    let flags = [&SMALL[..], &["--validation-fraction", "0.2"]].concat();
    Setup::run(&setup.args("whole", &flags)).0.unwrap();
    let labels = steps_in(&setup, "whole").into_iter();
    let labels: Vec<u64> = labels
        .map(|step| step["label_tokens"].as_u64().unwrap())
        .collect();
    assert_eq!(labels.len(), 15);
    assert!(
        labels[4] < labels[3],
        "the last window is partial: {labels:?}"
    );
    let args = setup.args("parts", &flags);
    let mut num_runs = 1;
    while run_until(&args, 1) == Outcome::Interrupted {
        num_runs += 1;
        // What a kill during a save leaves; the next process removes it.
        std::fs::create_dir_all(setup.path("parts/.step_3.tmp-77/trainer_state")).unwrap();
    }
    assert_eq!(num_runs, 15);
    assert!(!setup.path("parts/.step_3.tmp-77").exists());
    assert_same(&setup, "whole", "parts");
}

/// The checkpoints of a run.
fn folders(setup: &Setup, out: &str) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(setup.path(out))
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .filter(|name| !["plots", "tensorboard"].contains(&name.as_str()))
        .collect();
    names.sort();
    names
}

/// Saved every two steps, but not where an epoch is saved anyway; the newest two folders stay, and
/// only the newest of all checkpoints has a state.
#[test]
fn step_checkpoints_are_kept_up_to_a_number() {
    let setup = Setup::new(StoredDtype::F32);
    let steps = ["--save-steps", "2", "--keep-step-checkpoints", "2"];
    let args = setup.args("out", &[&SMALL[..], &steps].concat());
    let (outcome, events) = Setup::run(&args);
    assert_eq!(outcome.unwrap(), Outcome::Finished);
    let expected = ["epoch_1", "epoch_2", "epoch_3", "step_12", "step_14"];
    assert_eq!(folders(&setup, "out"), expected);
    for name in expected {
        let folder = setup.path("out").join(name);
        assert!(verify_folder(&folder).unwrap().is_some());
        assert_eq!(folder.join("trainer_state").exists(), name == "epoch_3");
    }
    let saved: Vec<u64> = events
        .iter()
        .filter_map(|event| match event {
            Event::Checkpoint { step, .. } => Some(*step),
            _ => None,
        })
        .collect();
    assert_eq!(saved, [2, 4, 5, 6, 8, 10, 12, 14, 15]);
}

/// The touch-file saves after the step under way and is gone then; training goes on. What cannot be
/// removed is ignored after a warning.
#[test]
fn touch_file_saves_now() {
    let setup = Setup::new(StoredDtype::F32);
    let save_now = setup.path("out").join("save_now");
    std::fs::create_dir(setup.path("out")).unwrap();
    std::fs::write(&save_now, "").unwrap();
    let (outcome, _) = Setup::run(&setup.args("out", &SMALL));
    assert_eq!(outcome.unwrap(), Outcome::Finished);
    assert!(!save_now.exists());
    let expected = ["epoch_1", "epoch_2", "epoch_3", "step_1"];
    assert_eq!(folders(&setup, "out"), expected);

    std::fs::create_dir_all(setup.path("again/save_now")).unwrap();
    let (outcome, events) = Setup::run(&setup.args("again", &SMALL));
    assert_eq!(outcome.unwrap(), Outcome::Finished);
    let warned = |event: &&Event| matches!(event, Event::Warning { message } if message.contains("save_now"));
    assert_eq!(events.iter().filter(warned).count(), 1);
}

/// A damaged step folder is moved aside like a damaged epoch.
#[test]
fn damaged_step_is_moved_aside() {
    let setup = Setup::new(StoredDtype::F32);
    let args = setup.args("out", &SMALL);
    assert_eq!(run_until(&args, 7), Outcome::Interrupted);
    std::fs::write(setup.path("out/step_7/config.json"), "{").unwrap();
    let (outcome, events) = Setup::run(&args);
    let error = outcome.unwrap_err().to_string();
    assert!(
        error.contains("epoch_1") && error.contains("no trainer_state"),
        "{error}"
    );
    assert!(matches!(&events[..], [Event::Warning { message }] if message.contains("step_7")));
    assert!(setup.path("out/.step_7.invalid-1").exists());
}

/// The state of a trainer that wrote other fields is refused by its version.
#[test]
fn old_state_is_refused_by_version() {
    let setup = Setup::new(StoredDtype::F32);
    let args = setup.args("out", &SMALL);
    run_until(&args, 2);
    let state = setup.path("out/step_2/trainer_state");
    std::fs::write(
        state.join("state.json"),
        r#"{"format_version": 1, "counters": {}}"#,
    )
    .unwrap();
    model::manifest::Manifest::write(&state).unwrap();
    let error = Setup::run(&args).0.unwrap_err().to_string();
    assert!(
        error.contains("format_version 1, this trainer reads 2"),
        "{error}"
    );
}

/// A server that refuses connections and one that accepts them and never answers cost their time
/// limit and nothing else; what became of each is said.
#[test]
fn silent_servers_never_stop_training() {
    let setup = Setup::new(StoredDtype::F32);
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_url = format!("http://{}", silent.local_addr().unwrap());
    let servers = ["--server", "http://127.0.0.1:1", "--server", &silent_url];
    let limit = ["--server-time-limit-s", "1", "--epochs", "1"];
    let args = setup.args("out", &[&servers[..], &limit].concat());
    let (outcome, events) = Setup::run(&args);
    assert_eq!(outcome.unwrap(), Outcome::Finished);
    let told: Vec<(&str, &str)> = events
        .iter()
        .filter_map(|event| match event {
            Event::Notified {
                server, message, ..
            } => Some((server.as_str(), message.as_str())),
            _ => None,
        })
        .collect();
    let [(refusing, refusal), (accepting, silence)] = told[..] else {
        panic!("{told:?}");
    };
    assert_eq!((refusing, accepting), ("http://127.0.0.1:1", &*silent_url));
    assert!(refusal.contains("cannot connect"), "{refusal}");
    assert!(silence.contains("no answer within 1 s"), "{silence}");
}
