//! The loop, by hand (server, evaluation, bootstrapping, fine-tuning with hot swaps, evaluation) and
//! as one command.

use std::{collections::BTreeMap, fs, path::Path};

use client::{bootstrap::BootstrapSummary, eval::EvalSummary, report::results::Results};
use data::{append_log::read_log, record::Attempt};
use serde::de::DeserializeOwned;
use trainer::progress::Event;

use crate::{
    process::{Call, star, trainer},
    server::{TestServer, server_of},
    world::{BaseModel, write_questions},
};

const NUM_QUESTIONS: usize = 40;
/// Of an experiment, which holds some three in a hundred out: there must be some.
const NUM_TRAIN: usize = 300;

/// Every attempt in a run's log.
pub(crate) fn attempts(folder: &Path) -> Vec<Attempt> {
    read_log(&folder.join("attempts.jsonl"))
        .expect("a readable log")
        .records
}

pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> T {
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// `star eval` of a file with short answers.
fn eval(server: &TestServer, questions: &Path, out: &Path) -> Call {
    star(["eval", "--max-tokens", "40", "--json"])
        .with("--server", server.url())
        .with("--dataset", questions)
        .with("--out", out)
}

/// Runs an evaluation and checks that what went in is what came out, on disk as on stdout.
fn checked_eval(server: &TestServer, questions: &Path, out: &Path) -> EvalSummary {
    let printed = eval(server, questions, out).succeed();
    let summary: EvalSummary = serde_json::from_str(&printed).expect("--json prints a summary");
    assert_eq!(read_json::<EvalSummary>(&out.join("summary.json")), summary);
    assert_accounted(&summary);
    assert_eq!(attempts(out).len() as u64, summary.counts.attempts);
    summary
}

/// Questions in = right + wrong + no answer + truncated.
pub(crate) fn assert_accounted(summary: &EvalSummary) {
    let counts = summary.counts;
    assert_eq!(counts.attempts, summary.manifest.dataset.num_questions);
    assert_eq!(
        counts.attempts,
        counts.right + counts.wrong + counts.no_answer + counts.truncated,
        "{counts:?}"
    );
}

/// What the trainer said, from `--progress json`.
pub(crate) fn events(stdout: &str) -> Vec<Event> {
    let event = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
    stdout.lines().map(event).collect()
}

/// The whole loop over a live server: the base is evaluated, bootstrapped and fine-tuned; after each
/// epoch the server serves the new weights, which the version and the digest tell; then they are
/// evaluated and compared. Every count closes.
#[test]
fn the_loop_over_a_live_server() {
    let base = BaseModel::get();
    let dir = tempfile::tempdir().unwrap();
    let questions = dir.path().join("train.jsonl");
    write_questions(&questions, 0..NUM_QUESTIONS);
    let root = dir.path().join("checkpoints");
    fs::create_dir(&root).unwrap();
    let server = TestServer::start(server_of(&base.path()).with("--checkpoint-root", &root));
    let first_weights = server.weights();
    assert_eq!(first_weights.number, 1);

    let before = checked_eval(&server, &questions, &dir.path().join("before"));
    assert!(
        before.counts.right > 0 && before.counts.wrong > 0,
        "{:?}",
        before.counts
    );
    assert_eq!(before.manifest.weights.digest, first_weights.digest);

    let accepted = bootstrap_checked(&server, &questions, &dir.path().join("bootstrap"));
    let swaps = fine_tune_into(&server, &base, &accepted, &root.join("star"));
    let last_weights = server.weights();
    let last_swap = Swap {
        checkpoint: "star/epoch_2".to_owned(),
        number: Some(3),
        digest: Some(last_weights.digest.clone()),
    };
    assert_eq!(swaps.len(), 2);
    assert_eq!(swaps[0].checkpoint, "star/epoch_1");
    assert_eq!(swaps[0].number, Some(2));
    assert_eq!(swaps[1], last_swap);
    assert_eq!(last_weights.number, 3);
    assert_eq!(last_weights.checkpoint, "star/epoch_2");
    assert_ne!(swaps[0].digest, swaps[1].digest);
    assert_ne!(last_weights.digest, first_weights.digest);

    let after = checked_eval(&server, &questions, &dir.path().join("after"));
    assert_eq!(after.manifest.weights.digest, last_weights.digest);
    let made_by = |attempt: &Attempt| attempt.weights.version;
    assert!(
        attempts(&dir.path().join("after"))
            .iter()
            .all(|it| made_by(it) == 3)
    );
    let compared = star(["compare"])
        .and(dir.path().join("before"))
        .and(dir.path().join("after"))
        .succeed();
    assert!(compared.contains("exact McNemar p"), "{compared}");
    assert_eq!(server.terminate().code, Some(0));
}

/// An answer is the same whether its question is asked alone or together with all others.
#[test]
fn answers_do_not_depend_on_their_neighbours() {
    let base = BaseModel::get();
    let dir = tempfile::tempdir().unwrap();
    let questions = dir.path().join("test.jsonl");
    write_questions(&questions, 0..NUM_QUESTIONS);
    let server = TestServer::start(server_of(&base.path()));
    let [alone, together] = ["1", "100"].map(|max_in_flight| {
        let out = dir.path().join(max_in_flight);
        let call = eval(&server, &questions, &out).with("--max-in-flight", max_in_flight);
        call.succeed();
        let mut attempts = attempts(&out);
        attempts.sort_by_key(Attempt::key);
        attempts
    });
    assert_eq!(alone, together);
}

/// A swap as the trainer tells of it.
#[derive(Debug, PartialEq, Eq)]
struct Swap {
    checkpoint: String,
    number: Option<u64>,
    digest: Option<String>,
}

/// Fine-tunes for two epochs, each of which the server loads.
fn fine_tune_into(server: &TestServer, base: &BaseModel, train: &Path, out: &Path) -> Vec<Swap> {
    let told = trainer([
        "sft",
        "--progress",
        "json",
        "--epochs",
        "2",
        "--lr",
        "0.001",
    ])
    .with("--model", base.path())
    .with("--train", train)
    .with("--out", out)
    .with("--server", server.url())
    .with("--server-checkpoint-prefix", "star")
    .succeed();
    let swap = |event| match event {
        Event::Notified {
            checkpoint,
            ok,
            message,
            weights_number: number,
            weights_digest: digest,
            ..
        } => {
            assert!(ok, "{checkpoint}: {message}");
            Some(Swap {
                checkpoint,
                number,
                digest,
            })
        }
        _ => None,
    };
    events(&told).into_iter().filter_map(swap).collect()
}

/// Bootstraps; checks that every question ended in one outcome, and every accepted one in the file
/// that is given back.
fn bootstrap_checked(server: &TestServer, questions: &Path, out: &Path) -> std::path::PathBuf {
    let printed = star(["bootstrap", "--max-tokens", "40", "--json"])
        .with("--server", server.url())
        .with("--dataset", questions)
        .with("--out", out)
        .succeed();
    let summary: BootstrapSummary = serde_json::from_str(&printed).expect("--json: a summary");
    assert_eq!(summary.num_questions, NUM_QUESTIONS as u64);
    let num_ended: u64 = summary.outcomes.iter().map(|count| count.questions).sum();
    assert_eq!(num_ended, summary.num_questions, "{:?}", summary.outcomes);
    for classes in [summary.forward, summary.hint] {
        let sum = classes.right + classes.wrong + classes.no_answer + classes.truncated;
        assert_eq!(classes.attempts, sum, "{classes:?}");
    }
    assert_eq!(summary.forward.attempts, summary.num_questions);
    assert_eq!(
        attempts(out).len() as u64,
        summary.forward.attempts + summary.hint.attempts
    );
    let accepted = out.join("accepted.jsonl");
    let text = fs::read_to_string(&accepted).expect("the accepted set");
    assert_eq!(text.lines().count() as u64, summary.num_accepted);
    assert!(summary.num_accepted > 0);
    accepted
}

/// Every file below a folder with its length.
fn files_below(folder: &Path) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    let mut open = vec![folder.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).expect("a folder of ours") {
            let entry = entry.expect("a folder of ours");
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else {
                let name = path
                    .strip_prefix(folder)
                    .expect("below it")
                    .display()
                    .to_string();
                found.insert(name, entry.metadata().expect("a file of ours").len());
            }
        }
    }
    found
}

