//! The three products of a linear layer at the shapes of training, in GFLOP/s: `cargo run --release
//! -p kernels --example products [int8]`.
#![expect(clippy::print_stdout, reason = "a measurement is printed")]

use std::time::{Duration, Instant};

use candle_core::{Device, Tensor};
use kernels::{Compute, Matrix, MatrixFormat};

/// Rows, outputs, inputs.
const SHAPES: [(usize, usize, usize); 13] = [
    (256, 512, 512),
    (256, 128, 512),
    (256, 1536, 512),
    (256, 512, 1536),
    (256, 8192, 512),
    (256, 256, 256),
    (256, 688, 256),
    (256, 256, 688),
    (1024, 688, 256),
    (256, 576, 576),
    (256, 1536, 576),
    (256, 576, 1536),
    (1024, 1536, 576),
];

fn main() -> kernels::Result<()> {
    let format = match std::env::args().nth(1).as_deref() {
        Some("int8") => MatrixFormat::Int8,
        Some("bf16") => MatrixFormat::Bf16,
        _ => MatrixFormat::F32,
    };
    for compute in [Compute::F32, Compute::Bf16] {
        for (t, o, c) in SHAPES {
            let (x, dy) = (tensor(&[t, c]), tensor(&[t, o]));
            let w = Matrix::new(tensor(&[o, c]), format)?;
            let mut dw = vec![0.0; o * c];
            let forward = best(|| kernels::linear(&x, &w, compute));
            let input = best(|| kernels::linear_input_grad(&dy, &w, compute));
            let weight = best(|| kernels::linear_weight_grad_accumulate(&dy, &x, compute, &mut dw));
            let rate = |time: Duration| 2e-9 * (t * o * c) as f64 / time.as_secs_f64();
            println!(
                "{compute:?} {format:?} {t:>5} {o:>5} {c:>5}  y {:>6.0}  dx {:>6.0}  dw {:>6.0}",
                rate(forward),
                rate(input),
                rate(weight)
            );
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

/// The shortest run of a tenth of a second.
fn best<R>(mut run: impl FnMut() -> R) -> Duration {
    let begin = Instant::now();
    let mut best = Duration::MAX;
    while begin.elapsed() < Duration::from_millis(100) {
        let start = Instant::now();
        drop(std::hint::black_box(run()));
        best = best.min(start.elapsed());
    }
    best
}
