//! The ceilings as the doctor tells them, products that are compared with plain loops, and what a launch takes.

use std::time::Instant;

use cuda::{Device, Result, Sum};
use half::bf16;

use crate::ceilings::{bytes_per_s, flops_per_s, random, sized};

/// Copies within the GPU's memory; what is read and what is written count.
pub(super) fn copy(device: &Device) -> Result<String> {
    let rate = bytes_per_s(device)? / 1e9;
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
    let (rate, size) = flops_per_s(device).map_err(text)?;
    let rate = rate / 1e12;
    Ok(format!(
        "{rate:.1} TFLOP/s at {size}; f32 sums right to {error:.0e}"
    ))
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
    let count: usize = sized(device, 1000, 10);
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