/// `star run` with its own server and trainer.
pub(crate) fn experiment(base: &BaseModel, dir: &Path, out: &Path) -> Call {
    let (train, test) = (dir.join("train.jsonl"), dir.join("test.jsonl"));
    write_questions(&train, 0..NUM_TRAIN);
    write_questions(&test, NUM_TRAIN..NUM_TRAIN + NUM_QUESTIONS);
    star([
        "run",
        "--max-tokens",
        "40",
        "--epochs",
        "2",
        "--lr",
        "0.001",
        "--threads",
        "1",
    ])
    .with("--model", base.path())
    .with("--train", &train)
    .with("--test", &test)
    .with("--out", out)
}

/// Counts of all parts of an experiment close, and the parts fit together.
pub(crate) fn assert_whole(results: &Results) {
    let inputs = &results.inputs;
    assert_eq!(inputs.num_fit + inputs.num_held_out, NUM_TRAIN as u64);
    assert_eq!(inputs.num_test, NUM_QUESTIONS as u64);
    for summary in [
        &results.zero_shot,
        &results.star.test,
        &results.vanilla.test,
    ] {
        assert_accounted(summary);
        assert_eq!(summary.counts.attempts, inputs.num_test);
    }
    let num_ended: u64 = results
        .bootstrap
        .outcomes
        .iter()
        .map(|count| count.questions)
        .sum();
    assert_eq!(num_ended, inputs.num_fit);
    let used = |variant: &client::report::results::Variant| {
        variant.num_train_examples + variant.num_validation_examples
    };
    assert_eq!(used(&results.star), results.bootstrap.num_accepted);
    assert_eq!(used(&results.vanilla), inputs.num_fit);
    for variant in [&results.star, &results.vanilla] {
        assert_eq!(variant.held_out.len(), 2);
        assert_eq!(variant.losses.epochs.len(), 2);
        let of_test = &variant.test.manifest.weights.digest;
        let chosen = &variant.held_out[variant.chosen_epoch as usize - 1].summary;
        assert_eq!(of_test, &chosen.manifest.weights.digest);
        assert_ne!(of_test, &results.zero_shot.manifest.weights.digest);
    }
}

