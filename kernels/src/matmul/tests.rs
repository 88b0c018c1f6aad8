use candle_core::{Device, Tensor};

use super::{MAX_RUN, Mat, MatMut, Product, Threads, Values, matmul, tasks};
use crate::matrix::{Compute, Matrix, MatrixFormat};
use crate::step::{Isa, Output};
use crate::testing::{Rng, assert_values_close, values};

/// (rows, columns, inner) around the edges of tiles, panels, runs, words and groups.
const SIZES: [(usize, usize, usize); 14] = [
    (1, 1, 1),
    (1, 5, 3),
    (2, 3, 16),
    (3, 17, 15),
    (13, 33, 31),
    (12, 32, 33),
    (5, 64, 64),
    (25, 31, 65),
    (7, 100, 2 * MAX_RUN - 1),
    (13, 65, 2 * MAX_RUN + 1),
    (300, 40, 20),
    (6, 0, 64),
    (0, 6, 64),
    (6, 64, 0),
];

const FORMATS: [MatrixFormat; 3] = [MatrixFormat::F32, MatrixFormat::Bf16, MatrixFormat::Int8];

/// As products round their factors.
fn rounded(value: f32, compute: Compute) -> f64 {
    f64::from(match compute {
        Compute::F32 => value,
        Compute::Bf16 => half::bf16::from_f32(value).to_f32(),
    })
}

/// a·bᵀ in f64: a [m, k] and b [n, k].
fn formula((a, b): (&[f32], &[f32]), (m, n, k): (usize, usize, usize), c: Compute) -> Vec<f32> {
    let sum = |i: usize, j: usize| -> f64 {
        (0..k)
            .map(|l| rounded(a[i * k + l], c) * rounded(b[j * k + l], c))
            .sum()
    };
    (0..m * n).map(|ij| sum(ij / n, ij % n) as f32).collect()
}

/// Row-major values the other way round.
fn transposed(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let at = |i: usize| values[i % rows * columns + i / rows];
    (0..rows * columns).map(at).collect()
}

/// The product over [2.0; ..] in rows with a gap of three behind them.
fn with_gaps(operands: (Mat<'_>, Mat<'_>), output: Output, compute: Compute, isa: Isa) -> Vec<f32> {
    let (rows, columns) = (operands.0.rows(), operands.1.rows());
    let mut dst = vec![2.0; rows * (columns + 3)];
    let product = Product {
        a: operands.0,
        b: operands.1,
        compute,
        dst: dst.as_mut_ptr(),
        row_stride: columns + 3,
        output,
    };
    // SAFETY: `dst` has the rows, and is ours.
    unsafe { product.run(Threads::One, isa) };
    dst
}

/// Either way round, f32 or bf16, over or on top of what is there: the formula, and nothing beside.
#[test]
fn products_match_their_formula() {
    let mut rng = Rng::new(1);
    for (m, n, k) in SIZES {
        let (a, b) = (rng.values(m * k), rng.values(n * k));
        let (a_t, b_t) = (transposed(&a, m, k), transposed(&b, n, k));
        for compute in [Compute::F32, Compute::Bf16] {
            let expected = formula((&a, &b), (m, n, k), compute);
            for a in [Mat::new(&a, m, k, k), Mat::new(&a_t, k, m, m).t()] {
                for b in [Mat::new(&b, n, k, k), Mat::new(&b_t, k, n, n).t()] {
                    for isa in Isa::all() {
                        for (output, base) in [(Output::Overwrite, 0.0), (Output::Add, 2.0)] {
                            let found = with_gaps((a, b), output, compute, isa);
                            let rows = found.chunks(n + 3).zip(expected.chunks(n.max(1)));
                            for (row, expected) in rows {
                                let moved: Vec<f32> = expected.iter().map(|x| base + x).collect();
                                assert_values_close(&row[..n], &moved, 1e-4);
                                assert_eq!(row[n..], [2.0; 3]);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// A weight stored in any format counts as its values in f32, either way round.
#[test]
fn stored_weights_count_as_their_values() {
    let mut rng = Rng::new(2);
    for (m, n, k) in SIZES {
        let (x, dy) = (rng.values(m * k), rng.values(m * n));
        let w = Tensor::from_vec(rng.values(n * k), (n, k), &Device::Cpu).unwrap();
        for format in FORMATS {
            let w = Matrix::new(w.clone(), format).unwrap();
            let widened = values(&w.to_f32().unwrap());
            let view = w.view("test", "w").unwrap();
            let w = Mat::dense(view.values(), n, k);
            let w_f32 = Mat::dense(Values::F32(&widened), n, k);
            for compute in [Compute::F32, Compute::Bf16] {
                for isa in Isa::all() {
                    let run = |a: Mat<'_>, b: Mat<'_>| with_gaps((a, b), Output::Add, compute, isa);
                    let (x, dy) = (Mat::new(&x, m, k, k), Mat::new(&dy, m, n, n));
                    assert_eq!(run(x, w), run(x, w_f32), "{m} {n} {k} {format:?}");
                    assert_eq!(run(dy, w.t()), run(dy, w_f32.t()), "{m} {n} {k} {format:?}");
                }
            }
        }
    }
}

/// What is not a number reaches the output, and only the rows and columns it belongs to.
#[test]
fn nan_stays_in_its_row() {
    let mut rng = Rng::new(3);
    let (mut a, b) = (rng.values(30 * 40), rng.values(50 * 40));
    a[7 * 40 + 3] = f32::NAN;
    for compute in [Compute::F32, Compute::Bf16] {
        for isa in Isa::all() {
            let operands = (Mat::new(&a, 30, 40, 40), Mat::new(&b, 50, 40, 40));
            let found = with_gaps(operands, Output::Overwrite, compute, isa);
            for (i, row) in found.chunks(53).enumerate() {
                assert!(row[..50].iter().all(|x| x.is_nan() == (i == 7)), "row {i}");
            }
        }
    }
}

/// The number of threads changes no bit.
#[test]
fn same_bits_on_any_number_of_threads() {
    let mut rng = Rng::new(4);
    let (m, n, k) = (600, 700, 300);
    let (a, b) = (rng.values(m * k), rng.values(n * k));
    let run = |num_threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(num_threads);
        let mut dst = vec![0.0; m * n];
        pool.build().unwrap().install(|| {
            let operands = (Mat::new(&a, m, k, k), Mat::new(&b, n, k, k));
            let out = MatMut::new(&mut dst, m, n, n);
            let threads = Threads::Pool;
            matmul(out, Output::Overwrite, operands, Compute::Bf16, threads);
        });
        dst
    };
    let one = run(1);
    assert!(run(2) == one && run(7) == one);
}

/// The tasks of any number of threads cover the output once.
#[test]
fn tasks_tile_the_output() {
    let mut rng = Rng::new(5);
    for _ in 0..200 {
        let (m, n, k) = (1 + rng.below(600), 1 + rng.below(900), 1 + rng.below(900));
        let mut covered = vec![0; m * n];
        for task in tasks((m, n, k), 1 + rng.below(64)) {
            for row in task.rows {
                for column in task.columns.clone() {
                    covered[row * n + column] += 1;
                }
            }
        }
        assert!(covered.iter().all(|times| *times == 1), "{m} x {n} x {k}");
    }
}
