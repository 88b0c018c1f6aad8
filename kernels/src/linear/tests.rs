use candle_core::{DType, Tensor};

use super::{
    linear, linear_input_grad, linear_training, linear_weight_grad, linear_weight_grad_accumulate,
};
use crate::testing::{
    Rng, assert_close, assert_same_on_one_and_two_threads, assert_values_close, values,
};

/// Shapes (T, O, C) around the edges of vectors, tiles and K blocks.
const SHAPES: [(usize, usize, usize); 12] = [
    (1, 1, 1),
    (1, 5, 3),
    (2, 3, 16),
    (3, 17, 15),
    (5, 4, 33),
    (7, 31, 64),
    (13, 8, 511),
    (1, 64, 512),
    (6, 6, 513),
    (33, 29, 128),
    (65, 70, 40),
    (4, 1, 1030),
];

/// Σ over k in f64, written as the formula.
fn product(a: &Tensor, b: &Tensor) -> Tensor {
    let to_f64 = |t: &Tensor| t.to_dtype(DType::F64).unwrap().to_vec2::<f64>().unwrap();
    let (a, b) = (to_f64(a), to_f64(b));
    let rows: Vec<Vec<f32>> = a
        .iter()
        .map(|row| {
            let column = |j: usize| row.iter().zip(&b).map(|(x, b)| x * b[j]).sum::<f64>() as f32;
            (0..b[0].len()).map(column).collect()
        })
        .collect();
    Tensor::new(rows, &candle_core::Device::Cpu).unwrap()
}

/// The three products are the formulas, at every shape.
#[test]
fn products_match_their_formulas() {
    let mut rng = Rng::new(1);
    for (t, o, c) in SHAPES {
        let (x, w, dy) = (
            rng.tensor(&[t, c]),
            rng.tensor(&[o, c]),
            rng.tensor(&[t, o]),
        );
        assert_close(
            &linear(&x, &w).unwrap(),
            &product(&x, &w.t().unwrap()),
            1e-4,
        );
        assert_close(
            &linear_input_grad(&dy, &w).unwrap(),
            &product(&dy, &w),
            1e-4,
        );
        let dw = linear_weight_grad(&dy, &x).unwrap();
        assert_close(&dw, &product(&dy.t().unwrap(), &x), 1e-4);
        let mut sum = vec![0.5; o * c];
        linear_weight_grad_accumulate(&dy, &x, &mut sum).unwrap();
        let expected: Vec<f32> = values(&dw).iter().map(|x| x + 0.5).collect();
        assert_values_close(&sum, &expected, 1e-5);
    }
}

/// The number of threads changes no bit.
#[test]
fn same_bits_on_one_and_two_threads() {
    let mut rng = Rng::new(2);
    let (x, w, dy) = (
        rng.tensor(&[150, 300]),
        rng.tensor(&[200, 300]),
        rng.tensor(&[150, 200]),
    );
    assert_same_on_one_and_two_threads(|| {
        vec![
            values(&linear(&x, &w).unwrap()),
            values(&linear_training(&x, &w).unwrap()),
            values(&linear_input_grad(&dy, &w).unwrap()),
            values(&linear_weight_grad(&dy, &x).unwrap()),
        ]
    });
}

/// A wrong argument is an error that names it.
#[test]
fn errors_name_the_argument() {
    let mut rng = Rng::new(3);
    let x = rng.tensor(&[4, 6]);
    let error = linear(&x, &rng.tensor(&[3, 5])).unwrap_err().to_string();
    assert_eq!(error, "linear: w has shape [3, 5], expected [3, 6]");
    let error = linear(&x.t().unwrap(), &rng.tensor(&[3, 4]))
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "linear: x is not contiguous (shape [6, 4], strides [1, 6])"
    );
    let halves = x.to_dtype(DType::BF16).unwrap();
    let error = linear(&halves, &rng.tensor(&[3, 6]))
        .unwrap_err()
        .to_string();
    assert_eq!(error, "linear: x has dtype BF16, expected F32");
}

/// No tokens give no rows.
#[test]
fn zero_tokens() {
    let mut rng = Rng::new(4);
    let y = linear(&rng.tensor(&[0, 6]), &rng.tensor(&[3, 6])).unwrap();
    assert_eq!(y.dims(), [0, 3]);
}

/// A row has the same bits alone and in a batch of any size.
#[test]
fn rows_do_not_depend_on_the_batch() {
    let mut rng = Rng::new(5);
    let (x, w) = (rng.tensor(&[70, 200]), rng.tensor(&[90, 200]));
    let all = values(&linear(&x, &w).unwrap());
    for (first, tokens) in [(0, 1), (69, 1), (10, 5), (3, 40)] {
        let some = values(&linear(&x.narrow(0, first, tokens).unwrap(), &w).unwrap());
        assert_eq!(some, all[first * 90..(first + tokens) * 90]);
    }
}
