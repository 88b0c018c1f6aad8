//! Weights in 8 bits: made, widened, multiplied.

#![expect(
    clippy::unwrap_used,
    reason = "a GPU that does not work fails the test"
)]

use cuda::{Device, Float, Int8View, Sum};
use half::bf16;

use crate::support::{Random, SEEDS, Value, assert_close, device, to_f32};

/// Values and scales of rows of `width`.
fn quantized_twin(w: &[f32], width: usize) -> (Vec<i8>, Vec<f32>) {
    let (mut values, mut scales) = (Vec::new(), Vec::new());
    for row in w.chunks(width) {
        let largest = row.iter().fold(0.0_f32, |max, x| max.max(x.abs()));
        let scale = largest / 127.0;
        let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
        values.extend(row.iter().map(|x| (x * inverse).round_ties_even() as i8));
        scales.push(scale);
    }
    (values, scales)
}

fn random_int8(random: &mut Random, len: usize) -> Vec<i8> {
    (0..len)
        .map(|_| (random.below(0, 255) as u8).cast_signed())
        .collect()
}

#[test]
fn rows_are_quantized_and_widened_as_their_twins() {
    let Some(device) = device() else { return };
    for seed in SEEDS {
        let mut random = Random::new(seed);
        for (rows, width) in [(random.below(2, 9), 8 * random.below(1, 40)), (2, 2104)] {
            let mut w = random.bf16s(rows * width);
            w[..width].fill(bf16::ZERO);
            let (expected, expected_scales) = quantized_twin(&to_f32(&w), width);
            let on_gpu = device.upload(&w).unwrap();
            let mut values = device.zeros::<i8>(rows * width).unwrap();
            let mut scales = device.zeros::<f32>(rows).unwrap();
            cuda::quantize_rows(
                &device,
                &on_gpu.as_view(),
                &mut values.as_view_mut(),
                &mut scales.as_view_mut(),
            )
            .unwrap();
            assert_eq!(device.download(&values).unwrap(), expected);
            assert_eq!(device.download(&scales).unwrap(), expected_scales);

            let view = Int8View {
                values: &values.as_view(),
                scales: &scales.as_view(),
            };
            let exact = |(i, value): (usize, &i8)| f32::from(*value) * expected_scales[i / width];
            let exact: Vec<f32> = expected.iter().enumerate().map(exact).collect();
            assert_eq!(widened::<f32>(&device, &view, exact.len()), exact);
            let rounded: Vec<bf16> = exact.iter().map(|value| bf16::from_f32(*value)).collect();
            assert_eq!(widened::<bf16>(&device, &view, exact.len()), rounded);
        }
    }
}

fn widened<A: Value>(device: &Device, from: &Int8View<'_>, len: usize) -> Vec<A> {
    let mut wide = device.zeros::<A>(len).unwrap();
    cuda::dequantize_rows(device, from, &mut wide.as_view_mut()).unwrap();
    device.download(&wide).unwrap()
}

#[test]
fn what_is_not_finite_poisons_its_row_alone() {
    let Some(device) = device() else { return };
    for bad in [f32::NAN, f32::INFINITY] {
        let mut w = vec![bf16::ONE; 24];
        w[9] = bf16::from_f32(bad);
        let w = device.upload(&w).unwrap();
        let mut values = device.zeros::<i8>(24).unwrap();
        let mut scales = device.zeros::<f32>(3).unwrap();
        let (mut values, mut scales_view) = (values.as_view_mut(), scales.as_view_mut());
        cuda::quantize_rows(&device, &w.as_view(), &mut values, &mut scales_view).unwrap();
        let scales = device.download(&scales).unwrap();
        assert!(scales[0].is_finite() && scales[1].is_nan() && scales[2].is_finite());
    }
}

/// Every number of row tiles, with rows and outputs that do not fill theirs; overwritten in bf16,
/// added to in f32.
#[test]
fn products_are_their_twins() {
    let Some(device) = device() else { return };
    for seed in SEEDS {
        let mut random = Random::new(seed);
        for (least, most) in [(1, 17), (17, 33), (33, 65)] {
            let (m, o) = (random.below(least, most), random.below(1, 70));
            let k = 64 * random.below(1, 19);
            let (x, w) = (random.bf16s(m * k), random_int8(&mut random, o * k));
            let scales: Vec<f32> = (0..o).map(|_| 0.01 * random.float()).collect();
            let fx = to_f32(&x);
            let dot = |i: usize| -> f32 {
                let (x, w) = (&fx[i / o * k..][..k], &w[i % o * k..][..k]);
                let sum: f32 = x.iter().zip(w).map(|(x, w)| x * f32::from(*w)).sum();
                sum * scales[i % o]
            };
            let expected: Vec<f32> = (0..m * o).map(dot).collect();
            let x = device.upload(&x).unwrap();
            let (values, scales) = (device.upload(&w).unwrap(), device.upload(&scales).unwrap());
            let view = Int8View {
                values: &values.as_view(),
                scales: &scales.as_view(),
            };
            let mut y = device.upload(&vec![1.0_f32; m * o]).unwrap();
            let to = (&mut y.as_view_mut(), Sum::Add);
            cuda::int8_linear(&device, &x.as_view(), &view, to, k).unwrap();
            let added: Vec<f32> = expected.iter().map(|value| value + 1.0).collect();
            // Sums in another order.
            assert_close(&device.download(&y).unwrap(), &added, 1e-5);

            let mut y = device.zeros::<bf16>(m * o).unwrap();
            let to = (&mut y.as_view_mut(), Sum::Overwrite);
            cuda::int8_linear(&device, &x.as_view(), &view, to, k).unwrap();
            let found = to_f32(&device.download(&y).unwrap());
            assert_close(&found, &expected, 1.0 / 256.0);
        }
    }
}

#[test]
fn an_unsupported_shape_is_an_error() {
    let Some(device) = device() else { return };
    let (values, scales) = (
        device.zeros::<i8>(64).unwrap(),
        device.zeros::<f32>(1).unwrap(),
    );
    let view = Int8View {
        values: &values.as_view(),
        scales: &scales.as_view(),
    };
    let error = |rows: usize, k: usize, sum: Sum| {
        let x = device.zeros::<bf16>(rows * k).unwrap();
        let mut y = device.zeros::<bf16>(rows).unwrap();
        let to = (&mut y.as_view_mut(), sum);
        let failed = cuda::int8_linear(&device, &x.as_view(), &view, to, k);
        failed.unwrap_err().to_string()
    };
    assert_eq!(
        error(2, 32, Sum::Overwrite),
        "int8_linear: K: expected a multiple of 64, found 32"
    );
    assert_eq!(
        error(65, 64, Sum::Overwrite),
        "int8_linear: M: expected at most 64, found 65"
    );
    assert_eq!(f32::MAX_INT8_ROWS, 0);
    let x = device.zeros::<f32>(64).unwrap();
    let mut y = device.zeros::<f32>(1).unwrap();
    let to = (&mut y.as_view_mut(), Sum::Overwrite);
    let failed = cuda::int8_linear(&device, &x.as_view(), &view, to, 64).unwrap_err();
    assert_eq!(
        failed.to_string(),
        "int8_linear: M: expected at most 0, found 1"
    );
    assert_eq!(
        error(1, 64, Sum::Add),
        "int8_linear: y: expected f32 to add to, found bf16"
    );
}
