//! What the GPU does at best: the ceilings that floors are computed from.

use std::time::Instant;

use cuda::{Device, Result, Sum};
use half::bf16;

/// Times a rate is measured; the best counts.
const NUM_RUNS: usize = 5;

/// The software GPU of tests gets sizes that it can manage.
fn sized(device: &Device, hardware: usize, software: usize) -> usize {
    if device.is_software() {
        software
    } else {
        hardware
    }
}

fn best_seconds(device: &Device, mut work: impl FnMut() -> Result<()>) -> Result<f64> {
    work()?;
    let mut best = f64::INFINITY;
    for _ in 0..NUM_RUNS {
        best = best.min(device.time(&mut work)?);
    }
    Ok(best)
}

/// Copies within the GPU's memory; what is read and what is written count.
pub(super) fn copy(device: &Device) -> Result<String> {
    let len = sized(device, 1 << 28, 1 << 16).min(device.memory()?.0 / 16);
    let from = device.zeros::<f32>(len)?;
    let mut to = device.zeros::<f32>(len)?;
    let seconds = best_seconds(device, || device.copy(&from, &mut to))?;
    let rate = 8.0 * len as f64 / seconds / 1e9;
    Ok(format!("{rate:.0} GB/s, read and written"))
}

/// Square products of random values; a small one is compared with plain loops.
pub(super) fn product(device: &Device) -> std::result::Result<String, String> {
    let text = |error: cuda::Error| error.to_string();
    let error = small_product_error(device).map_err(text)?;
    if error.is_nan() || error > 1e-4 {
        return Err(format!(
            "a product is wrong by {error:.1e} of its size; another cublasLt?"
        ));
    }
    let size = sized(device, 8192, 64);
    let rate = product_rate(device, size).map_err(text)?;
    Ok(format!(
        "{rate:.1} TFLOP/s at {size}; f32 sums right to {error:.0e}"
    ))
}

fn product_rate(device: &Device, size: usize) -> Result<f64> {
    let values = random(size * size);
    let (a, b) = (device.upload(&values)?, device.upload(&values)?);
    let mut c = device.zeros::<bf16>(size * size)?;
    let seconds = best_seconds(device, || {
        let to = (&mut c.as_view_mut(), Sum::Overwrite);
        device.linear(&a.as_view(), &b.as_view(), to, size)
    })?;
    Ok(2.0 * (size as f64).powi(3) / seconds / 1e12)
}

/// The largest difference from plain loops, over the largest value.
fn small_product_error(device: &Device) -> Result<f32> {
    let (rows, outputs, inputs) = (64, 96, 128);
    let x = random(rows * inputs);
    let w = random(outputs * inputs);
    let (on_x, on_w) = (device.upload(&x)?, device.upload(&w)?);
    let mut y = device.zeros::<f32>(rows * outputs)?;
    let to = (&mut y.as_view_mut(), Sum::Overwrite);
    device.linear(&on_x.as_view(), &on_w.as_view(), to, inputs)?;
    let found = device.download(&y)?;
    let (mut difference, mut largest) = (0.0_f32, 0.0_f32);
    for (index, found) in found.into_iter().enumerate() {
        let (row, output) = (index / outputs * inputs, index % outputs * inputs);
        let products = x[row..row + inputs].iter().zip(&w[output..output + inputs]);
        let expected: f32 = products.map(|(x, w)| x.to_f32() * w.to_f32()).sum();
        difference = difference.max((found - expected).abs());
        largest = largest.max(expected.abs());
    }
    Ok(difference / largest)
}

/// What it takes to start a kernel that does next to nothing, alone and as one of a graph's.
pub(super) fn launches(device: &Device) -> Result<String> {
    let count = sized(device, 1000, 10);
    let gate_up = device.upload(&[bf16::ONE; 16])?;
    let mut y = device.zeros::<bf16>(8)?;
    let mut work = || {
        for _ in 0..count {
            cuda::swiglu(device, &gate_up.as_view(), &mut y.as_view_mut(), 8)?;
        }
        Ok(())
    };
    work()?;
    let mut graph = device.record(&mut work)?;
    let us = |start: Instant| start.elapsed().as_secs_f64() * 1e6 / count as f64;
    device.synchronize()?;
    let start = Instant::now();
    work()?;
    device.synchronize()?;
    let alone = us(start);
    graph.launch()?;
    device.synchronize()?;
    let start = Instant::now();
    graph.launch()?;
    device.synchronize()?;
    Ok(format!(
        "{alone:.2} us a kernel, {:.2} us in a graph",
        us(start)
    ))
}

/// Uniform in [-1, 1).
fn random(len: usize) -> Vec<bf16> {
    let mut state = 1_u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        bf16::from_f32((state >> 8) as f32 / 8_388_608.0 - 1.0)
    };
    std::iter::repeat_with(next).take(len).collect()
}
