//! What the GPU does at best, measured: the ceilings that least times are computed from.

use cuda::{Device, Result, Sum};
use half::bf16;

/// Times a rate is measured; the best counts.
const NUM_RUNS: usize = 5;

/// The rates that bound a kernel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ceilings {
    pub bytes_per_s: f64,
    pub flops_per_s: f64,
}

impl Ceilings {
    pub(crate) fn measure(device: &Device) -> Result<Self> {
        Ok(Self {
            bytes_per_s: bytes_per_s(device)?,
            flops_per_s: flops_per_s(device)?.0,
        })
    }

    /// Seconds that so many bytes and operations take at least, side by side; and which of the two take
    /// them: `memory` or `products`.
    pub(crate) fn least(&self, num_bytes: usize, num_flops: usize) -> (f64, &'static str) {
        let by_memory = num_bytes as f64 / self.bytes_per_s;
        let by_products = num_flops as f64 / self.flops_per_s;
        if by_memory >= by_products {
            (by_memory, "memory")
        } else {
            (by_products, "products")
        }
    }
}

/// The software GPU of tests gets sizes that it can manage.
pub(crate) fn sized<T>(device: &Device, hardware: T, software: T) -> T {
    if device.is_software() {
        software
    } else {
        hardware
    }
}

/// Of copies within the GPU's memory; what is read and what is written count.
pub(crate) fn bytes_per_s(device: &Device) -> Result<f64> {
    let len = sized(device, 1 << 28, 1 << 16).min(device.memory()?.0 / 16);
    let from = device.zeros::<f32>(len)?;
    let mut to = device.zeros::<f32>(len)?;
    let seconds = best_seconds(device, || device.copy(&from, &mut to))?;
    Ok(8.0 * len as f64 / seconds)
}

/// Of square bf16 products of random values, and their size.
pub(crate) fn flops_per_s(device: &Device) -> Result<(f64, usize)> {
    let size = sized(device, 8192, 64);
    let values = random(size * size);
    let (a, b) = (device.upload(&values)?, device.upload(&values)?);
    let mut c = device.zeros::<bf16>(size * size)?;
    let seconds = best_seconds(device, || {
        let to = (&mut c.as_view_mut(), Sum::Overwrite);
        device.linear(&a.as_view(), &b.as_view(), to, size)
    })?;
    Ok((2.0 * (size as f64).powi(3) / seconds, size))
}

fn best_seconds(device: &Device, mut work: impl FnMut() -> Result<()>) -> Result<f64> {
    work()?;
    let mut best = f64::INFINITY;
    for _ in 0..NUM_RUNS {
        best = best.min(device.time(&mut work)?);
    }
    Ok(best)
}

/// Uniform in [-1, 1), the same in every run.
pub(crate) fn random(len: usize) -> Vec<bf16> {
    let mut state = 1_u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        bf16::from_f32((state >> 8) as f32 / 8_388_608.0 - 1.0)
    };
    std::iter::repeat_with(next).take(len).collect()
}
