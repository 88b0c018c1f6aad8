//! Model folders by hand: make one with random weights, save one anew, see logits. The last is for
//! comparing with other implementations, the first for benchmarks.
//!
//! ```text
//! folder random PRESET DIR [TOKENIZER_DIR]
//! folder save SOURCE DIR
//! folder logits DIR ID...        last position's logits, one a line
//! folder prefill DIR TOKENS      tokens a second through the paged path
//! folder decode DIR SEQUENCES
//! ```
#![expect(clippy::print_stdout, reason = "a command-line program")]

use std::path::Path;
use std::time::Instant;

use candle_core::DType;
use model::folder::ModelFolder;
use model::llama::{BatchSequence, Llama, PackedBatch};
use model::random::{RandomModelSpec, preset, random_model};
use model::save::save_checkpoint;
use model::weights::Weights;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["random", name, dir, tokenizer @ ..] => {
            let spec = RandomModelSpec {
                config: preset(name).ok_or("no such preset")?,
                seed: 20_261_122,
                tokenizer_from: tokenizer.first().map(Into::into),
            };
            random_model(&spec, Path::new(dir))?;
        }
        ["save", source, dir] => {
            let (folder, weights) = load(source)?;
            std::fs::create_dir_all(dir)?;
            save_checkpoint(
                Path::new(dir),
                &folder.config,
                &weights,
                Some(Path::new(source)),
            )?;
        }
        ["logits", dir, ids @ ..] => {
            let (folder, weights) = load(dir)?;
            let ids: Vec<u32> = ids
                .iter()
                .map(|id| id.parse())
                .collect::<std::result::Result<_, _>>()?;
            let logits = Llama::new(folder.config, weights)?.forward_dense(&ids)?;
            for value in logits.get(ids.len() - 1)?.to_vec1::<f32>()? {
                println!("{value}");
            }
        }
        ["prefill", dir, tokens] => prefill(dir, tokens.parse()?)?,
        ["decode", dir, sequences] => decode(dir, sequences.parse()?)?,
        _ => return Err("see the head of this file".into()),
    }
    Ok(())
}

fn load(dir: &str) -> Result<(ModelFolder, Weights)> {
    let start = Instant::now();
    let folder = ModelFolder::open(Path::new(dir))?;
    let weights = Weights::load(Path::new(dir), &folder.config, DType::F32)?;
    eprintln!(
        "loaded in {:.2} s, digest {}",
        start.elapsed().as_secs_f64(),
        weights.digest()?
    );
    Ok((folder, weights))
}

const BLOCK_SIZE: u32 = 16;

/// `count` sequences with `query_len` new tokens each, after `context_len - query_len` old ones.
fn batch(count: u32, query_len: u32, context_len: u32) -> PackedBatch {
    let num_blocks = context_len.div_ceil(BLOCK_SIZE);
    let mut batch = PackedBatch::default();
    for index in 0..count {
        for position in context_len - query_len..context_len {
            batch.token_ids.push((index * 7 + position * 13) % 250);
            batch.positions.push(position);
            batch
                .slot_mapping
                .push(index * num_blocks * BLOCK_SIZE + position);
        }
        batch.logits_rows.push((index + 1) * query_len - 1);
        let block_table = (index * num_blocks..(index + 1) * num_blocks).collect();
        batch.sequences.push(BatchSequence {
            query_len,
            context_len,
            block_table,
        });
    }
    batch
}

fn prefill(dir: &str, tokens: u32) -> Result<()> {
    time(dir, &batch(1, tokens, tokens), tokens)
}

fn decode(dir: &str, sequences: u32) -> Result<()> {
    time(dir, &batch(sequences, 1, 200), sequences)
}

fn time(dir: &str, batch: &PackedBatch, tokens: u32) -> Result<()> {
    let (folder, weights) = load(dir)?;
    let llama = Llama::new(folder.config, weights)?;
    let num_blocks: usize = batch.sequences.iter().map(|s| s.block_table.len()).sum();
    let mut kv = llama.new_kv_cache(num_blocks, BLOCK_SIZE as usize)?;
    let mut best = f64::INFINITY;
    for _ in 0..8 {
        let start = Instant::now();
        llama.forward(batch, &mut kv)?;
        best = best.min(start.elapsed().as_secs_f64());
    }
    println!(
        "{:.2} ms a step, {:.0} tokens/s",
        best * 1e3,
        f64::from(tokens) / best
    );
    Ok(())
}
