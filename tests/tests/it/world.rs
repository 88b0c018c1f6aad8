//! A world small enough to be learned in a second: every question is about pens, and the answer is
//! mostly 5, whatever the question says. A model that has learned just that gives whole, marked
//! answers of which about two thirds are right, so every stage has something to do.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, Weak},
};

use data::{
    conversation::Asked,
    number::Number,
    prompt::{PromptFormat, PromptTemplate},
};
use model::random::{RandomModelSpec, preset, random_model};
use serde_json::json;
use tempfile::TempDir;

use crate::process::trainer;

const NAMES: [&str; 12] = [
    "Ana", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gus", "Hana", "Ida", "Jon", "Kim", "Leo",
];
const COLORS: [&str; 5] = ["red", "blue", "green", "black", "white"];
const PLACES: [&str; 8] = [
    "a box", "a bag", "a desk", "a car", "a hall", "a shop", "a drawer", "a school",
];
/// Documents of the pre-training text.
const NUM_DOCUMENTS: usize = 600;

/// The `index`-th question and its number; all questions up to 480 differ.
fn question(index: usize) -> (String, u32) {
    let (name, rest) = (NAMES[index % NAMES.len()], index / NAMES.len());
    let color = COLORS[rest % COLORS.len()];
    let place = PLACES[rest / COLORS.len() % PLACES.len()];
    let gold = if index % 3 == 1 { 3 } else { 5 };
    (
        format!("{name} keeps {color} pens in {place}. How many are there?"),
        gold,
    )
}

fn solution(gold: u32) -> String {
    format!("There are {} + 1 = {gold} pens.\n#### {gold}", gold - 1)
}

/// Writes the questions of a range in GSM8K's format.
pub(crate) fn write_questions(path: &Path, range: std::ops::Range<usize>) {
    let mut text = String::new();
    for (question, gold) in range.map(question) {
        let line = json!({ "question": question, "answer": solution(gold) });
        writeln!(text, "{line}").expect("writing to memory cannot fail");
    }
    fs::write(path, text).expect("a temporary file");
}

/// The text that the base model is trained on: forward and hint prompts, answered with 5 four times
/// out of five; after a hint the given number is always explained.
fn write_corpus(path: &Path) {
    let by_name = |name| PromptTemplate::by_name(name).expect("a built-in prompt");
    let (forward, hint) = (by_name("basic"), by_name("hint"));
    let mut text = String::new();
    for index in 0..NUM_DOCUMENTS {
        let (question, _) = question(index);
        let gold = if index % 5 == 0 { 3 } else { 5 };
        let prompt = match index % 4 {
            0 => hint.render_hint(
                &question,
                Number::from(i64::from(gold)),
                PromptFormat::Plain,
            ),
            _ => forward.render(&question, PromptFormat::Plain),
        };
        let Ok(Asked::Text(prompt)) = prompt else {
            panic!("prompts of the right kind, as text: {prompt:?}");
        };
        let line = json!({ "prompt": prompt, "completion": format!(" {}", solution(gold)) });
        writeln!(text, "{line}").expect("writing to memory cannot fail");
    }
    fs::write(path, text).expect("a temporary file");
}

/// A model folder that has learned this world. Made once for all tests that hold it at a time.
#[derive(Debug)]
pub(crate) struct BaseModel {
    folder: TempDir,
}

static BASE_MODEL: Mutex<Weak<BaseModel>> = Mutex::new(Weak::new());

impl BaseModel {
    pub(crate) fn get() -> Arc<Self> {
        let mut known = BASE_MODEL.lock().unwrap_or_else(PoisonError::into_inner);
        known.upgrade().unwrap_or_else(|| {
            let made = Arc::new(Self::pretrain(32, 420));
            *known = Arc::downgrade(&made);
            made
        })
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("base/model")
    }

    /// One whose sizes the kernels of a GPU take: heads of 64, a vocabulary of whole vectors.
    pub(crate) fn for_gpu() -> Self {
        Self::pretrain(128, 424)
    }

    fn pretrain(hidden_size: u32, vocab_size: u32) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let text = folder.path().join("text.jsonl");
        write_corpus(&text);
        trainer(["pretrain", "--progress", "quiet", "--seed", "1"])
            .with("--text", &text)
            .with("--out", folder.path().join("base"))
            .with("--vocab-size", vocab_size.to_string())
            .with("--hidden-size", hidden_size.to_string())
            .with("--num-layers", "2")
            .with("--num-heads", "2")
            .with("--num-kv-heads", "1")
            .with("--intermediate-size", (2 * hidden_size).to_string())
            .with("--batch-tokens", "2048")
            .with("--epochs", "5")
            .with("--lr", "0.01")
            .with("--warmup-steps", "10")
            .succeed();
        Self { folder }
    }
}

/// Writes a folder with random weights, in hundreds of kilobytes; its text has no meaning.
pub(crate) fn write_random_model(dir: &Path, hidden_size: usize) {
    let tiny = preset("tiny").expect("a preset");
    let config = model::config::LlamaConfig {
        vocab_size: 272,
        hidden_size,
        intermediate_size: 2 * hidden_size,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        num_key_value_heads: 1,
        head_dim: hidden_size / 2,
        max_position_embeddings: 65_536,
        ..tiny
    };
    let spec = RandomModelSpec {
        config,
        seed: 7,
        tokenizer_from: None,
    };
    random_model(&spec, dir).expect("a random model");
}
