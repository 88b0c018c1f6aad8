//! What adapters need beside products.

use cuda::{Columns, Dropout};
use half::bf16;

use crate::support::{Random, SEEDS, device, to_f32};

fn round(value: f32) -> f32 {
    bf16::from_f32(value).to_f32()
}

#[test]
fn columns_are_added_to_and_taken() {
    let Some(device) = device() else { return };
    for seed in SEEDS {
        let mut random = Random::new(seed);
        let (rows, width) = (random.below(1, 9), 2 * random.below(1, 20));
        let first = 2 * random.below(0, 9);
        let columns = Columns {
            stride: first + width + 2 * random.below(0, 9),
            range: first..first + width,
        };
        let (y, delta) = (
            random.bf16s(rows * columns.stride),
            random.floats(rows * width),
        );
        let mut on_gpu = device.upload(&y).unwrap();
        let deltas = device.upload(&delta).unwrap();
        cuda::add_columns(
            &device,
            &deltas.as_view(),
            &mut on_gpu.as_view_mut(),
            &columns,
        )
        .unwrap();
        let mut expected = to_f32(&y);
        for (row, delta) in expected.chunks_mut(columns.stride).zip(delta.chunks(width)) {
            for (y, delta) in row[columns.range.clone()].iter_mut().zip(delta) {
                *y = round(*y + delta);
            }
        }
        assert_eq!(to_f32(&device.download(&on_gpu).unwrap()), expected);

        let mut taken = device.zeros::<bf16>(rows * width).unwrap();
        cuda::take_columns(
            &device,
            &on_gpu.as_view(),
            &mut taken.as_view_mut(),
            &columns,
        )
        .unwrap();
        let expected: Vec<f32> = expected
            .chunks(columns.stride)
            .flat_map(|row| row[columns.range.clone()].to_vec())
            .collect();
        assert_eq!(to_f32(&device.download(&taken).unwrap()), expected);
    }
}

/// The odds are met, what stays is raised, and the gradient has the same holes.
#[test]
fn dropout_leaves_out_by_its_odds() {
    let Some(device) = device() else { return };
    for seed in SEEDS {
        let dropout = Dropout {
            key: Random::new(seed).bits(),
            odds: 0.25,
        };
        let len = 4000;
        let x = device.upload(&vec![bf16::from_f32(3.0); len]).unwrap();
        let mut y = device.zeros::<bf16>(len).unwrap();
        cuda::dropout(&device, &x.as_view(), &mut y.as_view_mut(), dropout).unwrap();
        let y = to_f32(&device.download(&y).unwrap());
        let left_out = y.iter().filter(|value| **value == 0.0).count();
        // Four standard deviations of a binomial: sqrt(4000 * 0.25 * 0.75) = 27.
        assert!((892..1108).contains(&left_out), "{left_out}");
        assert!(y.iter().all(|value| [0.0, 4.0].contains(value)));
        let mut dx = device.upload(&vec![3.0_f32; len]).unwrap();
        cuda::dropout_f32(&device, &mut dx.as_view_mut(), dropout).unwrap();
        assert_eq!(device.download(&dx).unwrap(), y);
    }
}

#[test]
fn a_scaled_value_is_rounded_once() {
    let Some(device) = device() else { return };
    let x = Random::new(1).floats(600);
    let on_gpu = device.upload(&x).unwrap();
    let mut y = device.zeros::<bf16>(600).unwrap();
    cuda::scale_round(&device, &on_gpu.as_view(), &mut y.as_view_mut(), 1.7).unwrap();
    let expected: Vec<f32> = x.iter().map(|x| round(1.7 * x)).collect();
    assert_eq!(to_f32(&device.download(&y).unwrap()), expected);
}

#[test]
fn columns_outside_are_an_error() {
    let Some(device) = device() else { return };
    let delta = device.zeros::<f32>(8).unwrap();
    let mut y = device.zeros::<bf16>(8).unwrap();
    let columns = Columns {
        stride: 4,
        range: 2..6,
    };
    let error = cuda::add_columns(&device, &delta.as_view(), &mut y.as_view_mut(), &columns);
    let expected = "add_columns: columns: expected columns of 4, from an even one on, found 2..6";
    assert_eq!(error.unwrap_err().to_string(), expected);
}
