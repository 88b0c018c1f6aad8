//! Rows and tokens by index.

#![expect(
    clippy::unwrap_used,
    reason = "a GPU that does not work fails the test"
)]

use cuda::{Device, Output};
use half::bf16;

use crate::support::{Random, SEEDS, Value, device, to_f32};

fn check_embedding<A: Value>(device: &Device, random: &mut Random) {
    let (vocabulary, width) = (random.below(1, 50), 8 * random.below(1, 40));
    let table = random.values::<A>(vocabulary * width);
    let ids: Vec<u32> = (0..random.below(1, 20))
        .map(|_| random.below(0, vocabulary) as u32)
        .collect();
    let expected: Vec<f32> = ids
        .iter()
        .flat_map(|id| to_f32(&table[*id as usize * width..][..width]))
        .collect();
    let table = device.upload(&table).unwrap();
    let on_gpu = device.upload(&ids).unwrap();
    let mut x = device.zeros::<f32>(ids.len() * width).unwrap();
    let (table_view, ids_view) = (table.as_view(), on_gpu.as_view());
    cuda::embedding(device, &table_view, &ids_view, &mut x.as_view_mut(), width).unwrap();
    assert_eq!(device.download(&x).unwrap(), expected);
}

#[test]
fn embeddings_are_rows_of_the_table() {
    let Some(device) = device() else { return };
    for seed in SEEDS {
        check_embedding::<bf16>(&device, &mut Random::new(seed));
        check_embedding::<f32>(&device, &mut Random::new(seed));
    }
}

#[test]
fn an_unknown_id_is_nan() {
    let Some(device) = device() else { return };
    let table = device.upload(&Random::new(1).bf16s(16)).unwrap();
    let ids = device.upload(&[2_u32, 1]).unwrap();
    let mut x = device.zeros::<f32>(16).unwrap();
    let (table, ids) = (table.as_view(), ids.as_view());
    cuda::embedding(&device, &table, &ids, &mut x.as_view_mut(), 8).unwrap();
    let found = device.download(&x).unwrap();
    assert!(found[..8].iter().all(|value| value.is_nan()));
    assert!(found[8..].iter().all(|value| value.is_finite()));
}

#[test]
fn gathered_rows_are_those_asked_for() {
    let Some(device) = device() else { return };
    for seed in SEEDS {
        let mut random = Random::new(seed);
        let (num_rows, width) = (random.below(1, 50), random.below(1, 40));
        let rows: Vec<u32> = (0..random.below(1, 20))
            .map(|_| random.below(0, num_rows) as u32)
            .collect();
        let x = random.floats(num_rows * 4 * width);
        assert_gathered(&device, &x, &rows, 4 * width);
        let x = random.bf16s(num_rows * 8 * width);
        assert_gathered(&device, &x, &rows, 8 * width);
    }
}

fn assert_gathered<T: Output + PartialEq>(device: &Device, x: &[T], rows: &[u32], width: usize) {
    let expected = rows
        .iter()
        .flat_map(|row| &x[*row as usize * width..][..width]);
    let expected: Vec<T> = expected.copied().collect();
    assert_eq!(gathered(device, x, rows, width), expected);
}

fn gathered<T: Output>(device: &Device, x: &[T], rows: &[u32], width: usize) -> Vec<T> {
    let (x, on_gpu) = (
        device.upload(x).expect("the GPU works"),
        device.upload(rows).expect("the GPU works"),
    );
    let mut y = device
        .zeros::<T>(rows.len() * width)
        .expect("the GPU works");
    let (x, on_gpu) = (x.as_view(), on_gpu.as_view());
    cuda::gather_rows(device, &x, &on_gpu, &mut y.as_view_mut(), width).expect("the GPU works");
    device.download(&y).expect("the GPU works")
}

#[test]
fn rows_that_are_not_there_are_nan() {
    let Some(device) = device() else { return };
    let floats = gathered(&device, &[1.0_f32; 16], &[1, 2, u32::MAX], 8);
    assert!(floats[..8].iter().all(|value| value.is_finite()));
    assert!(floats[8..].iter().all(|value| value.is_nan()));
    let bf16s = gathered(&device, &[bf16::ONE; 16], &[1, 2, u32::MAX], 8);
    assert!(bf16s[..8].iter().all(|value| value.is_finite()));
    assert!(bf16s[8..].iter().all(|value| value.is_nan()));
}

#[test]
fn tokens_are_carried_and_padding_is_not() {
    let Some(device) = device() else { return };
    let sampled = device.upload(&[70_u32, 71, 72]).unwrap();
    let pairs = device
        .upload(&[3_u32, 0, u32::MAX, 0, 1, 2, 0, u32::MAX])
        .unwrap();
    let mut token_ids = device.upload(&[10_u32, 11, 12, 13]).unwrap();
    let (sampled, pairs) = (sampled.as_view(), pairs.as_view());
    cuda::carry_tokens(&device, &sampled, &pairs, &mut token_ids.as_view_mut()).unwrap();
    assert_eq!(device.download(&token_ids).unwrap(), [10, 72, 12, 70]);
}

#[test]
fn a_wrong_length_is_an_error() {
    let Some(device) = device() else { return };
    let (x, rows) = (
        device.zeros::<f32>(12).unwrap(),
        device.zeros::<u32>(2).unwrap(),
    );
    let mut y = device.zeros::<f32>(4).unwrap();
    let (x, rows) = (x.as_view(), rows.as_view());
    let error = cuda::gather_rows(&device, &x, &rows, &mut y.as_view_mut(), 4).unwrap_err();
    assert_eq!(
        error.to_string(),
        "gather_rows: y: expected 8 values, found 4"
    );
    let odd = device.zeros::<u32>(3).unwrap();
    let mut ids = device.zeros::<u32>(2).unwrap();
    let error = cuda::carry_tokens(&device, &rows, &odd.as_view(), &mut ids.as_view_mut());
    assert_eq!(
        error.unwrap_err().to_string(),
        "carry_tokens: pairs: expected 2 values, found 3"
    );
}
