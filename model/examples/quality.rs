//! What bf16 and int8 cost in quality: loss and greedy choices of a model over texts, against f32.
//! `cargo run --release -p model --example quality -- data/demo/model data/demo/test.jsonl 200`
//! reads `question` and `answer` of so many lines and predicts every token from those before it.
#![expect(clippy::print_stdout, reason = "a measurement is printed")]

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use kernels::{Crew, WeightFormat};
use model::folder::ModelFolder;
use model::llama::{BatchSequence, Llama, LlamaOptions, PackedBatch};
use model::tokenizer::ModelTokenizer;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const BLOCK_SIZE: usize = 16;
const PROMPT: &str = "You are a helpful math tutor. Solve the following problem step by step.";

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [dir, texts, count] = args.as_slice() else {
        return Err("see the head of this file".into());
    };
    let dir = Path::new(dir);
    let config = ModelFolder::open(dir)?.config;
    let tokenizer = ModelTokenizer::load(dir)?;
    let crew = Arc::new(Crew::new(2)?);
    let load = |format| {
        let crew = Arc::clone(&crew);
        Llama::load(dir, &config, &LlamaOptions { format, crew })
    };
    let lines = std::fs::read_to_string(texts)?;
    let mut texts = Vec::new();
    for line in lines.lines().take(count.parse()?) {
        let record: serde_json::Value = serde_json::from_str(line)?;
        let part = |name: &str| record[name].as_str().unwrap_or_default().to_owned();
        let (question, answer) = (part("question"), without_annotations(&part("answer")));
        let text = format!("{PROMPT}\n\nQ: {question}\n\nA: {answer}");
        let mut ids: Vec<u32> = tokenizer.bos_id().into_iter().collect();
        ids.extend(tokenizer.encode_text(&text)?);
        ids.truncate(config.max_position_embeddings);
        texts.push(ids);
    }
    let exact = load(WeightFormat::F32)?;
    for format in [WeightFormat::F32, WeightFormat::Bf16, WeightFormat::Int8] {
        let llama = load(format)?;
        let mut found = Found::default();
        for ids in &texts {
            found.add(ids, &logits(&exact, ids)?, &logits(&llama, ids)?);
        }
        found.print(format);
    }
    Ok(())
}

/// GSM8K's answers without the `<<...>>` that no model writes.
fn without_annotations(answer: &str) -> String {
    let mut parts = answer.split("<<");
    let mut text = parts.next().unwrap_or_default().to_owned();
    text.extend(parts.map(|part| part.split_once(">>").map_or(part, |(_, after)| after)));
    text
}

/// Of every position, `[T][V]`.
fn logits(llama: &Llama, ids: &[u32]) -> Result<Vec<Vec<f32>>> {
    let num_blocks = ids.len().div_ceil(BLOCK_SIZE);
    let mut kv = llama.new_kv_cache(num_blocks, BLOCK_SIZE)?;
    let all: Vec<u32> = (0..ids.len() as u32).collect();
    let batch = PackedBatch {
        token_ids: ids.to_vec(),
        positions: all.clone(),
        slot_mapping: all.clone(),
        sequences: vec![BatchSequence {
            query_len: ids.len() as u32,
            context_len: ids.len() as u32,
            block_table: (0..num_blocks as u32).collect(),
        }],
        logits_rows: all,
    };
    Ok(llama.forward(&batch, &mut kv)?.to_vec2()?)
}

/// Sums over positions.
#[derive(Default)]
struct Found {
    num_tokens: usize,
    loss: f64,
    num_same_choices: usize,
    /// Of Kullback and Leibler, from f32's distribution to this one.
    divergence: f64,
    largest_difference: f32,
}

impl Found {
    fn add(&mut self, ids: &[u32], exact: &[Vec<f32>], found: &[Vec<f32>]) {
        for (next, (exact, found)) in ids[1..].iter().zip(exact.iter().zip(found)) {
            let (p, q) = (log_softmax(exact), log_softmax(found));
            self.num_tokens += 1;
            self.loss -= q[*next as usize];
            self.num_same_choices += usize::from(best(exact) == best(found));
            let terms = p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q));
            self.divergence += terms.sum::<f64>();
            for (a, b) in exact.iter().zip(found) {
                self.largest_difference = self.largest_difference.max((a - b).abs());
            }
        }
    }

    fn print(&self, format: WeightFormat) {
        let n = self.num_tokens as f64;
        println!(
            "{format:?}: {} tokens, loss {:.5}, same greedy token {:.3} %, divergence {:.2e}, \
             largest difference of a logit {:.3}",
            self.num_tokens,
            self.loss / n,
            100.0 * self.num_same_choices as f64 / n,
            self.divergence / n,
            self.largest_difference,
        );
    }
}

fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let shifted = logits.iter().map(|x| f64::from(x - largest));
    let sum: f64 = shifted.clone().map(f64::exp).sum();
    shifted.map(|x| x - sum.ln()).collect()
}

fn best(logits: &[f32]) -> Option<usize> {
    (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b]))
}
