use clap::Parser;
use model::manifest::verify_folder;
use model::template::ChatMessage;
use model::tokenizer::Prompt;
use serde_json::json;

use super::examples::encode;
use super::*;
use crate::cli::args::{Arguments, Command};
use crate::dataset::{Line, LineText};
use crate::testing::write_model_folder;

/// A base model and a GSM8K-style file in a folder of their own.
struct Setup {
    dir: tempfile::TempDir,
}

impl Setup {
    fn new(dtype: StoredDtype) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("base")).unwrap();
        write_model_folder(&dir.path().join("base"), dtype);
        let lines: String = (0..20)
            .map(|n| {
                let question = format!("Tom has {n} pens and buys {}. How many?", n + 1);
                let answer = format!("{n} + {} = {}\n#### {}", n + 1, 2 * n + 1, 2 * n + 1);
                json!({ "question": question, "answer": answer }).to_string() + "\n"
            })
            .collect();
        std::fs::write(dir.path().join("train.jsonl"), lines).unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    /// `trainer sft` with these flags beside model, data and folder.
    fn args(&self, out: &str, more: &[&str]) -> SftArgs {
        let path = |name: &str| self.path(name).display().to_string();
        let (base, train, out) = (path("base"), path("train.jsonl"), path(out));
        let fixed = [
            "trainer", "sft", "--model", &base, "--train", &train, "--out", &out,
        ];
        let arguments = Arguments::try_parse_from(fixed.iter().chain(more)).unwrap();
        match arguments.command {
            Command::Sft(args) => *args,
            Command::Pretrain(_) => panic!("asked for sft"),
        }
    }

    fn run(args: &SftArgs) -> (Result<Outcome>, Vec<Event>) {
        let mut progress = Progress::memory();
        let outcome = run(args, &StopFlag::default(), &mut progress);
        (outcome, progress.events().to_vec())
    }
}

const SMALL: [&str; 10] = [
    "--epochs",
    "3",
    "--lr",
    "1e-2",
    "--batch-size",
    "4",
    "--prompt",
    "sft",
    "--seed",
    "5",
];

/// The first label is the first token of the answer, the last is end-of-text, and the ids before are
/// those that the evaluation prompt has.
#[test]
fn labels_cover_the_answer_and_its_end() {
    let setup = Setup::new(StoredDtype::F32);
    let tokenizer = ModelTokenizer::load(&setup.path("base")).unwrap();
    let template = PromptTemplate::by_name("basic").unwrap();
    let (_, lines) = read_lines(&setup.path("train.jsonl"), None).unwrap();
    for line in &lines {
        let LineText::Question {
            question,
            completion,
        } = &line.text
        else {
            panic!("{line:?}")
        };
        let example = encode(line, &tokenizer, &template, PromptFormat::Plain).unwrap();
        let prompt = Prompt::Text(template.render(question).unwrap());
        let (before, labels) = example.ids.split_at(example.label_start);
        assert_eq!(before, tokenizer.encode_prompt(&prompt).unwrap());
        assert_eq!(labels.last().copied(), tokenizer.text_end_id());
        assert_eq!(tokenizer.decode(labels).unwrap(), format!(" {completion}"));
        assert!(!example.split_at_border);
    }
}

/// Interrupted after epoch 1 and run again, or never interrupted: the same files, bit for bit, with
/// weights stored in bf16.
#[test]
fn resume_equals_an_uninterrupted_run() {
    let setup = Setup::new(StoredDtype::Bf16);
    Setup::run(&setup.args("whole", &SMALL)).0.unwrap();
    let args = setup.args("parts", &SMALL);
    assert_eq!(
        interrupt_after_epoch_one(args.clone()),
        Outcome::Interrupted
    );
    // What a kill during a save leaves.
    std::fs::create_dir_all(setup.path("parts/.epoch_2.tmp-77")).unwrap();
    std::fs::write(
        setup.path("parts/.epoch_2.tmp-77/model.safetensors"),
        "half",
    )
    .unwrap();
    let (outcome, events) = Setup::run(&args);
    assert_eq!(outcome.unwrap(), Outcome::Finished);
    assert!(
        matches!(events.first(), Some(Event::Resumed { epoch: 1, .. })),
        "{events:?}"
    );
    assert!(!setup.path("parts/.epoch_2.tmp-77").exists());
    for file in [
        "epoch_2/model.safetensors",
        "epoch_3/model.safetensors",
        "epoch_3/manifest.json",
        "epoch_3/trainer_state/optimizer.safetensors",
        "epoch_3/trainer_state/state.json",
        "losses.csv",
    ] {
        let read = |out: &str| std::fs::read(setup.path(out).join(file)).unwrap();
        assert!(read("whole") == read("parts"), "{file} differs");
    }
    let lines = |out: &str| {
        let text = std::fs::read_to_string(setup.path(out).join("metrics.jsonl")).unwrap();
        text.lines().count()
    };
    assert_eq!(lines("whole"), lines("parts"));
}

