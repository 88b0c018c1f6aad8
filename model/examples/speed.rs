//! Decode and prefill speed of the forward pass alone, with random weights:
//! `cargo run --release -p model --example speed -- small f32,bf16,int8 2 1,8,64,p512`: a preset,
//! formats, threads, and batches to decode (`p`: tokens to prefill).
#![expect(clippy::print_stdout, reason = "a measurement is printed")]

use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

use candle_core::{Device, Tensor};
use kernels::{Crew, WeightFormat};
use model::config::LlamaConfig;
use model::llama::{BatchSequence, Llama, LlamaOptions, PackedBatch};
use model::random::preset;
use model::weights::{Weights, tensor_specs};

const BLOCK_SIZE: u32 = 16;
/// Tokens in the cache before the first decode step that is timed.
const CONTEXT: u32 = 128;
/// Room of a sequence.
const MAX_CONTEXT: u32 = 4 * CONTEXT;
/// Steps are repeated for about this long.
const SECONDS: f64 = 1.5;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let arg = |i: usize, default: &str| args.get(i).cloned().unwrap_or(default.to_owned());
    let (name, formats) = (arg(0, "small"), arg(1, "f32,bf16,int8"));
    let (threads, phases) = (arg(2, "2"), arg(3, "1,8,64,p512"));
    let config = preset(&name).ok_or("no such preset")?;
    let crew = Arc::new(Crew::new(threads.parse()?)?);
    for format in formats.split(',') {
        let options = LlamaOptions {
            format: match format {
                "f32" => WeightFormat::F32,
                "bf16" => WeightFormat::Bf16,
                "int8" => WeightFormat::Int8,
                _ => return Err("formats are f32, bf16 and int8".into()),
            },
            crew: Arc::clone(&crew),
        };
        let llama = Llama::with_options(config.clone(), weights(&config)?, &options)?;
        for phase in phases.split(',') {
            if let Some(tokens) = phase.strip_prefix('p') {
                let (tokens, seconds) = prefill(&llama, tokens.parse()?)?;
                let rate = tokens / seconds;
                println!("{name} {format} prefill {tokens}: {rate:>8.1} tokens/s");
                continue;
            }
            let (tokens, seconds) = decode(&llama, phase.parse()?)?;
            let step = seconds * phase.parse::<f64>()? / tokens;
            println!(
                "{name} {format} decode {phase:>3}: {:>8.1} tokens/s, {:.2} ms a step, {:.1} GB/s",
                tokens / seconds,
                1e3 * step,
                llama.weight_bytes() as f64 * 1e-9 / step,
            );
        }
    }
    Ok(())
}

fn weights(config: &LlamaConfig) -> Result<Weights> {
    let mut state = 1_u32;
    let tensors = tensor_specs(config).into_iter().map(|spec| {
        let deviation = 1.0 / (*spec.shape.last().unwrap_or(&1) as f32).sqrt();
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            ((state >> 8) as f32 / 8_388_608.0 - 1.0) * 1.7 * deviation
        };
        let values: Vec<f32> = match spec.shape.as_slice() {
            [len] => vec![1.0; *len],
            _ => (0..spec.num_elements()).map(|_| random()).collect(),
        };
        Ok(Tensor::from_vec(values, spec.shape, &Device::Cpu)?)
    });
    Ok(Weights::from_tensors(config, tensors)?)
}

/// `query_len` new tokens of each sequence, the last of `context_len`.
fn batch(num_sequences: u32, query_len: u32, context_len: u32) -> PackedBatch {
    let blocks = MAX_CONTEXT.max(context_len).div_ceil(BLOCK_SIZE);
    let mut batch = PackedBatch::default();
    for sequence in 0..num_sequences {
        for position in context_len - query_len..context_len {
            batch.token_ids.push((sequence * 37 + position * 11) % 4096);
            batch.positions.push(position);
            batch
                .slot_mapping
                .push(sequence * blocks * BLOCK_SIZE + position);
        }
        batch.sequences.push(BatchSequence {
            query_len,
            context_len,
            block_table: (sequence * blocks..(sequence + 1) * blocks).collect(),
        });
        batch.logits_rows.push((sequence + 1) * query_len - 1);
    }
    batch
}

/// Tokens and seconds.
fn decode(llama: &Llama, num_sequences: u32) -> Result<(f64, f64)> {
    let blocks = MAX_CONTEXT / BLOCK_SIZE * num_sequences;
    let mut kv = llama.new_kv_cache(blocks as usize, BLOCK_SIZE as usize)?;
    llama.forward(&batch(num_sequences, CONTEXT, CONTEXT), &mut kv)?;
    let start = Instant::now();
    let mut steps = 0;
    while steps < 3 || (start.elapsed().as_secs_f64() < SECONDS && steps < MAX_CONTEXT - CONTEXT) {
        llama.forward(&batch(num_sequences, 1, CONTEXT + 1 + steps), &mut kv)?;
        steps += 1;
    }
    let tokens = f64::from(steps * num_sequences);
    Ok((tokens, start.elapsed().as_secs_f64()))
}

/// Tokens and seconds, the best of three.
fn prefill(llama: &Llama, num_tokens: u32) -> Result<(f64, f64)> {
    let blocks = num_tokens.div_ceil(BLOCK_SIZE);
    let mut kv = llama.new_kv_cache(blocks as usize, BLOCK_SIZE as usize)?;
    let mut best = f64::INFINITY;
    for _ in 0..3 {
        let start = Instant::now();
        llama.forward(&batch(1, num_tokens, num_tokens), &mut kv)?;
        best = best.min(start.elapsed().as_secs_f64());
    }
    Ok((f64::from(num_tokens), best))
}
