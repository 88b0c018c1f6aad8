//! The activation of the MLP.

#![expect(
    clippy::unwrap_used,
    reason = "a GPU that does not work fails the test"
)]

use cuda::Device;
use half::bf16;

use crate::support::{Random, SEEDS, Value, assert_close, device, to_f32};

fn twin(gate_up: &[f32], width: usize) -> Vec<f32> {
    let row = |row: &[f32]| {
        let (gate, up) = row.split_at(width);
        let one = |(g, u): (&f32, &f32)| g / (1.0 + (-g).exp()) * u;
        gate.iter().zip(up).map(one).collect::<Vec<f32>>()
    };
    gate_up.chunks(2 * width).flat_map(row).collect()
}

fn check<A: Value>(device: &Device, random: &mut Random) {
    let (rows, width) = (random.below(1, 40), 8 * random.below(1, 40));
    let gate_up = random.values::<A>(rows * 2 * width);
    let on_gpu = device.upload(&gate_up).unwrap();
    let mut y = device.zeros::<A>(rows * width).unwrap();
    cuda::swiglu(device, &on_gpu.as_view(), &mut y.as_view_mut(), width).unwrap();
    let found = to_f32(&device.download(&y).unwrap());
    assert_close(&found, &twin(&to_f32(&gate_up), width), A::ROUNDING);
}

#[test]
fn swiglu_is_its_twin() {
    let Some(device) = device() else { return };
    for seed in SEEDS {
        check::<bf16>(&device, &mut Random::new(seed));
        check::<f32>(&device, &mut Random::new(seed));
    }
}

#[test]
fn a_wrong_length_is_an_error() {
    let Some(device) = device() else { return };
    let gate_up = device.zeros::<bf16>(24).unwrap();
    let mut y = device.zeros::<bf16>(8).unwrap();
    let error = cuda::swiglu(&device, &gate_up.as_view(), &mut y.as_view_mut(), 8).unwrap_err();
    let expected = "swiglu: gate_up: expected 16 values, found 24";
    assert_eq!(error.to_string(), expected);
}
