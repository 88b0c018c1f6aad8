//! Writes the demo's question files and the text its base model is pre-trained on.
//!
//! `cargo run --release -p data --example demo_data -- splits data/demo`
//! `cargo run --release -p data --example demo_data -- corpus --documents 300000 corpus.jsonl`

use std::{
    collections::HashSet,
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use data::{
    demo::{self, Corpus, SplitSizes, Splits},
    prompt::PromptTemplate,
};
use serde::Serialize;

/// The seed of the shipped question files.
const SPLITS_SEED: u64 = 1;
/// The seed of the shipped base model's text.
const CORPUS_SEED: u64 = 11;
const SIZES: SplitSizes = SplitSizes {
    num_train: 3000,
    num_test: 800,
};

#[derive(Parser)]
#[command(about = "Writes the demo's question files and its pre-training text")]
struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// DIR/train.jsonl and DIR/test.jsonl, in GSM8K's format
    Splits { dir: PathBuf },
    /// Pre-training text, one {"text"} a line; no question of the splits occurs in it
    Corpus {
        file: PathBuf,
        #[arg(long, default_value_t = 300_000)]
        documents: usize,
    },
}

fn main() -> Result<()> {
    let splits = demo::splits(SPLITS_SEED, SIZES);
    match Args::parse().what {
        What::Splits { dir } => {
            write_lines(&dir.join("train.jsonl"), splits.train)?;
            write_lines(&dir.join("test.jsonl"), splits.test)
        }
        What::Corpus { file, documents } => {
            let lines = corpus(&splits)?
                .take(documents)
                .map(|text| Document { text });
            write_lines(&file, lines)
        }
    }
}

#[derive(Serialize)]
struct Document {
    text: String,
}

fn corpus(splits: &Splits) -> Result<Corpus> {
    let prompts = (
        PromptTemplate::by_name("basic")?,
        PromptTemplate::by_name("hint")?,
    );
    let all = splits.train.iter().chain(&splits.test);
    let excluded: HashSet<String> = all.map(|problem| problem.question.clone()).collect();
    Ok(Corpus::new(CORPUS_SEED, prompts, excluded)?)
}

fn write_lines(path: &Path, lines: impl IntoIterator<Item = impl Serialize>) -> Result<()> {
    let file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
    let mut out = BufWriter::new(file);
    for line in lines {
        serde_json::to_writer(&mut out, &line)?;
        out.write_all(b"\n")?;
    }
    out.flush()
        .with_context(|| format!("cannot write {}", path.display()))
}
