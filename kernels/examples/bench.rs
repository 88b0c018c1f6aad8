//! How fast each kernel is at the shapes that matter: `cargo run --release -p kernels --example
//! bench [name part]`. Each line is the best of some repetitions, on all of rayon's threads.
#![expect(clippy::print_stdout, reason = "a measurement is printed")]

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use candle_core::{DType, Device, Tensor};
use kernels::{
    Activations, AdamWStep, AttentionPlan, AttentionSaved, Compute, Crew, KvCache, KvFormat,
    KvShape, LossOptions, Matrix, MatrixFormat, Moments, MomentsFormat, Output, PagedBatch,
    PagedSequence, QueryRows, RopeTable, Rounding, Segments, Weight, WeightFormat,
};

type Bench = fn() -> kernels::Result<()>;

fn main() -> kernels::Result<()> {
    let filter = std::env::args().nth(1).unwrap_or_default();
    let benches: [(&str, Bench); 8] = [
        ("bandwidth", bandwidth),
        ("handover", || {
            handover();
            Ok(())
        }),
        ("packed", packed),
        ("rows", row_operations),
        ("attention", attention),
        ("head", head),
        ("adamw", adamw),
        ("paged", paged),
    ];
    for (name, bench) in benches {
        if name.contains(&filter) {
            bench()?;
        }
    }
    Ok(())
}

/// Values that are neither equal nor special; timing does not depend on them.
fn tensor(shape: &[usize]) -> Tensor {
    let len: usize = shape.iter().product();
    let values = (0..len as u32).map(|i| (i.wrapping_mul(2_654_435_769) >> 8) as f32 / 1e7 - 0.8);
    Tensor::from_vec(values.collect::<Vec<f32>>(), shape, &Device::Cpu).expect("a CPU tensor")
}

/// The shortest of at least five runs, or as many as fit in a third of a second.
fn best<R>(mut run: impl FnMut() -> R) -> Duration {
    let begin = Instant::now();
    let mut best = Duration::MAX;
    let mut runs = 0;
    while runs < 5 || (begin.elapsed() < Duration::from_millis(300) && runs < 2000) {
        let start = Instant::now();
        drop(std::hint::black_box(run()));
        best = best.min(start.elapsed());
        runs += 1;
    }
    best
}

fn report(name: &str, time: Duration, gflop: f64) {
    let rate = gflop / time.as_secs_f64();
    println!(
        "{name:<52} {:>10.1} µs {rate:>8.1} GFLOP/s",
        time.as_secs_f64() * 1e6
    );
}

/// Gigabytes read and written once.
fn report_bytes(name: &str, time: Duration, num_values: usize) {
    let rate = num_values as f64 * 4e-9 / time.as_secs_f64();
    println!(
        "{name:<52} {:>10.1} µs {rate:>8.1} GB/s",
        time.as_secs_f64() * 1e6
    );
}

fn row_operations() -> kernels::Result<()> {
    let (t, c, f, d) = (2048, 192, 512, 32);
    let (x, w, dy) = (tensor(&[t, c]), tensor(&[c]), tensor(&[t, c]));
    kernels::rms_norm(&x, &w, 1e-5)?;
    let time = best(|| kernels::rms_norm(&x, &w, 1e-5));
    report_bytes("rms_norm T=2048 C=192", time, 2 * t * c);
    let time = best(|| kernels::rms_norm_backward(&x, &w, 1e-5, &dy));
    report_bytes("rms_norm_backward T=2048 C=192", time, 3 * t * c);
    let (gate, up, dy) = (tensor(&[t, f]), tensor(&[t, f]), tensor(&[t, f]));
    let time = best(|| kernels::swiglu(&gate, &up));
    report_bytes("swiglu T=2048 F=512", time, 3 * t * f);
    let time = best(|| kernels::swiglu_backward(&gate, &up, &dy));
    report_bytes("swiglu_backward T=2048 F=512", time, 5 * t * f);
    let frequencies: Vec<f32> = (0..d / 2).map(|i| 0.7_f32.powi(i)).collect();
    let table = RopeTable::new(&frequencies, t);
    let q = tensor(&[t, 6, d as usize]);
    let positions: Vec<u32> = (0..t as u32).collect();
    let time = best(|| kernels::rope(&q, &positions, &table));
    report_bytes("rope T=2048 H=6 D=32", time, 2 * t * 6 * d as usize);
    let time = best(|| &x + &x);
    report_bytes("candle add T=2048 C=192", time, 3 * t * c);
    Ok(())
}