/// Runs until the end of epoch 1: a server that is told of epoch 1 asks for the stop, then
/// hangs up.
fn interrupt_after_epoch_one(mut args: SftArgs) -> Outcome {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    args.notify.server = vec![listener.local_addr().unwrap().to_string()];
    let stop = StopFlag::default();
    let raiser = {
        let stop = stop.clone();
        std::thread::spawn(move || {
            let connection = listener.accept().unwrap();
            stop.raise();
            drop(connection);
        })
    };
    let outcome = run(&args, &stop, &mut Progress::memory()).unwrap();
    raiser.join().unwrap();
    outcome
}

/// A stop in the last step of an epoch keeps the epoch; the same command goes on after it.
#[test]
fn stop_in_the_last_step_saves_the_epoch() {
    let setup = Setup::new(StoredDtype::F32);
    let args = setup.args("out", &["--epochs", "2", "--batch-size", "32"]);
    let stop = StopFlag::default();
    stop.raise();
    for (epoch, expected) in [(1, Outcome::Interrupted), (2, Outcome::Finished)] {
        let outcome = run(&args, &stop, &mut Progress::memory()).unwrap();
        assert_eq!(outcome, expected);
        let folder = setup.path(&format!("out/epoch_{epoch}"));
        assert!(verify_folder(&folder).unwrap().is_some());
        assert!(!setup.path(&format!("out/epoch_{}", epoch + 1)).exists());
    }
}

/// The servers are told again of the epoch that a run goes on from: an earlier process may have
/// ended between saving it and telling them.
#[test]
fn resumed_epoch_is_told_again() {
    let setup = Setup::new(StoredDtype::F32);
    let fixed = ["--epochs", "1", "--batch-size", "32"];
    Setup::run(&setup.args("out", &fixed)).0.unwrap();
    let more = [&fixed[..], &["--server", "http://127.0.0.1:1"]].concat();
    let (outcome, events) = Setup::run(&setup.args("out", &more));
    assert_eq!(outcome.unwrap(), Outcome::Finished);
    let told = |event: &Event| matches!(event, Event::Notified { checkpoint, .. } if checkpoint == "epoch_1");
    assert!(events.iter().any(told), "{events:?}");
}

/// A trainer state whose manifest is gone cannot be checked, so it is not resumed from.
#[test]
fn state_without_manifest_is_refused() {
    let setup = Setup::new(StoredDtype::F32);
    let args = setup.args("out", &["--epochs", "1", "--batch-size", "32"]);
    Setup::run(&args).0.unwrap();
    std::fs::remove_file(setup.path("out/epoch_1/trainer_state/manifest.json")).unwrap();
    let error = Setup::run(&args).0.unwrap_err().to_string();
    assert!(error.contains("no manifest.json"), "{error}");
}

/// Every epoch is a whole model folder; only the newest keeps the trainer's state; running the same
/// command again changes nothing.
#[test]
fn epochs_are_complete_folders() {
    let setup = Setup::new(StoredDtype::F32);
    let args = setup.args("out", &SMALL);
    Setup::run(&args).0.unwrap();
    for epoch in 1..=3 {
        let folder = setup.path(&format!("out/epoch_{epoch}"));
        assert!(verify_folder(&folder).unwrap().is_some());
        ModelFolder::open(&folder).unwrap();
        ModelTokenizer::load(&folder).unwrap();
        assert_eq!(folder.join("trainer_state").exists(), epoch == 3);
    }
    let (outcome, events) = Setup::run(&args);
    assert_eq!(outcome.unwrap(), Outcome::Finished);
    let newest = Some(setup.path("out/epoch_3"));
    assert!(matches!(events.last(), Some(Event::Done { path, .. }) if *path == newest));
}

/// Other settings than those of the run that is resumed are refused by name.
#[test]
fn changed_settings_are_refused() {
    let setup = Setup::new(StoredDtype::F32);
    Setup::run(&setup.args("out", &SMALL)).0.unwrap();
    let mut changed = SMALL;
    changed[3] = "2e-2";
    let error = Setup::run(&setup.args("out", &changed))
        .0
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("optimizer.schedule.peak_lr = 0.01"),
        "{error}"
    );
    assert!(error.contains("asks for 0.02"), "{error}");
}

