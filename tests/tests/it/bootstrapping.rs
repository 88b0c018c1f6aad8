//! Bootstrapping over answers that are known beforehand: what is made, what is accepted and why not,
//! to the last attempt; and that kills, a full disk and a second writer change none of it.

use std::{fmt::Write as _, fs, path::Path, time::Duration};

use client::{bootstrap::BootstrapSummary, select::FateCount};
use data::{
    prompt::{PromptFormat, PromptTemplate},
    record::Attempt,
    select::{AttemptFate, Outcome},
};
use serde_json::json;

use crate::{
    loops::{attempts, read_json},
    process::{Call, Kills, kill_again_and_again, star},
    replay::{Finish, Line, Replay, ReplayServer},
};

/// A quarter of each kind, see [`forward`] and [`hints`].
const NUM_QUESTIONS: usize = 200;
const KILLS: Kills = Kills {
    count: 50,
    max_life: Duration::from_millis(600),
    seed: 11_262_026,
};
/// One answer on a stream takes so long: a run of all takes about a second.
const PACE: Duration = Duration::from_micros(500);

fn question(index: usize) -> String {
    format!("What is {index} plus nothing?")
}

fn says(text: String) -> Replay {
    Replay {
        text,
        finish: Finish::Stop,
    }
}

/// Answers to six samples. By the index modulo 4: all are right, the second in the first one's very
/// equations; only the third and the last are right; none is right (of each, one is cut in question 6);
/// none is right.
fn forward(index: usize) -> Vec<Replay> {
    let right = |sample: usize| {
        let equation = if sample == 1 { 0 } else { sample };
        let sum = index + equation;
        says(format!(
            "Say {sample}: {index} + {equation} = {sum}.\n#### {index}"
        ))
    };
    let wrong = |sample: usize| says(format!("{sample} + 1 = {}.\n#### 100000", sample + 1));
    let mut answers: Vec<Replay> = (0..6)
        .map(|sample| match index % 4 {
            0 => right(sample),
            1 if sample == 2 || sample == 5 => right(sample),
            _ => wrong(sample),
        })
        .collect();
    if index == 6 {
        answers[3].finish = Finish::Length;
    }
    answers
}

/// Answers to two hint attempts: the first leans on the hint, and the second is right where the index
/// is 2 modulo 4; all others are wrong.
fn hints(index: usize) -> Vec<Replay> {
    if index % 4 == 2 {
        vec![
            says(format!("Since the answer is {index}, it is.\n#### {index}")),
            says(format!(
                "We add {index} + 0 = {index}.\nThat is all.\n#### {index}"
            )),
        ]
    } else {
        vec![
            says("#### 100000".to_owned()),
            says("#### 100001".to_owned()),
        ]
    }
}

/// Writes the questions and the answers to them; gives the server.
fn world(dir: &Path) -> ReplayServer {
    let (forward_prompt, hint_prompt) = (
        PromptTemplate::by_name("qa").expect("a built-in prompt"),
        PromptTemplate::by_name("hint").expect("a built-in prompt"),
    );
    let (mut questions, mut answers) = (String::new(), String::new());
    for index in 0..NUM_QUESTIONS {
        let text = question(index);
        let line = json!({ "id": format!("q{index}"), "question": text, "answer": format!("#### {index}") });
        writeln!(questions, "{line}").expect("writing to memory cannot fail");
        let gold = data::number::Number::parse(&index.to_string()).expect("a number");
        let prompts = [
            (
                forward_prompt.render(&text, PromptFormat::Plain),
                forward(index),
            ),
            (
                hint_prompt.render_hint(&text, gold, PromptFormat::Plain),
                hints(index),
            ),
        ];
        for (prompt, replays) in prompts {
            let asked = prompt.expect("the right kind of prompt");
            let data::conversation::Asked::Text(prompt) = asked else {
                panic!("a text");
            };
            let line = Line {
                prompt,
                answers: replays,
            };
            let line = serde_json::to_string(&line).expect("plain text");
            writeln!(answers, "{line}").expect("writing to memory cannot fail");
        }
    }
    fs::write(dir.join("train.jsonl"), questions).expect("a temporary file");
    fs::write(dir.join("answers.jsonl"), answers).expect("a temporary file");
    ReplayServer::start(&dir.join("answers.jsonl"), PACE)
}

/// Four samples of each question, two more where they differ, then two hint attempts.
fn bootstrap(server: &ReplayServer, dir: &Path, out: &Path) -> Call {
    star([
        "bootstrap",
        "--samples",
        "4",
        "--extra-samples",
        "2",
        "--hint-attempts",
        "2",
    ])
    .with("--prompt", "qa")
    .with("--server", server.url())
    .with("--dataset", dir.join("train.jsonl"))
    .with("--out", out)
}