fn attention() -> kernels::Result<()> {
    let cases = [
        ("10 segments of 205", vec![205; 10], (6, 2, 32)),
        ("20 segments of 102", vec![102; 20], (4, 2, 32)),
        ("5 segments of 205", vec![205; 5], (24, 8, 128)),
        ("1 segment of 1024", vec![1024], (24, 8, 128)),
    ];
    for (name, lengths, (h, g, d)) in cases {
        let segments = Segments::from_lengths(&lengths);
        let t = segments.num_tokens();
        let (q, k, v) = (tensor(&[t, h, d]), tensor(&[t, g, d]), tensor(&[t, g, d]));
        let dout = tensor(&[t, h, d]);
        let pairs: usize = lengths.iter().map(|l| l * (l + 1) / 2).sum();
        let gflop = 4e-9 * (pairs * h * d) as f64;
        let time = best(|| kernels::causal_attention(&q, &k, &v, &segments));
        report(&format!("attention {name} H={h} D={d}"), time, gflop);
        let (out, log_sum_exp) = kernels::causal_attention(&q, &k, &v, &segments)?;
        let saved = AttentionSaved {
            q: &q,
            k: &k,
            v: &v,
            out: &out,
            log_sum_exp: &log_sum_exp,
            segments: &segments,
        };
        let time = best(|| kernels::causal_attention_backward(&saved, &dout));
        report(
            &format!("attention backward {name} H={h} D={d}"),
            time,
            2.5 * gflop,
        );
    }
    Ok(())
}

fn head() -> kernels::Result<()> {
    for (l, v, c) in [(2048, 1024, 192), (512, 32_000, 512)] {
        let hidden = tensor(&[l, c]);
        let head = Matrix::new(tensor(&[v, c]), MatrixFormat::F32)?;
        let options = LossOptions {
            label_smoothing: 0.0,
            compute: Compute::F32,
        };
        let targets: Vec<u32> = (0..l as u32).map(|i| i * 7 % v as u32).collect();
        let gflop = 2e-9 * (l * v * c) as f64;
        kernels::cross_entropy(&hidden, &head, &targets, options)?;
        let time = best(|| kernels::cross_entropy(&hidden, &head, &targets, options));
        report(&format!("cross_entropy L={l} V={v} C={c}"), time, gflop);
        let mut dw = vec![0.0; v * c];
        let run = || {
            let scale = (options, 1.0);
            kernels::cross_entropy_backward(&hidden, &head, &targets, scale, Some(&mut dw))
        };
        report(
            &format!("cross_entropy_backward L={l} V={v} C={c}"),
            best(run),
            3.0 * gflop,
        );
    }
    Ok(())
}

fn adamw() -> kernels::Result<()> {
    let len = 3_000_000;
    let grad = vec![0.2; len];
    let step = AdamWStep {
        lr: 1e-3,
        beta1: 0.9,
        beta2: 0.95,
        eps: 1e-8,
        weight_decay: 0.1,
        step: 10,
        grad_scale: 1.0,
    };
    for (name, dtype, format) in [
        (
            "adamw_step 3M f32, moments f32",
            DType::F32,
            MomentsFormat::F32,
        ),
        (
            "adamw_step 3M bf16, moments bf16",
            DType::BF16,
            MomentsFormat::Bf16,
        ),
        (
            "adamw_step 3M bf16, moments int8",
            DType::BF16,
            MomentsFormat::Int8,
        ),
    ] {
        let param = Tensor::full(0.1_f32, len, &Device::Cpu)?.to_dtype(dtype)?;
        let mut moments = Moments::zeros(format, len);
        let rounding = Rounding { key: 1 };
        kernels::adamw_step(&param, &grad, &mut moments, &step, rounding)?;
        let time = best(|| kernels::adamw_step(&param, &grad, &mut moments, &step, rounding));
        // As f32 moves it: reads four values and writes three.
        report_bytes(name, time, 7 * len);
    }
    let time = best(|| kernels::squared_norm(&grad));
    report_bytes("squared_norm 3M", time, len);
    Ok(())
}

fn paged() -> kernels::Result<()> {
    let crew = crew();
    for (g, h, d) in [(2, 6, 32), (3, 9, 64), (8, 32, 64)] {
        for format in [KvFormat::F32, KvFormat::Bf16] {
            let shape = KvShape {
                num_layers: 1,
                num_blocks: 1024,
                block_size: 16,
                num_kv_heads: g,
                head_dim: d,
                format,
            };
            let cache = KvCache::new(shape, &Device::Cpu)?;
            for (num_sequences, query_len, context_len) in [
                (1, 1, 250),
                (16, 1, 250),
                (64, 1, 250),
                (1, 250, 250),
                (8, 64, 200),
            ] {
                let sequences = (0..num_sequences)
                    .map(|i| PagedSequence {
                        query_len,
                        context_len,
                        block_table: (i * 16..i * 16 + 16).collect(),
                    })
                    .collect();
                let plan = AttentionPlan::new(&PagedBatch { sequences }, shape, h)?;
                let num_rows = num_sequences as usize * query_len;
                let q = vec![0.1; num_rows * h * d];
                let mut out = vec![0.0; q.len()];
                let rows = QueryRows {
                    values: &q,
                    row_len: h * d,
                };
                let mut run =
                    || kernels::paged_attention(&rows, &mut out, (cache.layer(0), &plan), &crew);
                run()?;
                let time = best(run);
                let seen = (0..query_len).map(|i| context_len - i).sum::<usize>();
                let gflop = 4e-9 * (num_sequences as usize * seen * h * d) as f64;
                let name = format!(
                    "paged {format:?} {num_sequences} x {query_len} of {context_len} H={h} D={d}"
                );
                report(&name, time, gflop);
            }
        }
    }
    Ok(())
}

