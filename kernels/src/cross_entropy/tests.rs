use candle_core::{DType, Device, Tensor};

use super::{CrossEntropy, MIN_CHUNK_ROWS, cross_entropy, cross_entropy_backward};
use crate::testing::{
    Rng, assert_close, assert_same_on_one_and_two_threads, assert_values_close, autograd, values,
};

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
        let loss = cross_entropy(&hidden, &w, &targets).unwrap();
        assert!(
            (loss.nll_sum - expected).abs() < 1e-5 * (1.0 + expected),
            "{shape:?}"
        );
        assert_eq!(loss.num_labels, shape.0);

        let mut dw = vec![0.25; shape.1 * shape.2];
        let (again, dhidden) = cross_entropy_backward(&hidden, &w, &targets, 0.5, &mut dw).unwrap();
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
    let (_, dhidden) = cross_entropy_backward(&hidden, &w, &targets, 1.0, &mut dw).unwrap();
    let slope = |i: usize| {
        let loss = |delta: f32| {
            let mut moved = values(&hidden);
            moved[i] += delta;
            let moved = Tensor::from_vec(moved, (2, 3), &Device::Cpu).unwrap();
            cross_entropy(&moved, &w, &targets).unwrap().nll_sum
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
    let (loss, dhidden) = cross_entropy_backward(&hidden, &w, &[], 1.0, &mut dw).unwrap();
    assert_eq!(
        loss,
        CrossEntropy {
            nll_sum: 0.0,
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
        cross_entropy(&hidden, &broken, &targets)
            .unwrap()
            .nll_sum
            .is_nan()
    );
}

/// A target beyond the vocabulary is an error, not a panic.
#[test]
fn unknown_target_is_an_error() {
    let (hidden, w, _) = inputs(13, (1, 5, 3));
    let error = cross_entropy(&hidden, &w, &[5]).unwrap_err().to_string();
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
        let (loss, dhidden) = cross_entropy_backward(&hidden, &w, &targets, 1.0, &mut dw).unwrap();
        vec![vec![loss.nll_sum as f32], values(&dhidden), dw]
    });
}
