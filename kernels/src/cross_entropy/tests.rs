use candle_core::{DType, Device, Tensor};

use super::{CrossEntropy, LossOptions, MIN_CHUNK_ROWS, cross_entropy, cross_entropy_backward};
use crate::matrix::{Compute, Matrix};
use crate::testing::{
    Rng, assert_close, assert_same_on_one_and_two_threads, assert_values_close, autograd, values,
};

const PLAIN: LossOptions = LossOptions {
    label_smoothing: 0.0,
    compute: Compute::F32,
};

fn head(w: &Tensor) -> Matrix {
    Matrix::F32(w.clone())
}

/// (label rows, vocabulary, hidden); the last has several chunks and a short one at the end.
const SHAPES: [(usize, usize, usize); 5] = [
    (1, 1, 1),
    (3, 7, 5),
    (17, 50, 16),
    (5, 130, 33),
    (MIN_CHUNK_ROWS * 2 + 3, 9000, 4),
];

fn inputs(seed: u64, (l, v, c): (usize, usize, usize)) -> (Tensor, Tensor, Vec<u32>) {
    let mut rng = Rng::new(seed);
    let targets = (0..l).map(|_| rng.below(v) as u32).collect();
    (rng.tensor(&[l, c]), rng.tensor(&[v, c]), targets)
}

/// Mean loss by stock operations times the rows: their sum.
fn stock(hidden: &Tensor, w: &Tensor, targets: &[u32]) -> candle_core::Result<Tensor> {
    let hidden = hidden.to_dtype(DType::F64)?;
    let logits = hidden.matmul(&w.to_dtype(DType::F64)?.t()?)?;
    let targets = Tensor::new(targets, &Device::Cpu)?;
    candle_nn::loss::cross_entropy(&logits, &targets)? * targets.dim(0)? as f64
}

/// Loss and gradients are those of the stock operations and their autograd in f64.
#[test]
fn matches_stock_operations_and_autograd() {
    for (i, shape) in SHAPES.into_iter().enumerate() {
        let (hidden, w, targets) = inputs(i as u64, shape);
        let expected = stock(&hidden, &w, &targets)
            .unwrap()
            .to_scalar::<f64>()
            .unwrap();
        let loss = cross_entropy(&hidden, &head(&w), &targets, PLAIN).unwrap();
        assert!(
            (loss.nll_sum - expected).abs() < 1e-5 * (1.0 + expected),
            "{shape:?}"
        );
        assert_eq!(loss.num_labels, shape.0);

        let mut dw = vec![0.25; shape.1 * shape.2];
        let (again, dhidden) =
            cross_entropy_backward(&hidden, &head(&w), &targets, (PLAIN, 0.5), Some(&mut dw))
                .unwrap();
        assert_eq!(again, loss);
        let half = Tensor::new(0.5_f64, &Device::Cpu).unwrap();
        let expected = autograd(&[&hidden, &w], &half, |v| stock(&v[0], &v[1], &targets));
        assert_close(&dhidden, &expected[0], 1e-5);
        let added: Vec<f32> = values(&expected[1]).iter().map(|x| x + 0.25).collect();
        assert_values_close(&dw, &added, 1e-5);
    }
}

/// The gradient is the slope of our own loss.
#[test]
fn gradient_matches_finite_differences() {
    let (hidden, w, targets) = inputs(10, (2, 5, 3));
    let mut dw = vec![0.0; 15];
    let (_, dhidden) =
        cross_entropy_backward(&hidden, &head(&w), &targets, (PLAIN, 1.0), Some(&mut dw)).unwrap();
    let slope = |i: usize| {
        let loss = |delta: f32| {
            let mut moved = values(&hidden);
            moved[i] += delta;
            let moved = Tensor::from_vec(moved, (2, 3), &Device::Cpu).unwrap();
            cross_entropy(&moved, &head(&w), &targets, PLAIN)
                .unwrap()
                .nll_sum
        };
        ((loss(1e-2) - loss(-1e-2)) / 2e-2) as f32
    };
    let slopes: Vec<f32> = (0..6).map(slope).collect();
    assert_values_close(&values(&dhidden), &slopes, 2e-3);
}

/// Without labels there is no loss and no gradient, and nothing is divided by zero.
#[test]
fn no_labels() {
    let mut rng = Rng::new(11);
    let (hidden, w) = (rng.tensor(&[0, 3]), rng.tensor(&[4, 3]));
    let mut dw = vec![0.0; 12];
    let (loss, dhidden) =
        cross_entropy_backward(&hidden, &head(&w), &[], (PLAIN, 1.0), Some(&mut dw)).unwrap();
    assert_eq!(
        loss,
        CrossEntropy {
            nll_sum: 0.0,
            loss_sum: 0.0,
            num_labels: 0
        }
    );
    assert_eq!((dhidden.dims(), dw), (&[0, 3][..], vec![0.0; 12]));
}

/// Weights that are not finite show in the loss, so that the run can stop before the update.
#[test]
fn nan_reaches_the_loss() {
    let (hidden, w, targets) = inputs(12, (3, 40, 4));
    let mut broken = values(&w);
    broken[17] = f32::NAN;
    let broken = Tensor::from_vec(broken, (40, 4), &Device::Cpu).unwrap();
    assert!(
        cross_entropy(&hidden, &head(&broken), &targets, PLAIN)
            .unwrap()
            .nll_sum
            .is_nan()
    );
}

