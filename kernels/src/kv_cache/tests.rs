use candle_core::Device;

use super::{KvCache, KvFormat, KvLayer, KvRows, KvShape};
use crate::crew::Crew;
use crate::testing::Rng;

const SHAPE: KvShape = KvShape {
    num_layers: 2,
    num_blocks: 3,
    block_size: 2,
    num_kv_heads: 2,
    head_dim: 4,
    format: KvFormat::F32,
};

/// Rows of k (two heads of four values), then v.
fn rows(values: &[f32]) -> KvRows<'_> {
    KvRows {
        values,
        row_len: 16,
        k: 0,
        v: 8,
    }
}

/// The key and the value of a slot, heads one after another.
fn slot(layer: &KvLayer, slot: usize) -> Vec<f32> {
    let (k, v) = layer.cpu();
    let (block, slot) = (slot / 2, slot % 2);
    let heads = || (0..2).map(|head| block * 2 + head);
    let keys = heads().flat_map(|tile| (0..4).map(move |d| k[tile * 4 + d].0[slot]));
    let values = heads().flat_map(|tile| v[tile * 2 + slot].0[..4].to_vec());
    keys.chain(values).map(f32::from_bits).collect()
}

/// Tokens land in their slots, in one layer, and nothing else changes.
#[test]
fn writes_go_to_their_slots() {
    let mut rng = Rng::new(1);
    let mut cache = KvCache::new(SHAPE, &Device::Cpu).unwrap();
    let new = rng.values(2 * 16);
    let crew = Crew::alone();
    cache
        .layer_mut(1)
        .write(&rows(&new), &[5, 0], &crew)
        .unwrap();
    assert_eq!(slot(cache.layer(1), 5), new[..16]);
    assert_eq!(slot(cache.layer(1), 0), new[16..]);
    for untouched in 1..5 {
        assert_eq!(slot(cache.layer(1), untouched), [0.0; 16]);
    }
    assert_eq!(slot(cache.layer(0), 5), [0.0; 16]);
    // Blocks of two slots: keys take a line of sixteen lanes for each of D, values one a slot.
    assert_eq!(SHAPE.num_bytes(), Some(2 * 3 * 2 * (4 + 2) * 64));
}

/// In blocks of sixteen slots nothing is lost: two values of D for each slot and head.
#[test]
fn bytes_of_a_cache() {
    let shape = KvShape {
        block_size: 32,
        head_dim: 64,
        ..SHAPE
    };
    assert_eq!(shape.num_bytes(), Some(2 * 3 * 32 * 2 * 2 * 64 * 4));
    let format = KvFormat::Bf16;
    let half = KvShape { format, ..shape };
    assert_eq!(half.num_bytes(), Some(2 * 3 * 32 * 2 * 2 * 64 * 2));
}

/// A slot that does not exist, or rows that do not fit, are errors, and nothing is written.
#[test]
fn wrong_slots_and_rows_are_errors() {
    let mut rng = Rng::new(2);
    let mut cache = KvCache::new(SHAPE, &Device::Cpu).unwrap();
    let (new, crew) = (rng.values(2 * 16), Crew::alone());
    let mut write = |rows: &KvRows<'_>, slots: &[u32]| {
        let layer = cache.layer_mut(0);
        layer.write(rows, slots, &crew).unwrap_err().to_string()
    };
    assert_eq!(
        write(&rows(&new), &[0, 6]),
        "KvLayer::write: slots is 6, expected below 6"
    );
    assert_eq!(
        write(&rows(&new), &[0]),
        "KvLayer::write: rows has shape [32], expected [16]"
    );
    let shifted = KvRows { k: 9, ..rows(&new) };
    assert_eq!(
        write(&shifted, &[0, 1]),
        "KvLayer::write: row_len is 16, expected at least 17"
    );
    assert_eq!(slot(cache.layer(0), 0), [0.0; 16]);
}

/// A cache larger than any memory is an error, not an abort.
#[test]
fn too_large_is_an_error() {
    for num_blocks in [usize::MAX, 1 << 50] {
        let error = KvCache::new(
            KvShape {
                num_blocks,
                ..SHAPE
            },
            &Device::Cpu,
        )
        .unwrap_err();
        assert!(
            error.to_string().contains("a size that fits in memory"),
            "{error}"
        );
    }
    assert!(
        KvCache::new(
            KvShape {
                block_size: 0,
                ..SHAPE
            },
            &Device::Cpu
        )
        .is_err()
    );
}
