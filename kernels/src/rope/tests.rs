use candle_core::{Device, Tensor};

use super::{RopeTable, rope, rope_backward};
use crate::testing::{
    Rng, assert_close, assert_same_on_one_and_two_threads, assert_values_close, autograd, values,
};

fn table(head_dim: usize, max_positions: usize) -> RopeTable {
    let frequency = |i: usize| 10_000_f32.powf(-2.0 * i as f32 / head_dim as f32);
    let frequencies: Vec<f32> = (0..head_dim / 2).map(frequency).collect();
    RopeTable::new(&frequencies, max_positions)
}

/// candle's differentiable rotation, which wants [batch, heads, tokens, head dim].
fn stock(x_thd: &Tensor, first: usize, table: &RopeTable) -> candle_core::Result<Tensor> {
    let shape = (table.max_positions, table.half_dim);
    let tokens = x_thd.dim(0)?;
    let rows = |values: &[f32]| {
        Tensor::from_slice(values, shape, &Device::Cpu)?
            .narrow(0, first, tokens)?
            .contiguous()
    };
    let x = x_thd.transpose(0, 1)?.unsqueeze(0)?.contiguous()?;
    let y = candle_nn::rotary_emb::rope_slow(&x, &rows(&table.cos)?, &rows(&table.sin)?)?;
    y.squeeze(0)?.transpose(0, 1)?.contiguous()
}

/// Forward and gradient are those of candle's differentiable rotation.
#[test]
fn matches_stock_rotation_and_its_autograd() {
    let mut rng = Rng::new(1);
    for (t, h, d) in [(1, 1, 2), (5, 3, 8), (4, 2, 34), (3, 4, 64)] {
        let table = table(d, 32);
        let first = 7;
        let positions: Vec<u32> = (first as u32..).take(t).collect();
        let (x, dy) = (rng.tensor(&[t, h, d]), rng.tensor(&[t, h, d]));
        let y = rope(&x, &positions, &table).unwrap();
        assert_close(&y, &stock(&x, first, &table).unwrap(), 1e-6);
        let dx = rope_backward(&dy, &positions, &table).unwrap();
        let expected = autograd(&[&x], &dy, |v| stock(&v[0], first, &table));
        assert_close(&dx, &expected[0], 1e-6);
    }
}

/// Positions may restart and repeat, as in packed batches: each row turns by its own.
#[test]
fn positions_are_per_row() {
    let mut rng = Rng::new(2);
    let table = table(4, 8);
    let x = rng.tensor(&[3, 1, 4]);
    let y = rope(&x, &[0, 5, 0], &table).unwrap();
    assert_eq!(values(&y)[..4], values(&x)[..4]);
    assert_eq!(values(&y)[8..], values(&x)[8..]);
    let alone = rope(&x.narrow(0, 1, 1).unwrap(), &[5], &table).unwrap();
    assert_eq!(values(&y)[4..8], values(&alone));
}

/// Turning back undoes the turn.
#[test]
fn backward_is_the_inverse() {
    let mut rng = Rng::new(3);
    let table = table(16, 100);
    let x = rng.tensor(&[4, 2, 16]);
    let positions = [99, 3, 50, 0];
    let y = rope(&x, &positions, &table).unwrap();
    let back = rope_backward(&y, &positions, &table).unwrap();
    assert_values_close(&values(&back), &values(&x), 1e-6);
}

/// Positions and head dimensions that the table does not hold are errors.
#[test]
fn what_the_table_lacks_is_an_error() {
    let mut rng = Rng::new(4);
    let table = table(4, 8);
    let error = rope(&rng.tensor(&[1, 1, 4]), &[8], &table)
        .unwrap_err()
        .to_string();
    assert_eq!(error, "rope: positions is 8, expected below 8");
    let error = rope(&rng.tensor(&[1, 1, 6]), &[0], &table)
        .unwrap_err()
        .to_string();
    assert_eq!(error, "rope: head dim is 6, expected 4, as in the table");
    let error = rope(&rng.tensor(&[2, 1, 4]), &[0], &table)
        .unwrap_err()
        .to_string();
    assert_eq!(error, "rope: positions has shape [1], expected [2]");
}

/// The number of threads changes no bit.
#[test]
fn same_bits_on_one_and_two_threads() {
    let mut rng = Rng::new(5);
    let table = table(32, 1000);
    let x = rng.tensor(&[1000, 4, 32]);
    let positions: Vec<u32> = (0..1000).collect();
    assert_same_on_one_and_two_threads(|| vec![values(&rope(&x, &positions, &table).unwrap())]);
}