/// One command makes the whole experiment, leaves report, results and plots, and when it is called
/// again finds everything done: it asks the model nothing and trains nothing.
#[test]
fn the_loop_as_one_command() {
    let base = BaseModel::get();
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let printed = experiment(&base, dir.path(), &out).succeed();
    assert!(
        printed.contains("zero-shot") && printed.contains("exact McNemar"),
        "{printed}"
    );
    let results: Results = read_json(&out.join("results.json"));
    assert_whole(&results);
    let page = fs::read_to_string(out.join("report.html")).unwrap();
    assert!(page.starts_with("<!doctype html>") && page.contains("</html>"));
    for plot in ["sft_star_loss", "sft_vanilla_loss", "accuracy_comparison"] {
        let png = fs::read(out.join(format!("plots/{plot}.png"))).unwrap();
        assert!(png.starts_with(b"\x89PNG\r\n\x1a\n"), "{plot}.png");
        let svg = fs::read_to_string(out.join(format!("plots/{plot}.svg"))).unwrap();
        assert!(svg.contains("<svg") && svg.contains("</svg>"), "{plot}.svg");
    }

    let is_work = |name: &String| name.ends_with("attempts.jsonl") || name.contains("/epoch_");
    let work = |folder: &Path| -> BTreeMap<String, u64> {
        files_below(folder)
            .into_iter()
            .filter(|(name, _)| is_work(name))
            .collect()
    };
    let done_before = work(&out);
    assert!(done_before.len() > 10, "{done_before:?}");
    experiment(&base, dir.path(), &out).succeed();
    assert_eq!(work(&out), done_before);
    let again: Results = read_json(&out.join("results.json"));
    assert_whole(&again);
    assert_eq!(again.star.test.counts, results.star.test.counts);
    // The time of all stages is that of the first call: the second did none of them.
    assert_eq!(again.stages, results.stages);
}
