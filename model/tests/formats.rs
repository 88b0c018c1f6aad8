//! Serving in bf16 and int8: how far from f32, and as independent of company as f32.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::sync::Arc;

use candle_core::Tensor;
use kernels::{Crew, WeightFormat};
use model::config::LlamaConfig;
use model::llama::{BatchSequence, Llama, LlamaOptions, PackedBatch};

const FORMATS: [WeightFormat; 3] = [WeightFormat::F32, WeightFormat::Bf16, WeightFormat::Int8];
const BLOCK_SIZE: u32 = 16;
/// Slots of a sequence.
const MAX_TOKENS: u32 = 64;

fn load(name: &str, format: WeightFormat, num_threads: usize) -> Llama {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let dir = folder.join(name);
    let config = LlamaConfig::load(&dir).unwrap();
    let crew = Arc::new(Crew::new(num_threads).unwrap());
    Llama::load(&dir, &config, &LlamaOptions { format, crew }).unwrap()
}

/// Tokens of sequence `sequence`.
fn ids(sequence: u32) -> Vec<u32> {
    (0..40).map(|i| (i * 29 + sequence * 17 + 5) % 96).collect()
}

/// Appends tokens `start..end` of a sequence to a batch, all logits wanted.
fn push(batch: &mut PackedBatch, sequence: u32, (start, end): (u32, u32)) {
    let ids = ids(sequence);
    for position in start..end {
        batch.logits_rows.push(batch.token_ids.len() as u32);
        batch.token_ids.push(ids[position as usize]);
        batch.positions.push(position);
        batch.slot_mapping.push(sequence * MAX_TOKENS + position);
    }
    let blocks = MAX_TOKENS / BLOCK_SIZE;
    batch.sequences.push(BatchSequence {
        query_len: end - start,
        context_len: end,
        block_table: (sequence * blocks..(sequence + 1) * blocks).collect(),
    });
}

/// The logits of each step's rows, one after another.
fn run(llama: &Llama, steps: &[Vec<(u32, (u32, u32))>]) -> Vec<Tensor> {
    let num_blocks = 4 * (MAX_TOKENS / BLOCK_SIZE) as usize;
    let mut kv = llama.new_kv_cache(num_blocks, BLOCK_SIZE as usize).unwrap();
    let step = |parts: &Vec<(u32, (u32, u32))>| {
        let mut batch = PackedBatch::default();
        for (sequence, range) in parts {
            push(&mut batch, *sequence, *range);
        }
        llama.forward(&batch, &mut kv).unwrap()
    };
    steps.iter().map(step).collect()
}

fn bits(logits: &Tensor) -> Vec<u32> {
    let values: Vec<f32> = logits.flatten_all().unwrap().to_vec1().unwrap();
    values.into_iter().map(f32::to_bits).collect()
}

/// Logits of a bf16 model lie within 2 % of the logits' size (root of the mean square) of f32's, those
/// of an int8 model within 4 %, as a root of the mean square of the differences.
#[test]
fn close_to_f32() {
    for name in ["llama3_tied_gqa", "untied_mha"] {
        let logits = |format| {
            let rows = run(&load(name, format, 1), &[vec![(0, (0, 40))]]);
            rows[0].flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        let exact = logits(WeightFormat::F32);
        let root_mean_square = |values: &mut dyn Iterator<Item = f32>| {
            (values.map(|x| x * x).sum::<f32>() / exact.len() as f32).sqrt()
        };
        let size = root_mean_square(&mut exact.iter().copied());
        for (format, tolerance) in [(WeightFormat::Bf16, 0.02), (WeightFormat::Int8, 0.04)] {
            let found = logits(format);
            let error = root_mean_square(&mut exact.iter().zip(&found).map(|(a, b)| a - b));
            assert!(error > 0.0, "{name} {format:?} is not f32");
            let relative = error / size;
            assert!(relative <= tolerance, "{name} {format:?}: {relative}");
        }
    }
}

/// In every format a token's logits are the same to the bit however its sequence is cut into chunks,
/// whatever else is in the batch, and on any number of threads.
#[test]
fn company_and_chunks_do_not_change_a_bit() {
    for format in FORMATS {
        let name = "llama3_tied_gqa";
        let llama = load(name, format, 1);
        let whole = bits(&run(&llama, &[vec![(0, (0, 40))]])[0]);
        let width = whole.len() / 40;
        let crew = load(name, format, 3);
        for cuts in [vec![40], vec![17, 40], vec![1, 2, 30, 39, 40]] {
            let mut steps = Vec::new();
            let mut start = 0;
            for end in cuts {
                let rounds = steps.len() as u32;
                steps.push(vec![
                    (2, (rounds * 5, rounds * 5 + 5)),
                    (0, (start, end)),
                    (1, (rounds, rounds + 1)),
                ]);
                start = end;
            }
            let mut rows = Vec::new();
            for (logits, parts) in run(&crew, &steps).iter().zip(&steps) {
                let (start, end) = parts[1].1;
                let len = (end - start) as usize;
                rows.extend(bits(&logits.narrow(0, 5, len).unwrap()));
            }
            assert_eq!(rows.len(), 40 * width);
            assert!(rows == whole, "{format:?} {steps:?}");
        }
    }
}