/// A target beyond the vocabulary is an error, not a panic.
#[test]
fn unknown_target_is_an_error() {
    let (hidden, w, _) = inputs(13, (1, 5, 3));
    let error = cross_entropy(&hidden, &head(&w), &[5], PLAIN)
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "cross_entropy: targets is 5, expected below the vocabulary size 5"
    );
}

/// The number of threads changes no bit.
#[test]
fn same_bits_on_one_and_two_threads() {
    let (hidden, w, targets) = inputs(14, (300, 1024, 32));
    assert_same_on_one_and_two_threads(|| {
        let mut dw = vec![0.0; 1024 * 32];
        let (loss, dhidden) =
            cross_entropy_backward(&hidden, &head(&w), &targets, (PLAIN, 1.0), Some(&mut dw))
                .unwrap();
        vec![vec![loss.nll_sum as f32], values(&dhidden), dw]
    });
}

/// With label smoothing the loss is that of the spread-out labels, and the gradient its slope;
/// the plain NLL stays what it is. In f64, by the formula.
#[test]
fn smoothed_loss_and_gradient() {
    let smoothing = 0.2;
    let options = LossOptions {
        label_smoothing: smoothing,
        ..PLAIN
    };
    let (hidden, w, targets) = inputs(20, (9, 13, 6));
    let stock = |hidden: &Tensor, w: &Tensor| -> candle_core::Result<Tensor> {
        let logits = hidden
            .to_dtype(DType::F64)?
            .matmul(&w.to_dtype(DType::F64)?.t()?)?;
        let log_p = candle_nn::ops::log_softmax(&logits, 1)?;
        let ids = Tensor::new(&targets[..], &Device::Cpu)?.unsqueeze(1)?;
        let plain = log_p.gather(&ids, 1)?.sum_all()?.neg()?;
        let spread = (log_p.sum_all()?.neg()? / 13.0)?;
        (plain * (1.0 - f64::from(smoothing)))? + (spread * f64::from(smoothing))?
    };
    let expected = stock(&hidden, &w).unwrap().to_scalar::<f64>().unwrap();
    let mut dw = vec![0.0; 13 * 6];
    let (loss, dhidden) =
        cross_entropy_backward(&hidden, &head(&w), &targets, (options, 0.5), Some(&mut dw))
            .unwrap();
    assert!(
        (loss.loss_sum - expected).abs() < 1e-5 * expected,
        "{loss:?} {expected}"
    );
    assert_eq!(
        loss,
        cross_entropy(&hidden, &head(&w), &targets, options).unwrap()
    );
    let plain = cross_entropy(&hidden, &head(&w), &targets, PLAIN).unwrap();
    assert_eq!(
        (plain.nll_sum, plain.loss_sum),
        (loss.nll_sum, loss.nll_sum)
    );
    let half = Tensor::new(0.5_f64, &Device::Cpu).unwrap();
    let expected = autograd(&[&hidden, &w], &half, |v| stock(&v[0], &v[1]));
    assert_close(&dhidden, &expected[0], 1e-5);
    assert_values_close(&dw, &values(&expected[1]), 1e-5);
}

/// A frozen head gives the same loss and the same gradient of what goes in.
#[test]
fn frozen_head() {
    let (hidden, w, targets) = inputs(21, (150, 9000, 4));
    let mut dw = vec![0.0; 9000 * 4];
    let all = (PLAIN, 1.0);
    let trained = cross_entropy_backward(&hidden, &head(&w), &targets, all, Some(&mut dw)).unwrap();
    let frozen = cross_entropy_backward(&hidden, &head(&w), &targets, all, None).unwrap();
    assert_eq!(frozen.0, trained.0);
    assert_eq!(values(&frozen.1), values(&trained.1));
}

/// In bf16 loss and gradients are near those of f32: factors are within 2^-9 of themselves.
#[test]
fn bf16_is_near_f32() {
    let (hidden, w, targets) = inputs(22, (40, 300, 32));
    let run = |compute: Compute| {
        let options = LossOptions { compute, ..PLAIN };
        let mut dw = vec![0.0; 300 * 32];
        let (loss, dhidden) =
            cross_entropy_backward(&hidden, &head(&w), &targets, (options, 1.0), Some(&mut dw))
                .unwrap();
        (loss.nll_sum, values(&dhidden), dw)
    };
    let (exact, near) = (run(Compute::F32), run(Compute::Bf16));
    assert!(
        (exact.0 - near.0).abs() < 5e-3 * exact.0,
        "{} {}",
        exact.0,
        near.0
    );
    assert_values_close(&near.1, &exact.1, 0.05);
    assert_values_close(&near.2, &exact.2, 0.05);
}

/// A share that is none is an error.
#[test]
fn smoothing_out_of_range_is_an_error() {
    let (hidden, w, targets) = inputs(23, (1, 5, 3));
    let options = LossOptions {
        label_smoothing: 1.5,
        ..PLAIN
    };
    let error = cross_entropy(&hidden, &head(&w), &targets, options).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cross_entropy: label_smoothing is 1.5, expected between 0 and 1"
    );
}
