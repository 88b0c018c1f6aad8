use candle_core::{Tensor, Var};
use candle_nn::{AdamW, Optimizer, ParamsAdamW};

use super::{AdamWStep, adamw_step, squared_norm};
use crate::testing::{Rng, assert_same_on_one_and_two_threads, assert_values_close, values};

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
    let (mut ours, mut m, mut v) = (values(&start), vec![0.0; 37], vec![0.0; 37]);
    for step in 1..=20 {
        let grad = rng.tensor(&[37]);
        let loss = (var.as_tensor() * &grad).unwrap().sum_all().unwrap();
        theirs.backward_step(&loss).unwrap();
        adamw_step(
            &mut ours,
            &values(&grad),
            &mut m,
            &mut v,
            &AdamWStep { step, ..STEP },
        )
        .unwrap();
    }
    assert_values_close(&ours, &values(var.as_tensor()), 1e-6);
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
    let (mut param, mut m, mut v) = (start.clone(), m0.clone(), v0.clone());
    adamw_step(&mut param, &grad, &mut m, &mut v, &step).unwrap();
    assert_values_close(&param, &expected, 1e-6);
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

/// A tensor's own storage can be stepped, and its clones see it.
#[test]
fn tensors_step_in_place() {
    let weight = Tensor::new(&[1.0_f32, 2.0], &candle_core::Device::Cpu).unwrap();
    let seen_by_the_network = weight.clone();
    let (mut m, mut v) = ([0.0; 2], [0.0; 2]);
    crate::tensor::f32_update("step", "weight", &weight, |param| {
        let step = AdamWStep {
            weight_decay: 0.0,
            ..STEP
        };
        adamw_step(param, &[1.0, -1.0], &mut m, &mut v, &step).unwrap();
    })
    .unwrap();
    assert_values_close(&values(&seen_by_the_network), &[0.99, 2.01], 1e-6);
}

/// The number of threads changes no bit.
#[test]
fn same_bits_on_one_and_two_threads() {
    let mut rng = Rng::new(4);
    let len = (1 << 16) * 3 + 7;
    let (start, grad) = (rng.values(len), rng.values(len));
    assert_same_on_one_and_two_threads(|| {
        let (mut param, mut m, mut v) = (start.clone(), vec![0.0; len], vec![0.0; len]);
        adamw_step(&mut param, &grad, &mut m, &mut v, &STEP).unwrap();
        vec![param, m, v, vec![squared_norm(&grad) as f32]]
    });
}

/// Buffers of different lengths are refused.
#[test]
fn length_mismatch_is_an_error() {
    let (mut m, mut v) = ([0.0; 2], [0.0; 2]);
    let error = adamw_step(&mut [0.0; 2], &[0.0; 3], &mut m, &mut v, &STEP)
        .unwrap_err()
        .to_string();
    assert_eq!(error, "adamw_step: grad has shape [3], expected [2]");
}
