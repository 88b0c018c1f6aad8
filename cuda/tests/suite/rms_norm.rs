//! RMSNorm.

#![expect(
    clippy::unwrap_used,
    reason = "a GPU that does not work fails the test"
)]

use cuda::Device;
use half::bf16;

use crate::support::{Random, SEEDS, Value, assert_close, device, to_f32};

fn twin(x: &[f32], w: &[f32], eps: f32) -> Vec<f32> {
    let row = |row: &[f32]| {
        let squares: f64 = row.iter().map(|x| f64::from(*x).powi(2)).sum();
        let r = (1.0 / (squares / row.len() as f64 + f64::from(eps)).sqrt()) as f32;
        row.iter()
            .zip(w)
            .map(|(x, w)| x * r * w)
            .collect::<Vec<f32>>()
    };
    x.chunks(w.len()).flat_map(row).collect()
}

/// Also a row that is wider than a block.
fn check<A: Value>(device: &Device, random: &mut Random) {
    for (rows, width) in [(random.below(1, 9), 8 * random.below(1, 70)), (2, 8216)] {
        let (x, w) = (random.floats(rows * width), random.floats(width));
        let on_gpu = device.upload(&x).unwrap();
        let weights = device.upload(&w).unwrap();
        let mut y = device.zeros::<A>(rows * width).unwrap();
        let (x_view, w_view) = (on_gpu.as_view(), weights.as_view());
        cuda::rms_norm(device, &x_view, &w_view, &mut y.as_view_mut(), 1e-5).unwrap();
        let found = to_f32(&device.download(&y).unwrap());
        assert_close(&found, &twin(&x, &w, 1e-5), A::ROUNDING);
    }
}

#[test]
fn rms_norm_is_its_twin() {
    let Some(device) = device() else { return };
    for seed in SEEDS {
        check::<bf16>(&device, &mut Random::new(seed));
        check::<f32>(&device, &mut Random::new(seed));
    }
}

#[test]
fn a_wrong_length_is_an_error() {
    let Some(device) = device() else { return };
    let x = device.zeros::<f32>(20).unwrap();
    let mut y = device.zeros::<bf16>(16).unwrap();
    let mut error = |width: usize| {
        let w = device.zeros::<f32>(width).unwrap();
        let (x, w) = (x.as_view(), w.as_view());
        let failed = cuda::rms_norm(&device, &x, &w, &mut y.as_view_mut(), 1e-5);
        failed.unwrap_err().to_string()
    };
    assert_eq!(error(8), "rms_norm: x: expected 16 values, found 20");
    assert_eq!(error(12), "rms_norm: C: expected a multiple of 8, found 12");
}
