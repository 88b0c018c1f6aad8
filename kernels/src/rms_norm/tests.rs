use candle_nn::ops::rms_norm_slow;

use super::{rms_norm, rms_norm_backward};
use crate::testing::{
    Rng, assert_close, assert_finite_differences, assert_same_on_one_and_two_threads,
    assert_values_close, autograd, values,
};

const EPS: f32 = 1e-5;
const SHAPES: [(usize, usize); 6] = [(1, 1), (3, 15), (2, 16), (5, 17), (4, 64), (3, 130)];

/// The forward pass is the formula in f64.
#[test]
fn forward_matches_the_formula() {
    let mut rng = Rng::new(1);
    for (t, c) in SHAPES {
        let (x, w) = (rng.tensor(&[t, c]), rng.tensor(&[c]));
        let weights = values(&w);
        let mut expected = Vec::new();
        for row in values(&x).chunks(c) {
            let mean = row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / c as f64;
            let r = 1.0 / (mean + f64::from(EPS)).sqrt();
            expected.extend(
                row.iter()
                    .zip(&weights)
                    .map(|(x, w)| (f64::from(x * w) * r) as f32),
            );
        }
        assert_values_close(&values(&rms_norm(&x, &w, EPS).unwrap()), &expected, 1e-6);
    }
}

/// The gradient is candle's gradient of the decomposed form.
#[test]
fn gradient_matches_autograd() {
    let mut rng = Rng::new(2);
    for (t, c) in SHAPES {
        let (x, w, dy) = (rng.tensor(&[t, c]), rng.tensor(&[c]), rng.tensor(&[t, c]));
        let (dx, dw) = rms_norm_backward(&x, &w, EPS, &dy).unwrap();
        let expected = autograd(&[&x, &w], &dy, |v| rms_norm_slow(&v[0], &v[1], EPS));
        assert_close(&dx, &expected[0], 1e-5);
        assert_close(&dw, &expected[1], 1e-5);
    }
}

/// The gradient is the slope of our own forward pass.
#[test]
fn gradient_matches_finite_differences() {
    let mut rng = Rng::new(3);
    let (x, w, dy) = (rng.tensor(&[2, 9]), rng.tensor(&[9]), rng.tensor(&[2, 9]));
    let (dx, dw) = rms_norm_backward(&x, &w, EPS, &dy).unwrap();
    assert_finite_differences(&dx, &x, &dy, |x| rms_norm(x, &w, EPS).unwrap());
    assert_finite_differences(&dw, &w, &dy, |w| rms_norm(&x, w, EPS).unwrap());
}

/// The number of threads changes no bit, also in dw, which sums over all rows.
#[test]
fn same_bits_on_one_and_two_threads() {
    let mut rng = Rng::new(4);
    let (x, w, dy) = (
        rng.tensor(&[900, 130]),
        rng.tensor(&[130]),
        rng.tensor(&[900, 130]),
    );
    assert_same_on_one_and_two_threads(|| {
        let (dx, dw) = rms_norm_backward(&x, &w, EPS, &dy).unwrap();
        vec![
            values(&rms_norm(&x, &w, EPS).unwrap()),
            values(&dx),
            values(&dw),
        ]
    });
}

/// A weight of another width is refused.
#[test]
fn width_mismatch_is_an_error() {
    let mut rng = Rng::new(5);
    let error = rms_norm(&rng.tensor(&[2, 4]), &rng.tensor(&[5]), EPS)
        .unwrap_err()
        .to_string();
    assert_eq!(error, "rms_norm: w has shape [5], expected [4]");
}