fn crew() -> Crew {
    let num_threads = std::thread::available_parallelism().map_or(1, usize::from);
    Crew::new(num_threads).expect("threads")
}

/// What the memory gives: every thread reads its part of 512 MiB, which no cache holds.
#[expect(clippy::unnecessary_wraps, reason = "as the other benches")]
fn bandwidth() -> kernels::Result<()> {
    let (crew, num_parts) = (crew(), 64);
    let values: Vec<u64> = (0..1 << 26).collect();
    let part_len = values.len() / num_parts;
    let time = best(|| {
        let sum = std::sync::atomic::AtomicU64::new(0);
        crew.for_each(num_parts, |i| {
            let part = &values[i * part_len..(i + 1) * part_len];
            let mut sums = [0_u64; 32];
            for some in part.as_chunks::<32>().0 {
                for (sum, value) in sums.iter_mut().zip(some) {
                    *sum ^= value;
                }
            }
            sum.fetch_xor(sums.iter().fold(0, |a, b| a ^ b), Relaxed);
        });
        sum.into_inner()
    });
    let name = format!("memory read, {} threads", crew.num_threads());
    report_bytes(&name, time, 2 * values.len());
    Ok(())
}

/// Products against packed weights, and how many bytes of weights they read a second.
fn packed() -> kernels::Result<()> {
    let crew = crew();
    for (c, o) in [
        (576, 960),
        (576, 3072),
        (1536, 576),
        (2048, 3072),
        (2048, 16_384),
        (8192, 2048),
    ] {
        let values: Vec<f32> = (0..c * o)
            .map(|i| (i * 7919 % 1024) as f32 / 512.0 - 1.0)
            .collect();
        for format in [WeightFormat::F32, WeightFormat::Bf16, WeightFormat::Int8] {
            let w = Weight::pack(format, &values, c)?;
            for t in [1, 4, 8, 16, 32, 64, 256] {
                let x = &values[..t * c];
                let mut y = vec![0.0; t * o];
                let mut packed = Activations::new(format);
                packed.fill_from(x, c, &crew);
                let mut run =
                    || kernels::linear_packed(&packed, &w, (&mut y, Output::Overwrite), &crew);
                run()?;
                let time = best(run);
                let rate = w.num_bytes() as f64 * 1e-9 / time.as_secs_f64();
                let name = format!("packed {format:?} T={t} C={c} O={o} ({rate:.1} GB/s)");
                report(&name, time, 2e-9 * (t * c * o) as f64);
            }
        }
    }
    Ok(())
}

/// Handing a job without work to all threads and having it back, by the crew and by rayon: back to
/// back, and with 20 µs of the caller's own work in between, as a forward pass has it.
fn handover() {
    use rayon::prelude::*;
    let num_threads = rayon::current_num_threads();
    let crew = kernels::Crew::new(num_threads).expect("threads");
    let touch = |index: usize| {
        std::hint::black_box(index);
    };
    let by_crew = || crew.for_each(num_threads, touch);
    let by_rayon = || (0..num_threads).into_par_iter().for_each(touch);
    for (gap_us, name) in [(0, "back to back"), (20, "every 20 µs")] {
        let gap = Duration::from_micros(gap_us);
        println!(
            "handover {name:<14} crew {:>6.2} µs, rayon {:>6.2} µs",
            mean_us(gap, by_crew),
            mean_us(gap, by_rayon)
        );
    }
}

/// Mean time of a job in microseconds, over 20,000 of them, `gap` apart.
fn mean_us(gap: Duration, job: impl Fn()) -> f64 {
    const NUM_JOBS: u32 = 20_000;
    let mut total = Duration::ZERO;
    for _ in 0..NUM_JOBS {
        let until = Instant::now() + gap;
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        let start = Instant::now();
        job();
        total += start.elapsed();
    }
    total.as_secs_f64() * 1e6 / f64::from(NUM_JOBS)
}