/// Every attempt and every question has the fate that the answers' kinds foretell.
#[test]
fn counts_are_as_foretold() {
    let dir = tempfile::tempdir().unwrap();
    let server = world(dir.path());
    let out = dir.path().join("run");
    bootstrap(&server, dir.path(), &out).succeed();
    let summary: BootstrapSummary = read_json(&out.join("summary.json"));
    let outcome = |wanted: Outcome| {
        let found = summary.outcomes.iter().find(|it| it.outcome == wanted);
        found.map_or(0, |it| it.questions)
    };
    let quarter = NUM_QUESTIONS as u64 / 4;
    assert_eq!(outcome(Outcome::AcceptedForward), 2 * quarter);
    assert_eq!(outcome(Outcome::AcceptedHint), quarter);
    assert_eq!(outcome(Outcome::Wrong), quarter);
    assert_eq!(summary.forward.attempts, 4 * 4 * quarter + 2 * quarter);
    assert_eq!(summary.forward.truncated, 1);
    assert_eq!(summary.hint.attempts, 2 * 2 * quarter);
    let fate = |fate, attempts| FateCount { fate, attempts };
    assert_eq!(
        summary.attempts,
        [
            fate(AttemptFate::Kept, (3 + 2 + 1) * quarter),
            fate(AttemptFate::Duplicate, quarter),
            fate(AttemptFate::Leaked, quarter),
            fate(AttemptFate::Wrong, (4 + 4 + 6) * quarter - 1),
            fate(AttemptFate::Truncated, 1),
        ]
    );
    assert_eq!(summary.num_accepted, (3 + 2 + 1) * quarter);
    let share = 1.0 / 6.0;
    assert!((summary.hint_share - share).abs() < 1e-9);
    assert_eq!(attempts(&out).len() as u64, 22 * quarter);
}

/// The attempts in an order of their own, and the accepted set as it stands.
fn essence(out: &Path) -> (Vec<Attempt>, String) {
    let mut attempts = attempts(out);
    attempts.sort_by_key(Attempt::key);
    let accepted = fs::read_to_string(out.join("accepted.jsonl")).expect("the run ended well");
    (attempts, accepted)
}

/// Killed fifty times at random moments: the same command goes on each time, and every run that comes
/// to its end has exactly the attempts and the set of one that was left alone.
#[test]
fn fifty_kills_lose_and_double_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let server = world(dir.path());
    let undisturbed = dir.path().join("undisturbed");
    bootstrap(&server, dir.path(), &undisturbed).succeed();
    let expected = essence(&undisturbed);

    kill_again_and_again(
        KILLS,
        dir.path(),
        |out| bootstrap(&server, dir.path(), out),
        |out| assert_eq!(essence(out), expected),
    );
}

/// A disk that is full in the middle of a run: a sentence names the file, whole lines stay, and the
/// same command completes the run once there is room.
#[test]
fn a_full_disk_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let server = world(dir.path());
    let undisturbed = dir.path().join("undisturbed");
    bootstrap(&server, dir.path(), &undisturbed).succeed();
    let len = fs::metadata(undisturbed.join("attempts.jsonl"))
        .unwrap()
        .len();
    let out = dir.path().join("full");
    for part in 1..=3 {
        let num_blocks = u32::try_from(len * part / 4 / 512).unwrap();
        let call = bootstrap(&server, dir.path(), &out).with_small_files(num_blocks);
        let error = call.fail_with(1);
        assert!(error.contains("attempts.jsonl"), "{error}");
        let log = fs::read_to_string(out.join("attempts.jsonl")).unwrap();
        assert!(log.ends_with('\n') && !log.is_empty());
    }
    bootstrap(&server, dir.path(), &out).succeed();
    assert_eq!(essence(&out), essence(&undisturbed));
}

/// One log has one writer: a second run for the same folder is refused and names the first.
#[test]
fn a_second_writer_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let server = world(dir.path());
    let out = dir.path().join("run");
    let mut first = bootstrap(&server, dir.path(), &out).start();
    first.wait_until("the first attempt", |_| {
        fs::metadata(out.join("attempts.jsonl")).is_ok_and(|it| it.len() > 0)
    });
    let error = bootstrap(&server, dir.path(), &out).fail_with(1);
    assert!(
        error.contains("is being written by another process"),
        "{error}"
    );
    assert_eq!(first.end().code, Some(0));
}
