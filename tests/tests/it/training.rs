//! A fine-tuning that is stopped, killed, short of disk or watched by a server, as a process: the same
//! command goes on, and the end is that of a run which nobody disturbed.

use std::{
    fs,
    path::{Path, PathBuf},
};

use client::eval::EvalSummary;
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use trainer::{best::Best, metrics::StepMetrics, progress::Event};

use crate::{
    loops::{events, read_json},
    process::{Call, Running, free_port, star, trainer},
    server::{TestServer, server_of},
    world::{BaseModel, write_questions, write_random_model},
};

const NUM_KILLS: usize = 20;
/// Of the kill points.
const SEED: u64 = 20;
const EPOCHS: u32 = 3;

/// A model, data, and one undisturbed run on them.
struct Scene {
    dir: TempDir,
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        write_random_model(&dir.path().join("model"), 32);
        write_questions(&dir.path().join("train.jsonl"), 0..100);
        let scene = Self { dir };
        scene.fine_tune("undisturbed").succeed();
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn fine_tune(&self, out: &str) -> Call {
        trainer(["sft", "--progress", "json", "--batch-size", "2"])
            .with("--lr", "0.001")
            .with("--epochs", EPOCHS.to_string())
            .with("--save-steps", "5")
            .with("--validation-fraction", "0.2")
            .with("--spike-sigma", "3")
            .with("--spike-window", "8")
            .with("--model", self.path("model"))
            .with("--train", self.path("train.jsonl"))
            .with("--out", self.path(out))
    }

    /// Weights, moments, state and logs are those of the undisturbed run.
    fn assert_undisturbed(&self, out: &str) {
        let last = format!("epoch_{EPOCHS}/trainer_state");
        let mut files = vec![
            format!("{last}/optimizer.safetensors"),
            format!("{last}/state.json"),
            "losses.csv".to_owned(),
            "best.json".to_owned(),
        ];
        for epoch in 1..=EPOCHS {
            files.push(format!("epoch_{epoch}/model.safetensors"));
            files.push(format!("epoch_{epoch}/manifest.json"));
        }
        for file in files {
            let read = |out: &str| fs::read(self.path(out).join(&file)).expect("a file of a run");
            assert!(read(out) == read("undisturbed"), "{out}: {file} differs");
        }
        let [steps, expected] = [out, "undisturbed"].map(|out| step_lines(&self.path(out)));
        assert_eq!(steps, expected, "{out}");
    }
}

/// `metrics.jsonl` without what the clock decides.
pub(crate) fn step_lines(out: &Path) -> Vec<Value> {
    let text = fs::read_to_string(out.join("metrics.jsonl")).expect("a run's log");
    let lines = text.lines().map(|line| {
        let mut step: Value = serde_json::from_str(line).expect("a whole line");
        for measured in StepMetrics::MEASURED {
            step[measured] = Value::Null;
        }
        step
    });
    lines.collect()
}

