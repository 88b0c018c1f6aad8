use candle_core::{DType, Device, Tensor};

use super::{Compute, INT8_GROUP, Matrix, MatrixFormat};
use crate::testing::{Rng, values};

fn matrix(values: Vec<f32>, format: MatrixFormat) -> Matrix {
    let len = values.len();
    Matrix::new(
        Tensor::from_vec(values, (1, len), &Device::Cpu).unwrap(),
        format,
    )
    .unwrap()
}

/// In f32 nothing is copied: the optimizer's changes show.
#[test]
fn f32_shares_the_tensor() {
    let tensor = Rng::new(1).tensor(&[3, 5]);
    let matrix = Matrix::new(tensor.clone(), MatrixFormat::F32).unwrap();
    crate::tensor::f32_update("test", "w", &tensor, |w| w[7] = 42.0).unwrap();
    assert_eq!(
        values(&matrix.to_f32().unwrap())[7].to_bits(),
        42.0_f32.to_bits()
    );
    assert_eq!((matrix.dims(), matrix.num_bytes()), ((3, 5), 60));
}

/// bf16 rounds to nearest, ties to even.
#[test]
fn bf16_rounds_to_even() {
    let matrix = matrix(
        vec![1.0, 1.003_906_2, 1.011_718_8, -2.7],
        MatrixFormat::Bf16,
    );
    let found = values(&matrix.to_f32().unwrap());
    assert_eq!(found, [1.0, 1.0, 1.015_625, -2.703_125]);
    assert_eq!(
        (matrix.format(), matrix.num_bytes()),
        (MatrixFormat::Bf16, 8)
    );
}

/// int8 is within half a step of the value, the step being a 127th of its group's largest, and
/// exact for the largest and for zeros.
#[test]
fn int8_is_within_half_a_step() {
    let mut rng = Rng::new(2);
    for (rows, columns) in [(1, 1), (3, INT8_GROUP), (5, 2 * INT8_GROUP + 7), (0, 4)] {
        let tensor = rng.tensor(&[rows, columns]);
        let matrix = Matrix::new(tensor.clone(), MatrixFormat::Int8).unwrap();
        let (exact, found) = (values(&tensor), values(&matrix.to_f32().unwrap()));
        let groups = columns.div_ceil(INT8_GROUP);
        assert_eq!(matrix.num_bytes(), rows * (columns + 4 * groups));
        for (exact, found) in exact.chunks(columns).zip(found.chunks(columns)) {
            let groups = exact.chunks(INT8_GROUP).zip(found.chunks(INT8_GROUP));
            for (exact, found) in groups {
                let largest = exact.iter().fold(0.0_f32, |max, x| max.max(x.abs()));
                for (exact, found) in exact.iter().zip(found) {
                    assert!((exact - found).abs() <= largest / 253.9, "{exact} {found}");
                }
            }
        }
    }
    let zeros = matrix(vec![0.0; 70], MatrixFormat::Int8);
    assert_eq!(values(&zeros.to_f32().unwrap()), [0.0; 70]);
}

/// A value that is not finite is not lost in a group of int8.
#[test]
fn int8_keeps_what_is_not_finite() {
    for broken in [f32::NAN, f32::INFINITY] {
        let mut all = vec![1.0; 10];
        all[3] = broken;
        let found = values(&matrix(all, MatrixFormat::Int8).to_f32().unwrap());
        assert!(found.iter().all(|x| !x.is_finite()), "{found:?}");
    }
}

/// A tensor that is not a matrix or not f32 is an error that says so.
#[test]
fn errors_name_the_argument() {
    let vector = Tensor::zeros(3, DType::F32, &Device::Cpu).unwrap();
    let error = Matrix::new(vector, MatrixFormat::F32).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Matrix::new: values has shape [3], expected two dimensions"
    );
    let halves = Tensor::zeros((3, 2), DType::BF16, &Device::Cpu).unwrap();
    let error = Matrix::new(halves.clone(), MatrixFormat::F32).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Matrix::new: values has dtype BF16, expected F32"
    );
    let x = Tensor::zeros((1, 2), DType::F32, &Device::Cpu).unwrap();
    let error = crate::linear(&x, &Matrix::F32(halves), Compute::F32).unwrap_err();
    assert_eq!(error.to_string(), "linear: w has dtype BF16, expected F32");
}
