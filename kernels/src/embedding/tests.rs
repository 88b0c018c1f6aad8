use super::{embedding, embedding_grad_accumulate, gather_rows};
use crate::matrix::{Matrix, MatrixFormat};
use crate::testing::{Rng, assert_same_on_one_and_two_threads, values};

/// Each id gives its row.
#[test]
fn rows_of_the_table() {
    let mut rng = Rng::new(1);
    let table = rng.tensor(&[5, 3]);
    for format in [MatrixFormat::F32, MatrixFormat::Bf16, MatrixFormat::Int8] {
        let table = Matrix::new(table.clone(), format).unwrap();
        let x = embedding(&[4, 0, 4], &table).unwrap();
        let rows = table.to_f32().unwrap();
        assert_eq!(values(&x), values(&gather_rows(&[4, 0, 4], &rows).unwrap()));
        assert_eq!(embedding(&[], &table).unwrap().dims(), [0, 3]);
    }
    let rows = values(&table);
    assert_eq!(
        values(&gather_rows(&[4, 0, 4], &table).unwrap()),
        [&rows[12..15], &rows[..3], &rows[12..15]].concat()
    );
}

/// The gradient adds to the rows that were read, repeated ids repeatedly, and to nothing else.
#[test]
fn gradient_scatters_and_adds() {
    let mut rng = Rng::new(2);
    let dx = rng.tensor(&[3, 2]);
    let d = values(&dx);
    let mut sum = vec![1.0; 8];
    embedding_grad_accumulate(&[3, 0, 3], &dx, &mut sum).unwrap();
    let row3 = [1.0 + d[0] + d[4], 1.0 + d[1] + d[5]];
    assert_eq!(
        sum,
        [1.0 + d[2], 1.0 + d[3], 1.0, 1.0, 1.0, 1.0, row3[0], row3[1]]
    );
}

/// An id beyond the vocabulary is an error, not a panic.
#[test]
fn unknown_id_is_an_error() {
    let mut rng = Rng::new(3);
    let table = rng.tensor(&[5, 3]);
    let error = gather_rows(&[5], &table).unwrap_err().to_string();
    assert_eq!(
        error,
        "gather_rows: rows is 5, expected below 5, the number of rows"
    );
    let error = embedding(&[5], &Matrix::F32(table)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "embedding: ids is 5, expected below 5, the number of rows"
    );
    let mut sum = [0.0; 4];
    let dx = rng.tensor(&[1, 2]);
    assert!(embedding_grad_accumulate(&[2], &dx, &mut sum).is_err());
}

/// The number of threads changes no bit.
#[test]
fn same_bits_on_one_and_two_threads() {
    let mut rng = Rng::new(4);
    let dx = rng.tensor(&[500, 40]);
    let ids: Vec<u32> = (0..500).map(|_| rng.below(3000) as u32 % 1200).collect();
    assert_same_on_one_and_two_threads(|| {
        let mut sum = vec![0.0; 1200 * 40];
        embedding_grad_accumulate(&ids, &dx, &mut sum).unwrap();
        vec![sum]
    });
}