pub(crate) fn num_steps(running: &Running) -> usize {
    running.stdout().matches(r#""event":"step""#).count()
}

/// Whether a checkpoint is being written or removed.
fn is_saving(out: &Path) -> bool {
    let names = fs::read_dir(out).into_iter().flatten().flatten();
    names
        .map(|entry| entry.file_name())
        .any(|name| name.to_string_lossy().contains(".tmp-"))
}

/// SIGTERM, SIGINT and SIGUSR1 in the middle of an epoch: the step is finished, saved, and the exit
/// code says that the same command goes on.
#[test]
fn a_signal_saves_the_step() {
    let scene = Scene::new();
    for (out, signal) in [
        ("term", Signal::TERM),
        ("int", Signal::INT),
        ("usr1", Signal::USR1),
    ] {
        let mut running = scene.fine_tune(out).start();
        running.wait_until("a few steps", |running| num_steps(running) >= 7);
        let ended = running.end_by(signal);
        assert_eq!(ended.code, Some(75), "{}", ended.stderr);
        let Some(Event::Done {
            steps,
            interrupted: true,
            path: Some(path),
            ..
        }) = events(&ended.stdout).pop()
        else {
            panic!("{}", ended.stdout)
        };
        let state = path.join("trainer_state/state.json");
        let position = &read_json::<Value>(&state)["position"];
        assert_eq!(position["counters"]["steps"], steps);

        let told = scene.fine_tune(out).succeed();
        let resumed = &events(&told)[0];
        assert!(
            matches!(resumed, Event::Resumed { step, .. } if *step == steps),
            "{resumed:?}"
        );
        scene.assert_undisturbed(out);
    }
}

/// Where a process is killed.
#[derive(Debug, Clone, Copy)]
enum KillPoint {
    /// After so many steps of its own; between and within steps.
    Steps(usize),
    /// While a checkpoint is being written, or an old one removed, after so many steps.
    Saving(usize),
    /// Before it has said anything: while it looks for what an earlier one left.
    Start,
}

/// SplitMix64 (Steele, Lea, Flood 2014) over a counter.
fn kill_point(number: usize) -> KillPoint {
    let mut z = (SEED << 32 | number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let steps = (z >> 40) as usize % 12;
    match z % 8 {
        0 => KillPoint::Start,
        1..=4 => KillPoint::Saving(steps),
        _ => KillPoint::Steps(steps),
    }
}

/// Killed twenty times at seeded points, in steps, in saves and at the start: no step is lost that was
/// saved, none is done twice, and the end has the bits of the undisturbed run.
#[test]
fn twenty_kills_change_nothing() {
    let scene = Scene::new();
    let mut num_kills = 0;
    let mut num_in_saves = 0;
    let mut num_runs = 0;
    while num_kills < NUM_KILLS || num_runs == 0 {
        // A run that came to its end meanwhile is checked; the kills go on in the next one.
        let out = format!("killed_{num_runs}");
        let folder = scene.path(&out);
        while num_kills < NUM_KILLS {
            let point = kill_point(num_kills);
            let mut running = scene.fine_tune(&out).start();
            let mut has_ended = false;
            crate::process::wait_for("the kill point", || {
                has_ended = running.poll().is_some();
                let is_there = match point {
                    KillPoint::Start => true,
                    KillPoint::Steps(steps) => num_steps(&running) >= steps,
                    KillPoint::Saving(steps) => num_steps(&running) >= steps && is_saving(&folder),
                };
                (has_ended || is_there).then_some(())
            });
            if has_ended || !running.kill() {
                break;
            }
            num_kills += 1;
            num_in_saves += usize::from(is_saving(&folder));
        }
        scene.fine_tune(&out).succeed();
        assert!(!is_saving(&folder), "what kills left is gone");
        scene.assert_undisturbed(&out);
        num_runs += 1;
    }
    assert!(num_in_saves > 0, "some kills fall into a save");
}

/// A file that cannot be written ends the run with an error that names it; what was saved before
/// stays, and with room again the same command goes on.
#[test]
fn a_full_disk_costs_no_checkpoint() {
    let scene = Scene::new();
    // Weights fit, moments do not.
    let size = |name: &str| {
        let path = scene.path(&format!("undisturbed/epoch_{EPOCHS}/{name}"));
        fs::metadata(path).unwrap().len()
    };
    let (weights, moments) = (
        size("model.safetensors"),
        size("trainer_state/optimizer.safetensors"),
    );
    assert!(moments > weights + 1024, "{weights} {moments}");
    let blocks = u32::try_from(u64::midpoint(weights, moments) / 512).unwrap();

    let mut running = scene.fine_tune("out").start();
    running.wait_until("a few steps", |running| num_steps(running) >= 7);
    assert_eq!(running.terminate().code, Some(75));
    let error = scene.fine_tune("out").with_small_files(blocks).fail_with(1);
    assert!(
        error.contains("trainer_state/optimizer.safetensors"),
        "{error}"
    );
    assert!(error.contains("too large"), "{error}");
    assert!(!is_saving(&scene.path("out")), "no half folder stays");
    let told = scene.fine_tune("out").succeed();
    assert!(told.contains(r#""event":"resumed""#), "{told}");
    scene.assert_undisturbed("out");
}

/// The trainer asks the live server what `star eval` asks it, and counts the same; the best epoch is
/// chosen by it.
#[test]
fn accuracy_is_that_of_an_evaluation() {
    let base = BaseModel::get();
    let dir = tempfile::tempdir().unwrap();
    let questions = dir.path().join("questions.jsonl");
    write_questions(&questions, 0..40);
    let root = dir.path().join("checkpoints");
    fs::create_dir(&root).unwrap();
    let server = TestServer::start(server_of(&base.path()).with("--checkpoint-root", &root));
    let told = trainer(["sft", "--progress", "json", "--epochs", "2"])
        .with("--lr", "0.0005")
        .with("--model", base.path())
        .with("--train", &questions)
        .with("--out", root.join("run"))
        .with("--server", server.url())
        .with("--server-checkpoint-prefix", "run")
        .with("--accuracy-questions", &questions)
        .with("--accuracy-max-new-tokens", "40")
        .with("--best-by", "accuracy")
        .succeed();
    let measured: Vec<(u32, u64, u64, u64)> = events(&told)
        .into_iter()
        .filter_map(|event| match event {
            Event::Accuracy {
                epoch,
                num_right,
                num_questions,
                num_truncated,
                ..
            } => Some((epoch, num_right, num_questions, num_truncated)),
            _ => None,
        })
        .collect();
    let evaluated = star(["eval", "--max-tokens", "40", "--json"])
        .with("--server", server.url())
        .with("--dataset", &questions)
        .with("--out", dir.path().join("eval"))
        .succeed();
    let counts = serde_json::from_str::<EvalSummary>(&evaluated)
        .unwrap()
        .counts;
    assert_eq!(measured.len(), 2, "{told}");
    assert_eq!(measured[1], (2, counts.right, 40, counts.truncated));

    let best = Best::read(&root.join("run")).expect("best.json");
    let shares: Vec<f64> = best.values.iter().map(|value| value.value).collect();
    let expected = measured
        .iter()
        .map(|(_, right, all, _)| *right as f64 / *all as f64);
    assert_eq!(shares, expected.collect::<Vec<_>>());
    let most = measured.iter().map(|(_, right, ..)| *right).max();
    assert_eq!(Some(measured[best.epoch as usize - 1].1), most);
}

/// Two processes that a launcher has started train as one: the bits of the undisturbed run, also when
/// one of them is killed in the middle and the other, left alone, gives up.
#[test]
fn two_ranks_are_one_run() {
    let scene = Scene::new();
    let rank = |rank: usize, port: u16, limit: &str| {
        scene
            .fine_tune("ranks")
            .with("--group-time-limit-s", limit)
            .with_rank(rank, port)
            .start()
    };
    let port = free_port();
    let mut first = rank(0, port, "20");
    let second = rank(1, port, "20");
    first.wait_until("a few steps", |running| num_steps(running) >= 7);
    assert!(second.kill());
    let left = first.end();
    assert_eq!(left.code, Some(1), "{}", left.stderr);
    assert!(left.stderr.contains("rank 1"), "{}", left.stderr);

    let port = free_port();
    let ranks = [rank(0, port, "60"), rank(1, port, "60")];
    for ended in ranks.map(Running::end) {
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    }
    scene.assert_undisturbed("ranks");
}

/// What `trainer plan` says before a weight is read is within a tenth of what the run then takes.
#[test]
fn the_plan_is_near_the_peak() {
    let dir = tempfile::tempdir().unwrap();
    write_random_model(&dir.path().join("model"), 384);
    write_questions(&dir.path().join("train.jsonl"), 0..64);
    for (number, flags) in [
        vec![],
        vec!["--checkpointing", "on"],
        vec!["--precision", "bf16-weights", "--moments", "int8"],
        vec!["--method", "lora", "--base", "int8", "--lora-rank", "64"],
    ]
    .into_iter()
    .enumerate()
    {
        let out = dir.path().join(format!("out{number}"));
        let call = |command: &str| {
            let call = trainer([command, "--progress", "json", "--epochs", "1"])
                .with("--batch-size", "64")
                .with("--model", dir.path().join("model"))
                .with("--train", dir.path().join("train.jsonl"))
                .with("--out", &out);
            flags.iter().fold(call, |call, flag| call.and(*flag))
        };
        let plan: Value = serde_json::from_str(&call("plan").succeed()).expect("a plan");
        assert!(!out.exists(), "a plan writes nothing");
        let number = |value: &Value| value.as_f64().expect("a number");
        let planned = number(&plan["memory"]["peak"]) + number(&plan["program"]);
        call("sft").succeed();
        let lines = fs::read_to_string(out.join("metrics.jsonl")).unwrap();
        let last: Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
        let measured = number(&last["peak_resident_bytes"]);
        assert_eq!(plan["steps"], lines.lines().count());
        let ratio = planned / measured;
        eprintln!("{flags:?}: planned {planned}, measured {measured}: {ratio:.3}");
        assert!(
            (0.9..1.1).contains(&ratio),
            "{flags:?}: {planned} {measured}"
        );
    }
}

/// A live server loads each epoch of a LoRA run over an int8 base, since its folder is a merged model.
#[test]
fn a_server_loads_what_lora_has_learned() {
    let base = BaseModel::get();
    let dir = tempfile::tempdir().unwrap();
    write_questions(&dir.path().join("train.jsonl"), 0..40);
    let root = dir.path().join("checkpoints");
    fs::create_dir(&root).unwrap();
    let server = TestServer::start(server_of(&base.path()).with("--checkpoint-root", &root));
    let told = trainer(["sft", "--progress", "json", "--epochs", "2"])
        .with("--method", "lora")
        .with("--base", "int8")
        .with("--precision", "bf16")
        .with("--model", base.path())
        .with("--train", dir.path().join("train.jsonl"))
        .with("--out", root.join("run"))
        .with("--server", server.url())
        .with("--server-checkpoint-prefix", "run")
        .succeed();
    let loaded: Vec<(String, bool)> = events(&told)
        .into_iter()
        .filter_map(|event| match event {
            Event::Notified { checkpoint, ok, .. } => Some((checkpoint, ok)),
            _ => None,
        })
        .collect();
    let expected = ["run/epoch_1", "run/epoch_2"].map(|name| (name.to_owned(), true));
    assert_eq!(loaded, expected, "{told}");
    assert!(
        root.join("run/epoch_2/adapter/adapter_model.safetensors")
            .exists()
    );
}
