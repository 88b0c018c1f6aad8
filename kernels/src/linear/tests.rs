use candle_core::{DType, Tensor};

use super::{
    linear, linear_accumulate, linear_input_grad, linear_input_grad_accumulate,
    linear_weight_grad_accumulate,
};
use crate::matrix::{Compute, Matrix, MatrixFormat};
use crate::testing::{
    Rng, assert_close, assert_finite_differences, assert_same_on_one_and_two_threads,
    assert_values_close, values,
};

/// Shapes (T, O, C) around the edges of vectors, tiles and runs.
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

const COMPUTES: [Compute; 2] = [Compute::F32, Compute::Bf16];

fn rounded(x: &Tensor, compute: Compute) -> Tensor {
    match compute {
        Compute::F32 => x.clone(),
        Compute::Bf16 => x.to_dtype(DType::BF16).unwrap(),
    }
}

/// Σ over k in f64 of the rounded factors, written as the formula.
fn product(a: &Tensor, b: &Tensor, compute: Compute) -> Tensor {
    let to_f64 = |t: &Tensor| {
        let t = rounded(t, compute).to_dtype(DType::F64).unwrap();
        t.to_vec2::<f64>().unwrap()
    };
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

/// The five products are the formulas, at every shape, format and width.
#[test]
fn products_match_their_formulas() {
    let mut rng = Rng::new(1);
    for (t, o, c) in SHAPES {
        let (x, dy) = (rng.tensor(&[t, c]), rng.tensor(&[t, o]));
        let stored = rng.tensor(&[o, c]);
        for format in [MatrixFormat::F32, MatrixFormat::Bf16, MatrixFormat::Int8] {
            let matrix = Matrix::new(stored.clone(), format).unwrap();
            let w = matrix.to_f32().unwrap();
            for compute in COMPUTES {
                let y = product(&x, &w.t().unwrap(), compute);
                assert_close(&linear(&x, &matrix, compute).unwrap(), &y, 1e-4);
                let sum = rng.tensor(&[t, o]);
                let expected = (&sum + &y).unwrap();
                linear_accumulate(&x, &matrix, compute, &sum).unwrap();
                assert_close(&sum, &expected, 1e-4);
                let dx = product(&dy, &w, compute);
                let found = linear_input_grad(&dy, &matrix, compute).unwrap();
                assert_close(&found, &dx, 1e-4);
                let sum = rng.tensor(&[t, c]);
                let expected = (&sum + &dx).unwrap();
                linear_input_grad_accumulate(&dy, &matrix, compute, &sum).unwrap();
                assert_close(&sum, &expected, 1e-4);
            }
        }
        for compute in COMPUTES {
            let mut sum = vec![0.5; o * c];
            linear_weight_grad_accumulate(&dy, &x, compute, &mut sum).unwrap();
            let dw = product(&dy.t().unwrap(), &x, compute);
            let expected: Vec<f32> = values(&dw).iter().map(|x| x + 0.5).collect();
            assert_values_close(&sum, &expected, 1e-4);
        }
    }
}

/// The gradients are the slopes of the forward product.
#[test]
fn gradients_match_finite_differences() {
    let mut rng = Rng::new(6);
    let (x, w, dy) = (
        rng.tensor(&[3, 5]),
        rng.tensor(&[4, 5]),
        rng.tensor(&[3, 4]),
    );
    let y = |x: &Tensor, w: &Tensor| linear(x, &Matrix::F32(w.clone()), Compute::F32).unwrap();
    let dx = linear_input_grad(&dy, &Matrix::F32(w.clone()), Compute::F32).unwrap();
    assert_finite_differences(&dx, &x, &dy, |x| y(x, &w));
    let mut dw = vec![0.0; 20];
    linear_weight_grad_accumulate(&dy, &x, Compute::F32, &mut dw).unwrap();
    let dw = Tensor::from_vec(dw, (4, 5), &candle_core::Device::Cpu).unwrap();
    assert_finite_differences(&dw, &w, &dy, |w| y(&x, w));
}

/// The number of threads changes no bit.
#[test]
fn same_bits_on_one_and_two_threads() {
    let mut rng = Rng::new(2);
    let (x, dy) = (rng.tensor(&[150, 300]), rng.tensor(&[150, 200]));
    let w = Matrix::F32(rng.tensor(&[200, 300]));
    for compute in COMPUTES {
        assert_same_on_one_and_two_threads(|| {
            let mut dw = vec![0.0; 200 * 300];
            linear_weight_grad_accumulate(&dy, &x, compute, &mut dw).unwrap();
            vec![
                values(&linear(&x, &w, compute).unwrap()),
                values(&linear_input_grad(&dy, &w, compute).unwrap()),
                dw,
            ]
        });
    }
}

/// A wrong argument is an error that names it.
#[test]
fn errors_name_the_argument() {
    let mut rng = Rng::new(3);
    let x = rng.tensor(&[4, 6]);
    let mut error = |x: &Tensor, w: &[usize]| {
        let w = Matrix::F32(rng.tensor(w));
        linear(x, &w, Compute::F32).unwrap_err().to_string()
    };
    assert_eq!(
        error(&x, &[3, 5]),
        "linear: x has shape [4, 6], expected [4, 5]"
    );
    assert_eq!(
        error(&x.t().unwrap(), &[3, 4]),
        "linear: x is not contiguous (shape [6, 4], strides [1, 6])"
    );
    assert_eq!(
        error(&x.to_dtype(DType::BF16).unwrap(), &[3, 6]),
        "linear: x has dtype BF16, expected F32"
    );
}

/// No tokens give no rows.
#[test]
fn zero_tokens() {
    let mut rng = Rng::new(4);
    let w = Matrix::F32(rng.tensor(&[3, 6]));
    let y = linear(&rng.tensor(&[0, 6]), &w, Compute::Bf16).unwrap();
    assert_eq!(y.dims(), [0, 3]);
}