/// A checkpoint with a changed byte is moved aside with a warning, never resumed from.
#[test]
fn damaged_epoch_is_moved_aside() {
    let setup = Setup::new(StoredDtype::F32);
    let args = setup.args("out", &SMALL);
    Setup::run(&args).0.unwrap();
    let weights = setup.path("out/epoch_3/model.safetensors");
    let mut bytes = std::fs::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&weights, bytes).unwrap();
    let (outcome, events) = Setup::run(&args);
    // epoch_2 is whole but has no state any more: an error that says so, not a silent restart.
    let error = outcome.unwrap_err().to_string();
    assert!(
        error.contains("epoch_2") && error.contains("no trainer_state"),
        "{error}"
    );
    assert!(matches!(&events[..], [Event::Warning { message }] if message.contains("epoch_3")));
    assert!(!setup.path("out/epoch_3").exists());
}

/// Long examples are skipped or cut, counted in the start event and listed by line.
#[test]
fn long_examples_are_never_dropped_in_silence() {
    let setup = Setup::new(StoredDtype::F32);
    let long = json!({ "question": "Tom?", "answer": "pens ".repeat(140) }).to_string();
    let longer = json!({ "question": "pens ".repeat(200), "answer": "1" }).to_string();
    let file = setup.path("train.jsonl");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{text}{long}\n{longer}\n")).unwrap();
    let count = |too_long: &str, out: &str| {
        let more = [&SMALL[..], &["--max-length", "150", "--too-long", too_long]].concat();
        let (outcome, events) = Setup::run(&setup.args(out, &more));
        outcome.unwrap();
        let start = events.iter().find_map(|event| match event {
            Event::Start {
                num_skipped_too_long,
                num_truncated,
                ..
            } => Some((*num_skipped_too_long, *num_truncated)),
            _ => None,
        });
        let listed = std::fs::read_to_string(setup.path(out).join("dropped.jsonl")).unwrap();
        (start.unwrap(), listed.lines().count())
    };
    assert_eq!(count("skip", "a"), ((2, 0), 2));
    assert_eq!(count("truncate-answer", "b"), ((1, 1), 2));
}

/// Two trainers never write to one folder.
#[test]
fn busy_folder_is_refused() {
    let setup = Setup::new(StoredDtype::F32);
    let _claim = OutFolder::claim(&setup.path("out")).unwrap();
    let error = Setup::run(&setup.args("out", &SMALL))
        .0
        .unwrap_err()
        .to_string();
    assert!(error.contains("another trainer"), "{error}");
}

/// A server that is not there is reported after each epoch, and training goes on.
#[test]
fn dead_server_never_stops_training() {
    let setup = Setup::new(StoredDtype::F32);
    let more = [&SMALL[..], &["--server", "http://127.0.0.1:1"]].concat();
    let (outcome, events) = Setup::run(&setup.args("out", &more));
    assert_eq!(outcome.unwrap(), Outcome::Finished);
    let failed = |event: &&Event| matches!(event, Event::Notified { ok: false, .. });
    assert_eq!(events.iter().filter(failed).count(), 3);
}

/// Through Llama 3's chat template a training example begins with the ids of the evaluation prompt
/// and ends with the end of the assistant's turn.
#[test]
fn chat_labels_end_the_turn() {
    let shared = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    let folder = shared.join("llama3-tokenizer");
    if !folder.join("tokenizer.json").exists() {
        eprintln!("SKIPPED: no {}", folder.display());
        return;
    }
    let options = TokenizerOptions {
        template: "hf-llama3.2".parse().unwrap(),
        ..TokenizerOptions::default()
    };
    let tokenizer = ModelTokenizer::load_with(&folder, &options).unwrap();
    let template = PromptTemplate::by_name("marked").unwrap();
    let text = LineText::Question {
        question: "2 pens and 3?".into(),
        completion: "5\n#### 5".into(),
    };
    let line = Line { number: 1, text };
    let example = encode(&line, &tokenizer, &template, PromptFormat::Chat).unwrap();
    let content = template.render("2 pens and 3?").unwrap();
    let prompt = Prompt::Chat(vec![ChatMessage {
        role: "user".to_string(),
        content,
    }]);
    let (before, labels) = example.ids.split_at(example.label_start);
    assert_eq!(before, tokenizer.encode_prompt(&prompt).unwrap());
    assert_eq!(tokenizer.decode(labels).unwrap(), "5\n#### 5");
    assert_eq!(labels.last().copied(), tokenizer.token_id("<|eot_id|>"));
}
