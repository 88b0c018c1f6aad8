use candle_core::{DType, Device, Tensor, Var};
use candle_nn::{AdamW, Optimizer, ParamsAdamW};

use super::{AdamWStep, Moments, MomentsFormat, Rounding, adamw_step, squared_norm};
use crate::testing::{Rng, assert_same_on_one_and_two_threads, assert_values_close, values};

const ROUNDING: Rounding = Rounding { key: 7 };

const STEP: AdamWStep = AdamWStep {
    lr: 1e-2,
    beta1: 0.9,
    beta2: 0.95,
    eps: 1e-8,
    weight_decay: 0.1,
    step: 1,
    grad_scale: 1.0,
};

/// Twenty steps give what candle's AdamW gives.
#[test]
fn follows_candle_adamw() {
    let mut rng = Rng::new(1);
    let start = rng.tensor(&[37]);
    let var = Var::from_tensor(&start).unwrap();
    let params = ParamsAdamW {
        lr: STEP.lr,
        beta1: STEP.beta1,
        beta2: STEP.beta2,
        eps: STEP.eps,
        weight_decay: STEP.weight_decay,
    };
    let mut theirs = AdamW::new(vec![var.clone()], params).unwrap();
    let ours = start.copy().unwrap();
    let mut moments = Moments::zeros(MomentsFormat::F32, 37);
    for step in 1..=20 {
        let grad = rng.tensor(&[37]);
        let loss = (var.as_tensor() * &grad).unwrap().sum_all().unwrap();
        theirs.backward_step(&loss).unwrap();
        let step = AdamWStep { step, ..STEP };
        adamw_step(&ours, &values(&grad), &mut moments, &step, ROUNDING).unwrap();
    }
    assert_values_close(&values(&ours), &values(var.as_tensor()), 1e-6);
}

/// A step is the published formula in f64, decay and gradient scale included.
#[test]
fn one_step_is_the_formula() {
    let mut rng = Rng::new(2);
    let (start, grad) = (rng.values(9), rng.values(9));
    let (m0, v0) = (
        rng.values(9),
        rng.values(9).iter().map(|x| x * x).collect::<Vec<f32>>(),
    );
    let step = AdamWStep {
        step: 3,
        grad_scale: 0.25,
        ..STEP
    };
    let expected = |i: usize| {
        let g = f64::from(grad[i]) * 0.25;
        let m = 0.9 * f64::from(m0[i]) + 0.1 * g;
        let v = 0.95 * f64::from(v0[i]) + 0.05 * g * g;
        let (m_hat, v_hat) = (m / (1.0 - 0.9_f64.powi(3)), v / (1.0 - 0.95_f64.powi(3)));
        let decayed = f64::from(start[i]) * (1.0 - 1e-2 * 0.1);
        (decayed - 1e-2 * m_hat / (v_hat.sqrt() + 1e-8)) as f32
    };
    let expected: Vec<f32> = (0..9).map(expected).collect();
    let param = Tensor::new(start.as_slice(), &Device::Cpu).unwrap();
    let mut moments = Moments::F32 {
        first: m0.clone(),
        second: v0.clone(),
    };
    adamw_step(&param, &grad, &mut moments, &step, ROUNDING).unwrap();
    assert_values_close(&values(&param), &expected, 1e-6);
}

/// The norm is the norm, also where tasks and runs end.
#[test]
fn squared_norm_of_every_kind_of_length() {
    let all = Rng::new(3).values((1 << 17) + 5);
    for len in [0, 1, 17, 1023, 1025, 1 << 16, (1 << 16) + 1, all.len()] {
        let expected: f64 = all[..len].iter().map(|x| f64::from(*x).powi(2)).sum();
        let found = squared_norm(&all[..len]);
        assert!(
            (found - expected).abs() <= 1e-6 * expected,
            "{len}: {found}, not {expected}"
        );
    }
    assert!(squared_norm(&[1.0, f32::NAN]).is_nan());
}

/// The clones of a parameter see the step.
#[test]
fn tensors_step_in_place() {
    let weight = Tensor::new(&[1.0_f32, 2.0], &Device::Cpu).unwrap();
    let seen_by_the_network = weight.clone();
    let mut moments = Moments::zeros(MomentsFormat::F32, 2);
    let step = AdamWStep {
        weight_decay: 0.0,
        ..STEP
    };
    adamw_step(&weight, &[1.0, -1.0], &mut moments, &step, ROUNDING).unwrap();
    assert_values_close(&values(&seen_by_the_network), &[0.99, 2.01], 1e-6);
}

