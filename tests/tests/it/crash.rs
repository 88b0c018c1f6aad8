//! `kill -9` of each program in the middle of its work: the same command goes on, and the end is that
//! of a run which nobody disturbed.

use std::{
    fs::{self, File},
    path::Path,
};

use client::report::results::Results;
use data::record::Attempt;

use crate::{
    loops::{assert_whole, attempts, experiment, read_json},
    process::{Call, Running, star, trainer},
    server::{TestServer, server_of},
    world::{BaseModel, write_questions, write_random_model},
};

/// Examples and epochs for the trainer: enough steps that a kill falls into the middle.
const NUM_EXAMPLES: usize = 160;
const EPOCHS: &str = "4";
/// Questions to bootstrap on: many, for the same reason.
const NUM_QUESTIONS: usize = 240;

fn fine_tune(model: &Path, train: &Path, out: &Path) -> Call {
    trainer([
        "sft",
        "--progress",
        "json",
        "--batch-size",
        "2",
        "--lr",
        "0.001",
    ])
    .with("--epochs", EPOCHS)
    .with("--model", model)
    .with("--train", train)
    .with("--out", out)
}

/// A trainer killed within an epoch goes on after the newest complete one, and its last checkpoint
/// has the bits of an undisturbed run: weights, moments and settings.
#[test]
fn a_killed_trainer_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (model, train) = (dir.path().join("model"), dir.path().join("train.jsonl"));
    write_random_model(&model, 32);
    write_questions(&train, 0..NUM_EXAMPLES);
    let undisturbed = dir.path().join("undisturbed");
    fine_tune(&model, &train, &undisturbed).succeed();

    let killed = dir.path().join("killed");
    let mut running = fine_tune(&model, &train, &killed).start();
    running.wait_until("a step of the second epoch", |running| {
        let told = running.stdout();
        told.lines()
            .any(|line| line.contains(r#""event":"step""#) && line.contains(r#""epoch":2"#))
    });
    assert!(running.kill(), "it was still training");
    assert!(!killed.join(format!("epoch_{EPOCHS}")).exists());
    let told = fine_tune(&model, &train, &killed).succeed();
    assert!(told.contains(r#""event":"resumed""#), "{told}");

    for file in [
        "config.json",
        "manifest.json",
        "model.safetensors",
        "trainer_state/optimizer.safetensors",
        "trainer_state/state.json",
    ] {
        let last = |out: &Path| fs::read(out.join(format!("epoch_{EPOCHS}")).join(file)).unwrap();
        assert!(last(&killed) == last(&undisturbed), "{file} differs");
    }
    let losses = |out: &Path| fs::read_to_string(out.join("losses.csv")).unwrap();
    assert_eq!(losses(&killed), losses(&undisturbed));
    let steps = |out: &Path| {
        fs::read_to_string(out.join("metrics.jsonl"))
            .unwrap()
            .lines()
            .count()
    };
    assert_eq!(steps(&killed), steps(&undisturbed));
}

/// `star bootstrap`, greedy, a few prompts at a time, so that a kill falls into the middle.
fn bootstrap(server: &TestServer, questions: &Path, out: &Path) -> Call {
    star(["bootstrap", "--max-tokens", "40", "--max-in-flight", "2"])
        .with("--server", server.endpoint_file())
        .with("--dataset", questions)
        .with("--out", out)
}

/// Attempts in the order of their keys.
fn sorted_attempts(folder: &Path) -> Vec<Attempt> {
    let mut attempts = attempts(folder);
    attempts.sort_by_key(Attempt::key);
    attempts
}

fn num_lines(path: &Path) -> usize {
    fs::read_to_string(path).map_or(0, |text| text.matches('\n').count())
}

fn wait_for_attempts(running: &mut Running, out: &Path, count: usize) {
    let log = out.join("attempts.jsonl");
    running.wait_until("attempts in the log", |_| num_lines(&log) >= count);
}

/// The same attempts and the same accepted set, byte for byte.
fn assert_same_bootstrap(one: &Path, other: &Path) {
    assert_eq!(sorted_attempts(one), sorted_attempts(other));
    let accepted = |folder: &Path| {
        fs::read_to_string(folder.join("accepted.jsonl")).expect("the run ended well")
    };
    assert_eq!(accepted(one), accepted(other));
}

/// A bootstrapping run killed again and again, once with half a line at the end of its log, loses no
/// question and asks none twice.
#[test]
fn a_killed_bootstrap_goes_on() {
    let base = BaseModel::get();
    let dir = tempfile::tempdir().unwrap();
    let questions = dir.path().join("train.jsonl");
    write_questions(&questions, 0..NUM_QUESTIONS);
    let server = TestServer::start(server_of(&base.path()));
    let undisturbed = dir.path().join("undisturbed");
    bootstrap(&server, &questions, &undisturbed).succeed();

    let killed = dir.path().join("killed");
    let log = killed.join("attempts.jsonl");
    let mut num_kills = 0;
    for count in [1, NUM_QUESTIONS / 3, 2 * NUM_QUESTIONS / 3] {
        let mut running = bootstrap(&server, &questions, &killed).start();
        wait_for_attempts(&mut running, &killed, count);
        num_kills += u32::from(running.kill());
        assert!(
            !killed.join("summary.json").exists(),
            "the kill came too late"
        );
    }
    assert_eq!(num_kills, 3);
    // What a crash of the machine leaves: a line without its end.
    let whole = fs::metadata(&log).unwrap().len();
    File::options()
        .write(true)
        .open(&log)
        .unwrap()
        .set_len(whole - 5)
        .unwrap();
    bootstrap(&server, &questions, &killed).succeed();

    assert_same_bootstrap(&killed, &undisturbed);
    assert!(killed.join("attempts.jsonl.torn").exists());
}

/// A server killed under a bootstrapping run: the run waits for another at the same endpoint file,
/// sends again what was not answered, and ends as if nothing had happened.
#[test]
fn a_killed_server_is_waited_for() {
    let base = BaseModel::get();
    let dir = tempfile::tempdir().unwrap();
    let questions = dir.path().join("train.jsonl");
    write_questions(&questions, 0..NUM_QUESTIONS);
    let server = TestServer::start(server_of(&base.path()));
    let undisturbed = dir.path().join("undisturbed");
    bootstrap(&server, &questions, &undisturbed).succeed();

    let out = dir.path().join("out");
    let mut running = bootstrap(&server, &questions, &out).start();
    wait_for_attempts(&mut running, &out, NUM_QUESTIONS / 8);
    let endpoint = server.kill();
    assert!(running.poll().is_none(), "it waits:\n{}", running.stderr());
    let server = TestServer::start_at(server_of(&base.path()), endpoint);
    let ended = running.end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);

    assert_same_bootstrap(&out, &undisturbed);
    drop(server);
}

/// The whole experiment killed while it fine-tunes: the same command goes on, and counts and weights
/// are those of an undisturbed run.
#[test]
fn a_killed_experiment_goes_on() {
    let base = BaseModel::get();
    let dir = tempfile::tempdir().unwrap();
    let undisturbed = dir.path().join("undisturbed");
    experiment(&base, dir.path(), &undisturbed).succeed();

    let killed = dir.path().join("killed");
    let mut running = experiment(&base, dir.path(), &killed).start();
    let first_epoch = killed.join("checkpoints/star/iteration_1/epoch_1");
    running.wait_until("the first checkpoint", |_| first_epoch.exists());
    assert!(running.kill(), "it was still at work");
    assert!(!killed.join("results.json").exists());
    experiment(&base, dir.path(), &killed).succeed();

    let [one, other] =
        [&killed, &undisturbed].map(|out| read_json::<Results>(&out.join("results.json")));
    assert_whole(&one);
    assert_eq!(
        one.bootstrap.accepted_sha256,
        other.bootstrap.accepted_sha256
    );
    for (one, other) in [(&one.star, &other.star), (&one.vanilla, &other.vanilla)] {
        assert_eq!(one.chosen_epoch, other.chosen_epoch);
        assert_eq!(one.test.counts, other.test.counts);
        assert_eq!(
            one.test.manifest.weights.digest,
            other.test.manifest.weights.digest
        );
        assert_eq!(one.losses, other.losses);
    }
}
