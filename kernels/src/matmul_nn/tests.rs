use super::{RUN, is_available, parts};

use crate::matmul::{Destination, Mat, MatMut, Threads, matmul, matmul_new, transposed};
use crate::testing::{Rng, assert_values_close};

/// (rows, inner, columns) around the edges of tiles, runs and panels.
const SIZES: [(usize, usize, usize); 10] = [
    (3, 1, 16),
    (7, RUN, 64),
    (13, RUN + 1, 65),
    (12, 9, 32),
    (29, RUN + 3, 31),
    (6, 3, 33),
    (96, 40, 192),
    (101, 300, 130),
    (23, 2 * RUN + 5, 100),
    (6, 0, 64),
];

fn formula(a: Mat<'_>, b: Mat<'_>) -> Vec<f32> {
    let at =
        |m: Mat<'_>, i: usize, j: usize| f64::from(m.data[i * m.row_stride + j * m.column_stride]);
    let element = |i: usize, j: usize| (0..a.columns).map(|k| at(a, i, k) * at(b, k, j)).sum();
    let row = |i: usize| (0..b.columns).map(move |j| (i, j));
    (0..a.rows)
        .flat_map(row)
        .map(|(i, j)| element(i, j))
        .map(|x: f64| x as f32)
        .collect()
}

/// Both layouts of a, new outputs and added ones, give the formula.
#[test]
fn product_matches_its_formula() {
    let mut rng = Rng::new(1);
    for (m, k, n) in SIZES {
        let (values_a, values_b) = (rng.values(m * k), rng.values(k * n));
        let b = Mat::new(&values_b, k, n, n);
        for a in [
            Mat::new(&values_a, m, k, k),
            Mat::new(&values_a, k, m, m).t(),
        ] {
            let expected = formula(a, b);
            assert_values_close(&matmul_new(a, b, Threads::Pool), &expected, 5e-5);
            // Added to, scaled, in rows with a gap between them.
            for threads in [Threads::One, Threads::Pool] {
                let mut sum = vec![2.0; m * (n + 3)];
                let dst = MatMut::new(&mut sum, m, n, n + 3);
                matmul(dst, Destination::Add, (a, b), 0.5, threads);
                for (row, expected) in sum.chunks(n + 3).zip(expected.chunks(n)) {
                    let added: Vec<f32> = expected.iter().map(|x| 2.0 + 0.5 * x).collect();
                    assert_values_close(&row[..n], &added, 5e-5);
                    assert_eq!(row[n..], [2.0; 3]);
                }
            }
        }
    }
}

/// A transposed matrix is the matrix read the other way.
#[test]
fn transposed_matches_its_formula() {
    let mut rng = Rng::new(4);
    for (rows, columns) in [(1, 1), (3, 16), (17, 33), (40, 100), (0, 5)] {
        let w = rng.values(rows * columns);
        let t = transposed(&w, rows, columns);
        for i in 0..rows {
            for j in 0..columns {
                assert_eq!(t[j * rows + i].to_bits(), w[i * columns + j].to_bits());
            }
        }
    }
}

/// The fast path is taken for a layer's gradients, not for slivers or transposed b.
#[test]
fn slivers_are_left_to_gemm() {
    let values = [0.0; 64 * 64];
    let square = Mat::new(&values, 64, 64, 64);
    let has_avx512 = std::is_x86_feature_detected!("avx512f");
    assert_eq!(is_available(square, square), has_avx512);
    assert_eq!(is_available(square.t(), square), has_avx512);
    assert!(!is_available(square, square.t()));
    assert!(!is_available(Mat::new(&values, 2, 64, 64), square));
}

/// The parts of any number of threads cover the output once.
#[test]
fn parts_tile_the_output() {
    let mut rng = Rng::new(2);
    let values = rng.values(300 * 300);
    for _ in 0..100 {
        let (m, k, n) = (6 + rng.below(290), 1 + rng.below(290), 32 + rng.below(260));
        let a = Mat::new(&values, m, k, k);
        let b = Mat::new(&values, k, n, n);
        let mut covered = vec![0; m * n];
        for part in parts(a, b, 1 + rng.below(64)) {
            for row in part.rows {
                for column in part.columns.clone() {
                    covered[row * n + column] += 1;
                }
            }
        }
        assert!(covered.iter().all(|times| *times == 1), "{m} x {k} x {n}");
    }
}
