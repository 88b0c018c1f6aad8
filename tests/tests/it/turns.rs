//! The STaR loop over several turns, as one command: who answers and what is learned in each turn,
//! and that a run killed anywhere, any number of times, ends as if it had not been.

use std::{fs, path::Path, time::Duration};

use client::report::results::{Iteration, Results};
use data::stats::Interval;

use crate::{
    loops::{assert_accounted, assert_whole, attempts, experiment, read_json},
    process::{Call, Kills, kill_again_and_again},
    world::BaseModel,
};

const KILLS: Kills = Kills {
    count: 50,
    // Longer than any stage takes on a machine that is not busy.
    max_life: Duration::from_millis(1500),
    seed: 20_261_126,
};

/// Two turns, whatever the held-out questions say.
fn two_turns(base: &BaseModel, dir: &Path, out: &Path) -> Call {
    experiment(base, dir, out)
        .with("--iterations", "2")
        .with("--patience", "0")
}

/// The weights that a turn's chosen epoch has.
fn digest(turn: &Iteration) -> &str {
    &turn.held_out.manifest.weights.digest
}

/// Every turn asks the weights of the turn before, learns its own rationales, and counts close; the
/// test questions are put to the chosen turn only, and of the other epochs no weights stay.
#[test]
fn turns_follow_each_other() {
    let base = BaseModel::get();
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    two_turns(&base, dir.path(), &out).succeed();
    let results: Results = read_json(&out.join("results.json"));
    assert_whole(&results);
    let [first, second] = results.iterations.as_slice() else {
        panic!("{} iterations", results.iterations.len());
    };
    let of_base = &results.zero_shot.manifest.weights.digest;
    assert_eq!(&first.bootstrap.manifest.weights.digest, of_base);
    assert_eq!(second.bootstrap.manifest.weights.digest, digest(first));
    assert_ne!(digest(first), of_base);

    let best = |turn: &Iteration| turn.held_out.counts.right;
    let chosen = if best(second) > best(first) { 2 } else { 1 };
    let of_test = &results.star.test.manifest.weights.digest;
    assert_eq!(of_test, digest(&results.iterations[chosen - 1]));
    assert_eq!(results.bootstrap, results.iterations[chosen - 1].bootstrap);
    for turn in &results.iterations {
        let iteration = turn.iteration;
        let folder = out.join(format!("bootstrap/iteration_{iteration}"));
        let made = attempts(&folder);
        assert!(made.iter().all(|it| it.iteration == iteration));
        assert_eq!(
            made.len() as u64,
            turn.bootstrap.forward.attempts + turn.bootstrap.hint.attempts
        );
        assert_accounted(&turn.held_out);
        let tested = out.join(format!("test_star_iteration_{iteration}"));
        assert_eq!(tested.exists(), iteration == chosen as u32);
        let weights = out.join(format!("checkpoints/star/iteration_{iteration}"));
        for epoch in 1..=2 {
            let kept = weights.join(format!("epoch_{epoch}")).exists();
            assert_eq!(kept, epoch == turn.chosen_epoch, "epoch {epoch}");
        }
    }
}

/// The same command over a finished experiment finds the same; with another setting it is refused,
/// and no file changes.
#[test]
fn a_finished_experiment_stays_as_it_is() {
    let base = BaseModel::get();
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    experiment(&base, dir.path(), &out).succeed();
    let results: Results = read_json(&out.join("results.json"));
    experiment(&base, dir.path(), &out).succeed();
    let again: Results = read_json(&out.join("results.json"));
    assert_eq!(again.iterations, results.iterations);

    let file = |name: &str| fs::read(out.join("data").join(name)).unwrap();
    let files = || ["fit.jsonl", "held_out.jsonl", "solutions.jsonl"].map(file);
    let before = files();
    let other = experiment(&base, dir.path(), &out).with("--seed", "8");
    let other = other.start().end();
    assert_eq!(other.code, Some(1), "{}", other.stderr);
    assert!(other.stderr.contains("another seed"), "{}", other.stderr);
    assert!(before == files());
}

/// From the previous weights, over all rationales so far, growing, with a test after each turn.
#[test]
fn turns_as_they_are_asked_for() {
    let base = BaseModel::get();
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    two_turns(&base, dir.path(), &out)
        .with("--restart", "previous")
        .with("--rationales", "all-iterations")
        .with("--growth", "2")
        .with("--choose-epoch", "last")
        .and("--test-each-iteration")
        .succeed();
    let results: Results = read_json(&out.join("results.json"));
    let epochs: Vec<u32> = results
        .iterations
        .iter()
        .map(|it| it.chosen_epoch)
        .collect();
    assert_eq!(epochs, [2, 4]);
    for turn in &results.iterations {
        let test = turn.test.as_ref().expect("it was tested");
        assert_eq!(test.manifest.weights.digest, digest(turn));
    }
    let lines = |iteration: u32| {
        let file = out.join(format!("data/star_iteration_{iteration}.jsonl"));
        fs::read_to_string(file).unwrap().lines().count()
    };
    // A question that the first turn accepted is one of the second turn's, too.
    assert!(lines(2) >= lines(1), "{} of {}", lines(2), lines(1));
    let log = fs::read_to_string(out.join("trainer_star_iteration_2.log")).unwrap();
    assert!(
        log.contains("--model") && log.contains("star/iteration_1/epoch_2"),
        "{log}"
    );
}

/// Killed fifty times at random moments: the same command goes on each time, and every experiment
/// that comes to its end has the numbers and the weights of one that was left alone.
#[test]
fn fifty_kills_change_nothing() {
    let base = BaseModel::get();
    let dir = tempfile::tempdir().unwrap();
    let undisturbed = dir.path().join("undisturbed");
    two_turns(&base, dir.path(), &undisturbed).succeed();
    let expected = essence(&undisturbed);

    kill_again_and_again(
        KILLS,
        dir.path(),
        |out| two_turns(&base, dir.path(), out),
        |out| assert_eq!(essence(out), expected),
    );
}

/// What may not depend on kills.
#[derive(Debug, PartialEq)]
struct Essence {
    turns: Vec<(u32, String, u64, u32, String)>,
    tests: Vec<(String, u64)>,
    comparisons: Vec<(f64, Interval)>,
    losses: [client::report::plots::LossCurve; 2],
}

fn essence(out: &Path) -> Essence {
    let results: Results = read_json(&out.join("results.json"));
    assert_whole(&results);
    let turn = |it: &Iteration| {
        (
            it.iteration,
            it.bootstrap.accepted_sha256.clone(),
            it.num_train_examples,
            it.chosen_epoch,
            digest(it).to_owned(),
        )
    };
    let test = |summary: &client::eval::EvalSummary| {
        let digest = summary.manifest.weights.digest.clone();
        (digest, summary.counts.right)
    };
    Essence {
        turns: results.iterations.iter().map(turn).collect(),
        tests: vec![
            test(&results.zero_shot),
            test(&results.star.test),
            test(&results.vanilla.test),
        ],
        comparisons: results
            .comparisons
            .iter()
            .map(|it| (it.difference, it.interval))
            .collect(),
        losses: [results.star.losses, results.vanilla.losses],
    }
}