/// The way that 4,096 weights around 0.02 go in 200 steps of 1e-5 under noisy gradients, as f32.
fn journey(dtype: DType, format: MomentsFormat) -> Vec<f32> {
    let mut rng = Rng::new(11);
    let mut small = |scale: f32| -> Vec<f32> {
        // Sums of four uniform values: nearly normal.
        let mut sum = vec![0.0; 4096];
        for _ in 0..4 {
            for (sum, x) in sum.iter_mut().zip(rng.values(4096)) {
                *sum += scale * x;
            }
        }
        sum
    };
    let start = small(0.02);
    let pull = small(1e-3);
    let param = Tensor::new(start.as_slice(), &Device::Cpu)
        .unwrap()
        .to_dtype(dtype)
        .unwrap();
    let before = values(&param.to_dtype(DType::F32).unwrap());
    let mut moments = Moments::zeros(format, 4096);
    for step in 1..=200 {
        let grad: Vec<f32> = small(1e-3).iter().zip(&pull).map(|(a, b)| a + b).collect();
        let step_numbers = AdamWStep {
            lr: 1e-5,
            beta2: 0.999,
            weight_decay: 0.0,
            step,
            ..STEP
        };
        let rounding = Rounding { key: step * 1000 };
        adamw_step(&param, &grad, &mut moments, &step_numbers, rounding).unwrap();
    }
    let after = values(&param.to_dtype(DType::F32).unwrap());
    after.iter().zip(&before).map(|(a, b)| a - b).collect()
}

/// The part of the f32 move that another storage makes: its projection on it.
fn projection(found: &[f32], reference: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter()
            .zip(b)
            .map(|(a, b)| f64::from(*a) * f64::from(*b))
            .sum()
    };
    dot(found, reference) / dot(reference, reference)
}

/// bf16 weights learn at 1e-5 as f32 weights do, with moments in every storage; rounded to nearest
/// they would make an eighth of the way (training.md measured 0.126 for candle's AdamW).
#[test]
fn narrow_storage_learns() {
    let reference = journey(DType::F32, MomentsFormat::F32);
    for (dtype, format) in [
        (DType::F32, MomentsFormat::Bf16),
        (DType::F32, MomentsFormat::Int8),
        (DType::BF16, MomentsFormat::F32),
        (DType::BF16, MomentsFormat::Bf16),
        (DType::BF16, MomentsFormat::Int8),
    ] {
        let found = projection(&journey(dtype, format), &reference);
        assert!(
            (0.95..1.05).contains(&found),
            "{dtype:?} weights, {format:?} moments: {found}"
        );
    }
}

/// Stochastic rounding is right on average and leaves alone what bf16 has.
#[test]
fn rounding_is_unbiased() {
    let mut bits = vec![0; 4096];
    ROUNDING.fill(5, &mut bits);
    let value = 1.003_f32;
    let rounded: Vec<f32> = bits
        .iter()
        .map(|bits| super::rounding::stochastic(value, *bits as u16).to_f32())
        .collect();
    let mean: f32 = rounded.iter().sum::<f32>() / 4096.0;
    // A bf16's spacing at 1 is 1/128; the mean of 4,096 draws is within 4 standard deviations.
    assert!((mean - value).abs() < 4.0 * 0.5 / 128.0 / 64.0, "{mean}");
    let neighbours = [1.0_f32, 1.007_812_5].map(f32::to_bits);
    assert!(rounded.iter().all(|x| neighbours.contains(&x.to_bits())));
    let exact = super::rounding::stochastic(1.007_812_5, u16::MAX);
    assert_eq!(exact.to_f32().to_bits(), 1.007_812_5_f32.to_bits());
}

/// The number of threads changes no bit, and blocks at odd ends are stepped as others.
#[test]
fn same_bits_on_one_and_two_threads() {
    let mut rng = Rng::new(4);
    let len = (1 << 16) * 3 + 7;
    let (start, grad) = (rng.values(len), rng.values(len));
    for (dtype, format) in [
        (DType::F32, MomentsFormat::F32),
        (DType::BF16, MomentsFormat::Int8),
        (DType::BF16, MomentsFormat::Bf16),
    ] {
        assert_same_on_one_and_two_threads(|| {
            let param = Tensor::new(start.as_slice(), &Device::Cpu).unwrap();
            let param = param.to_dtype(dtype).unwrap();
            let mut moments = Moments::zeros(format, len);
            adamw_step(&param, &grad, &mut moments, &STEP, ROUNDING).unwrap();
            let param = values(&param.to_dtype(DType::F32).unwrap());
            vec![param, vec![squared_norm(&grad) as f32]]
        });
    }
}

/// Buffers of different lengths are refused, as are parameters of another type.
#[test]
fn wrong_buffers_are_errors() {
    let param = Tensor::zeros(2, DType::F32, &Device::Cpu).unwrap();
    let mut moments = Moments::zeros(MomentsFormat::F32, 2);
    let error = |param: &Tensor, grad: &[f32], moments: &mut Moments| {
        adamw_step(param, grad, moments, &STEP, ROUNDING)
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        error(&param, &[0.0; 3], &mut moments),
        "adamw_step: grad has shape [3], expected [2]"
    );
    let half = param.to_dtype(DType::F16).unwrap();
    assert!(error(&half, &[0.0; 2], &mut moments).contains("dtype F16"));
}
