use candle_nn::ops::silu;

use super::{swiglu, swiglu_backward};
use crate::testing::{
    Rng, assert_close, assert_finite_differences, assert_same_on_one_and_two_threads,
    assert_values_close, autograd, values,
};

const SHAPES: [(usize, usize); 5] = [(1, 1), (3, 15), (2, 16), (5, 17), (2, 33)];

/// The forward pass is the formula in f64.
#[test]
fn forward_matches_the_formula() {
    let mut rng = Rng::new(1);
    for (t, f) in SHAPES {
        let (gate, up) = (rng.tensor(&[t, f]), rng.tensor(&[t, f]));
        let formula = |(g, u): (&f32, &f32)| {
            let g = f64::from(*g);
            (g / (1.0 + (-g).exp()) * f64::from(*u)) as f32
        };
        let expected: Vec<f32> = values(&gate)
            .iter()
            .zip(&values(&up))
            .map(formula)
            .collect();
        assert_values_close(&values(&swiglu(&gate, &up).unwrap()), &expected, 1e-6);
    }
}

/// Gates far outside the range of exp give 0 or the gate itself, never NaN.
#[test]
fn saturated_gates() {
    let device = &candle_core::Device::Cpu;
    let gate = candle_core::Tensor::new(&[[-1e4_f32, -100.0, 100.0, 1e4]], device).unwrap();
    let up = gate.ones_like().unwrap();
    let (dgate, dup) = swiglu_backward(&gate, &up, &up).unwrap();
    assert_eq!(values(&swiglu(&gate, &up).unwrap()), [0.0, 0.0, 100.0, 1e4]);
    assert_eq!(values(&dgate), [0.0, 0.0, 1.0, 1.0]);
    assert_eq!(values(&dup), [0.0, 0.0, 100.0, 1e4]);
}

/// The gradient is candle's gradient of the decomposed form.
#[test]
fn gradient_matches_autograd() {
    let mut rng = Rng::new(2);
    for (t, f) in SHAPES {
        let (gate, up, dy) = (
            rng.tensor(&[t, f]),
            rng.tensor(&[t, f]),
            rng.tensor(&[t, f]),
        );
        let (dgate, dup) = swiglu_backward(&gate, &up, &dy).unwrap();
        let expected = autograd(&[&gate, &up], &dy, |v| silu(&v[0])? * &v[1]);
        assert_close(&dgate, &expected[0], 1e-5);
        assert_close(&dup, &expected[1], 1e-5);
    }
}

/// The gradient is the slope of our own forward pass.
#[test]
fn gradient_matches_finite_differences() {
    let mut rng = Rng::new(3);
    let (gate, up, dy) = (
        rng.tensor(&[2, 9]),
        rng.tensor(&[2, 9]),
        rng.tensor(&[2, 9]),
    );
    let (dgate, dup) = swiglu_backward(&gate, &up, &dy).unwrap();
    assert_finite_differences(&dgate, &gate, &dy, |gate| swiglu(gate, &up).unwrap());
    assert_finite_differences(&dup, &up, &dy, |up| swiglu(&gate, up).unwrap());
}

/// The number of threads changes no bit.
#[test]
fn same_bits_on_one_and_two_threads() {
    let mut rng = Rng::new(4);
    let (gate, up, dy) = (
        rng.tensor(&[300, 301]),
        rng.tensor(&[300, 301]),
        rng.tensor(&[300, 301]),
    );
    assert_same_on_one_and_two_threads(|| {
        let (dgate, dup) = swiglu_backward(&gate, &up, &dy).unwrap();
        vec![
            values(&swiglu(&gate, &up).unwrap()),
            values(&dgate),
            values(&dup),
        ]
    });
}
