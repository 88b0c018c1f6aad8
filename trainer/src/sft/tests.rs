mod best;
mod gpu;
mod group;
mod methods;
mod stops;

use clap::Parser;
use data::example::{ExampleText, read_examples};
use data::prompt::{PromptFormat, PromptTemplate};
use model::dtype::StoredDtype;
use model::folder::ModelFolder;
use model::manifest::verify_folder;
use model::tokenizer::{ConversationIds, ModelTokenizer, TokenizerOptions};
use rayon::prelude::*;
use serde_json::json;

use super::examples::{Encoding, build_examples, encode, prompt};
use super::prepare::training_config;
use super::*;
use crate::cli::args::{Arguments, Command};
use crate::config::{TrainOn, Window};
use crate::dataset::Examples;
use crate::metrics::StepMetrics;
use crate::pack::pack;
use crate::rng::shuffled;
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
            "trainer",
            "sft",
            "--model",
            &base,
            "--train",
            &train,
            "--out",
            &out,
            "--peak-tflops",
            "0.1",
        ];
        let arguments = Arguments::try_parse_from(fixed.iter().chain(more)).unwrap();
        match arguments.command {
            Command::Sft(args) => *args,
            _ => panic!("asked for sft"),
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

/// What every example holds: each exchange's prompt has the ids that evaluation puts to the server,
/// each label range is what is said there and the end of it, nothing else is a label, and BOS is there
/// once.
fn check_labels(text: &ExampleText, tokenizer: &ModelTokenizer, how: &Encoding<'_>, end: u32) {
    let ConversationIds {
        ids,
        labels,
        split_at_border,
    } = encode(text, tokenizer, how).unwrap();
    let mut exchanges = text.exchanges(how.template, how.format).unwrap();
    if how.train_on == TrainOn::LastAssistant {
        exchanges.drain(..exchanges.len() - 1);
    }
    assert_eq!(labels.len(), exchanges.len());
    for (range, exchange) in labels.iter().zip(&exchanges) {
        let evaluated = tokenizer.encode_prompt(&prompt(&exchange.asked)).unwrap();
        assert_eq!(ids[..range.start], evaluated);
        let said = &ids[range.clone()];
        assert_eq!(tokenizer.decode(said).unwrap(), exchange.completion);
        assert_eq!(said.last(), Some(&end));
        assert_eq!(said.iter().filter(|&&id| id == end).count(), 1);
    }
    assert_eq!(labels.last().unwrap().end, ids.len());
    let bos = tokenizer
        .bos_id()
        .or(tokenizer.token_id("<|begin_of_text|>"));
    assert_eq!(ids.iter().filter(|&&id| Some(id) == bos).count(), 1);
    assert!(!split_at_border);
}

/// In plain text: the labels are the answer, its space included, and end-of-text.
#[test]
fn labels_cover_the_answer_and_its_end() {
    let setup = Setup::new(StoredDtype::F32);
    let tokenizer = ModelTokenizer::load(&setup.path("base")).unwrap();
    let how = Encoding {
        template: &PromptTemplate::by_name("basic").unwrap(),
        format: PromptFormat::Plain,
        train_on: TrainOn::Assistant,
    };
    let file = read_examples(&setup.path("train.jsonl"), None).unwrap();
    for line in &file.lines {
        check_labels(
            &line.text,
            &tokenizer,
            &how,
            tokenizer.text_end_id().unwrap(),
        );
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
    // All but what depends on time and memory.
    let lines = |out: &str| -> Vec<(u64, u32, f64, f64, u64)> {
        let steps = StepMetrics::read_all(&setup.path(out).join("metrics.jsonl")).unwrap();
        let same = |step: &StepMetrics| (step.step, step.epoch, step.loss, step.lr, step.tokens);
        steps.iter().map(same).collect()
    };
    assert_eq!(lines("whole"), lines("parts"));
    for picture in ["loss.svg", "loss.png", "epochs.svg", "epochs.png"] {
        assert!(
            setup.path("parts/plots").join(picture).exists(),
            "{picture}"
        );
    }
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

/// Llama 3's own tokenizer with Hugging Face's template, or a loud skip.
fn llama3() -> Option<ModelTokenizer> {
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    let folder = shared.join("llama3-tokenizer");
    if !folder.join("tokenizer.json").exists() {
        eprintln!("SKIPPED: no {}", folder.display());
        return None;
    }
    let options = TokenizerOptions {
        template: "hf-llama3.2".parse().unwrap(),
        ..TokenizerOptions::default()
    };
    Some(ModelTokenizer::load_with(&folder, &options).unwrap())
}

/// GSM8K's own solutions through Llama 3's chat template, as training.md measures them, packed as a
/// run packs them: per optimizer step. Printed: how full the micro-batches are. The whole set in one
/// window is what trainers report that pack the data set ahead of training (97.6 % at 1024).
#[test]
fn gsm8k_fills_its_micro_batches() {
    let Some(tokenizer) = llama3() else { return };
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/gsm8k/train.jsonl");
    if !file.exists() {
        eprintln!("SKIPPED: no {}", file.display());
        return;
    }
    let how = Encoding {
        template: &PromptTemplate::from_text("question", "{question}").unwrap(),
        format: PromptFormat::Chat,
        train_on: TrainOn::Assistant,
    };
    let mut examples = Examples::default();
    let lines = read_examples(&file, None).unwrap().lines;
    let encoded: Vec<ConversationIds> = lines
        .par_iter()
        .map(|line| encode(&line.text, &tokenizer, &how).unwrap())
        .collect();
    for example in encoded {
        examples.push_labelled(&example.ids, &example.labels);
    }
    let num_labels: usize = examples.iter().map(|example| example.num_labels()).sum();
    let num_ids = examples.num_inputs() + examples.len();
    eprintln!(
        "{} examples, {num_ids} tokens, {num_labels} labels",
        examples.len()
    );
    let order = shuffled(examples.len(), 0, 1);
    let fill = |num_examples: usize, max_tokens: usize| {
        let windows = windows(&order, &examples, Window::Examples(num_examples));
        let num_batches: usize = windows
            .iter()
            .map(|window| pack(&order[window.clone()], &examples, max_tokens).len())
            .sum();
        let fill = examples.num_inputs() as f64 / (num_batches * max_tokens) as f64;
        eprintln!(
            "{num_examples} examples a step, {max_tokens}: {:.1} %",
            100.0 * fill
        );
        fill
    };
    for max_tokens in [1024, 2048] {
        let of_window = [8, 32, 64].map(|num_examples| fill(num_examples, max_tokens));
        let whole = fill(examples.len(), max_tokens);
        assert!(of_window.is_sorted() && of_window[2] < whole);
        assert!(whole > 0.97);
    }
}

/// Through Llama 3's chat template: questions, finished prompts and conversations, whole or in their
/// last turn; the end of the turn is a label, and the date is pinned.
#[test]
fn chat_labels_end_the_turn() {
    let Some(tokenizer) = llama3() else { return };
    let end = tokenizer.token_id("<|eot_id|>").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lines.jsonl");
    for line in [
        json!({ "question": "2 pens and 3?", "answer": "5\n#### 5" }),
        json!({ "prompt": "Say 5.", "completion": "5" }),
        json!({ "messages": [
            { "role": "system", "content": "Be brief." },
            { "role": "user", "content": "2 pens and 3?" },
            { "role": "assistant", "content": "5" },
            { "role": "user", "content": "and <|eot_id|>?" },
            { "role": "assistant", "content": "Six." },
            { "role": "user", "content": "Thanks." },
        ] }),
    ] {
        std::fs::write(&path, line.to_string()).unwrap();
        let file = read_examples(&path, None).unwrap();
        for (train_on, prompt) in [
            (TrainOn::Assistant, "marked"),
            (TrainOn::LastAssistant, "marked"),
            (TrainOn::Assistant, "llama-8shot-multiturn"),
        ] {
            let how = Encoding {
                template: &PromptTemplate::by_name(prompt).unwrap(),
                format: PromptFormat::Chat,
                train_on,
            };
            check_labels(&file.lines[0].text, &tokenizer, &how, end);
            let ids = encode(&file.lines[0].text, &tokenizer, &how).unwrap().ids;
            let rendered = tokenizer.decode(&ids).unwrap();
            assert!(rendered.contains("Today Date: 26 Jul 2024"), "{rendered}");
        }
    }
}

/// A prompt of several turns is refused where there is no chat template to carry it.
#[test]
fn a_few_shot_conversation_needs_a_chat_template() {
    let setup = Setup::new(StoredDtype::F32);
    let args = setup.args("out", &["--prompt", "llama-8shot-multiturn"]);
    let error = Setup::run(&args).0.unwrap_err().to_string();
    assert!(
        error.contains("\"llama-8shot-multiturn\" is a conversation"),
        "{error}"
    );
}

/// Conversations are trained on through a chat template; a checkpoint without one is told what to do.
#[test]
fn messages_need_a_chat_template() {
    let setup = Setup::new(StoredDtype::F32);
    let turns = json!({ "messages": [
        { "role": "user", "content": "Tom has 2 pens" }, { "role": "assistant", "content": "2" },
        { "role": "user", "content": "and 3?" }, { "role": "assistant", "content": "3" },
    ] });
    std::fs::write(setup.path("train.jsonl"), format!("{turns}\n")).unwrap();
    let fixed = ["--validation-fraction", "0", "--epochs", "1"];
    let refused = |more: &[&str]| {
        let args = setup.args("out", &[&fixed[..], more].concat());
        Setup::run(&args).0.unwrap_err().to_string()
    };
    let error = refused(&[]);
    assert!(error.contains("has no chat template of its own"), "{error}");
    let source = "{% for m in messages %}{{ m.role }}:{{ m.content }}{{ eos_token }}{% endfor %}\
                  {% if add_generation_prompt %}assistant:{% endif %}";
    let template = setup.path("chat.jinja").display().to_string();
    std::fs::write(&template, source).unwrap();
    let with_template = ["--chat-template", template.as_str()];
    let error = refused(&[&with_template[..], &["--prompt-format", "plain"]].concat());
    assert!(error.contains("expected chat"), "{error}");
    let labels = |train_on: &str, out: &str| {
        let more = [&fixed[..], &with_template, &["--train-on", train_on]].concat();
        let (outcome, events) = Setup::run(&setup.args(out, &more));
        assert_eq!(outcome.unwrap(), Outcome::Finished);
        let of_step = |event: &Event| match event {
            Event::Step { label_tokens, .. } => Some(*label_tokens),
            _ => None,
        };
        events.iter().find_map(of_step).unwrap()
    };
    assert_eq!(labels("assistant", "all"), 4);
    assert_eq!(labels("last-assistant", "last"), 2);
}

/// With `--batch-tokens` a step takes examples until it has that many tokens.
#[test]
fn steps_may_be_counted_in_tokens() {
    let setup = Setup::new(StoredDtype::F32);
    let more = ["--epochs", "1", "--batch-tokens", "300"];
    let (outcome, events) = Setup::run(&setup.args("out", &more));
    assert_eq!(outcome.unwrap(), Outcome::Finished);
    let tokens: Vec<u64> = events
        .iter()
        .filter_map(|event| match event {
            Event::Step { tokens, .. } => Some(*tokens),
            _ => None,
        })
        .collect();
    let (_, whole) = tokens.split_last().unwrap();
    assert!(whole.len() >= 2, "{tokens:?}");
    let longest = 150;
    assert!(
        whole.iter().all(|&n| (300..300 + longest).contains(&n)),
        "{tokens:?}"
    );
}

/// Which questions are held out does not change when lines are added or moved, and rationales of one
/// question are never on both sides.
#[test]
fn held_out_questions_stay_held_out() {
    let setup = Setup::new(StoredDtype::F32);
    let tokenizer = ModelTokenizer::load(&setup.path("base")).unwrap();
    let template = PromptTemplate::by_name("sft").unwrap();
    let folder = ModelFolder::open(&setup.path("base")).unwrap();
    let sides = |rationales: &[(usize, &str)]| {
        let line = |(question, rationale): &(usize, &str)| {
            let question = format!("How many are {question}?");
            json!({ "question": question, "gold_answer": "1", "rationale": rationale }).to_string()
        };
        let text: Vec<String> = rationales.iter().map(line).collect();
        std::fs::write(setup.path("train.jsonl"), text.join("\n")).unwrap();
        let file = read_examples(&setup.path("train.jsonl"), None).unwrap();
        let args = setup.args("out", &["--validation-fraction", "0.4", "--prompt", "sft"]);
        let parts = (&tokenizer, &template, &file);
        let config = training_config(&args, &folder, parts).unwrap();
        let set = build_examples(&file.lines, &tokenizer, &template, &config).unwrap();
        let questions = |examples: &Examples| -> Vec<String> {
            let asked = |example: crate::dataset::Example<'_>| {
                let prompt = &example.ids[..example.labels[0].start as usize];
                tokenizer.decode(prompt).unwrap()
            };
            examples.iter().map(asked).collect()
        };
        (questions(&set.train), questions(&set.validation))
    };
    let few: Vec<(usize, &str)> = (0..20).map(|n| (n, "one")).collect();
    let more: Vec<(usize, &str)> = (0..30)
        .rev()
        .flat_map(|n| [(n, "one"), (n, "two")])
        .collect();
    let (train, held_out) = sides(&few);
    let (train_of_more, held_out_of_more) = sides(&more);
    assert!(train.len() > 5 && held_out.len() > 3, "{held_out:?}");
    assert_eq!((train_of_more.len() + held_out_of_more.len()), 60);
    assert!(
        train
            .iter()
            .all(|question| train_of_more.contains(question))
    );
    assert!(
        held_out
            .iter()
            .all(|question| held_out_of_more.contains(question))
    );
    assert!(
        train_of_more
            .iter()
            .all(|question| !held_out_of_more.contains(question))
    );
}
