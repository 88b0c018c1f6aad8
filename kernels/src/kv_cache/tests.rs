use candle_core::Device;

use super::{KvCache, KvShape};
use crate::testing::{Rng, values};

const SHAPE: KvShape = KvShape {
    num_layers: 2,
    num_blocks: 3,
    block_size: 2,
    num_kv_heads: 2,
    head_dim: 4,
};

/// Tokens land in their slots, in one layer, and nothing else changes.
#[test]
fn writes_go_to_their_slots() {
    let mut rng = Rng::new(1);
    let mut cache = KvCache::new(SHAPE, &Device::Cpu).unwrap();
    let (k, v) = (rng.tensor(&[2, 2, 4]), rng.tensor(&[2, 2, 4]));
    cache.layer_mut(1).write(&k, &v, &[5, 0]).unwrap();
    let zeros = [0.0; 32];
    let expected = |x: &[f32]| [&x[8..], &zeros, &x[..8]].concat();
    let (found_k, found_v) = cache.layer(1).cpu();
    assert_eq!(found_k, expected(&values(&k)));
    assert_eq!(found_v, expected(&values(&v)));
    assert!(cache.layer(0).cpu().0.iter().all(|x| *x == 0.0));
    assert_eq!(SHAPE.num_bytes(), Some(2 * 2 * 6 * 8 * 4));
}

/// A slot that does not exist, or heads that do not fit, are errors, and nothing is written.
#[test]
fn wrong_slots_and_heads_are_errors() {
    let mut rng = Rng::new(2);
    let mut cache = KvCache::new(SHAPE, &Device::Cpu).unwrap();
    let k = rng.tensor(&[2, 2, 4]);
    let error = cache
        .layer_mut(0)
        .write(&k, &k, &[0, 6])
        .unwrap_err()
        .to_string();
    assert_eq!(error, "KvLayer::write: slots is 6, expected below 6");
    let three = rng.tensor(&[2, 3, 4]);
    let error = cache
        .layer_mut(0)
        .write(&three, &three, &[0, 1])
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "KvLayer::write: k has shape [2, 3, 4], expected [2, 2, 4]"
    );
    assert!(cache.layer(0).cpu().0.iter().all(|x| *x == 0.0));
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
