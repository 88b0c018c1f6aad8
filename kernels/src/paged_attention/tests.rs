use candle_core::{Device, Tensor};

use super::{PagedBatch, PagedSequence, paged_attention};
use crate::causal_attention;
use crate::kv_cache::{KvCache, KvShape};
use crate::segments::Segments;
use crate::testing::{Rng, assert_close, assert_same_on_one_and_two_threads, values};

/// One whole sequence, position by position.
struct Whole {
    q: Tensor,
    k: Tensor,
    v: Tensor,
    len: usize,
}

impl Whole {
    fn new(rng: &mut Rng, len: usize, (h, g, d): (usize, usize, usize)) -> Self {
        let q = rng.tensor(&[len, h, d]);
        Self {
            q,
            k: rng.tensor(&[len, g, d]),
            v: rng.tensor(&[len, g, d]),
            len,
        }
    }

    /// The dense answer, by the kernel that training uses.
    fn dense(&self) -> Tensor {
        let segments = Segments::from_lengths(&[self.len]);
        causal_attention(&self.q, &self.k, &self.v, &segments)
            .unwrap()
            .0
    }

    /// Its last `query_len` rows up to `context_len`, as a call's sequence over `block_table`.
    fn part(&self, query_len: usize, context_len: usize, table: &[u32]) -> (Tensor, PagedSequence) {
        let q = self
            .q
            .narrow(0, context_len - query_len, query_len)
            .unwrap();
        let block_table = table.to_vec();
        (
            q,
            PagedSequence {
                query_len,
                context_len,
                block_table,
            },
        )
    }
}

/// A cache of 64 blocks that hands its blocks out in a scrambled order.
struct Paged {
    cache: KvCache,
    free: Vec<u32>,
}

impl Paged {
    fn new(rng: &mut Rng, block_size: usize, (_, g, d): (usize, usize, usize)) -> Self {
        let shape = KvShape {
            num_layers: 1,
            num_blocks: 64,
            block_size,
            num_kv_heads: g,
            head_dim: d,
        };
        let mut free: Vec<u32> = (0..64).collect();
        for i in (1..free.len()).rev() {
            free.swap(i, rng.below(i + 1));
        }
        Self {
            cache: KvCache::new(shape, &Device::Cpu).unwrap(),
            free,
        }
    }

    /// Stores a sequence's keys and values; returns its block table.
    fn store(&mut self, whole: &Whole) -> Vec<u32> {
        let block_size = self.cache.shape().block_size;
        let table = self
            .free
            .split_off(self.free.len() - whole.len.div_ceil(block_size));
        let slot = |i: usize| table[i / block_size] * block_size as u32 + (i % block_size) as u32;
        let slots: Vec<u32> = (0..whole.len).map(slot).collect();
        self.cache
            .layer_mut(0)
            .write(&whole.k, &whole.v, &slots)
            .unwrap();
        table
    }

    fn attend(&self, parts: &[(Tensor, PagedSequence)]) -> Tensor {
        let qs: Vec<&Tensor> = parts.iter().map(|part| &part.0).collect();
        let sequences = parts.iter().map(|part| part.1.clone()).collect();
        let q = Tensor::cat(&qs, 0).unwrap();
        paged_attention(&q, self.cache.layer(0), &PagedBatch { sequences }).unwrap()
    }
}

const HEADS: [(usize, usize, usize); 5] =
    [(1, 1, 1), (4, 2, 8), (6, 2, 32), (3, 3, 17), (8, 2, 64)];

/// Paged gives what dense attention gives, at lengths around the block and with scattered blocks.
#[test]
fn paged_equals_dense() {
    let mut rng = Rng::new(1);
    for heads in HEADS {
        for len in [1, 15, 16, 17, 32, 70] {
            let whole = Whole::new(&mut rng, len, heads);
            let mut paged = Paged::new(&mut rng, 16, heads);
            let table = paged.store(&whole);
            let out = paged.attend(&[whole.part(len, len, &table)]);
            assert_close(&out, &whole.dense(), 2e-6);
        }
    }
}

/// Chunks, single steps and any batch around them give the same bits as one call for the whole
/// sequence, whatever the block size.
#[test]
fn same_bits_however_it_is_cut() {
    let mut rng = Rng::new(2);
    for heads in HEADS {
        let (one, other) = (
            Whole::new(&mut rng, 37, heads),
            Whole::new(&mut rng, 50, heads),
        );
        let mut answers = Vec::new();
        for block_size in [1, 7, 16, 64] {
            let mut paged = Paged::new(&mut rng, block_size, heads);
            if block_size == 1 {
                paged.free.truncate(37); // the other one does not fit
            }
            let table = paged.store(&one);
            let whole = values(&paged.attend(&[one.part(37, 37, &table)]));
            let chunks = [(20, 20), (16, 36), (1, 37)];
            let mut rows = Vec::new();
            for (query_len, context_len) in chunks {
                rows.extend(values(&paged.attend(&[one.part(
                    query_len,
                    context_len,
                    &table,
                )])));
            }
            assert_eq!(rows, whole);
            if block_size > 1 {
                let others = paged.store(&other);
                let (h, _, d) = heads;
                let mixed = paged.attend(&[
                    other.part(3, 50, &others),
                    one.part(5, 37, &table),
                    other.part(1, 9, &others),
                ]);
                let rows = values(&mixed.narrow(0, 3, 5).unwrap());
                assert_eq!(rows, whole[32 * h * d..]);
            }
            answers.push(whole);
        }
        assert!(answers.windows(2).all(|pair| pair[0] == pair[1]));
    }
}

/// The number of threads changes no bit, in a call large enough to be shared.
#[test]
fn same_bits_on_one_and_two_threads() {
    let mut rng = Rng::new(3);
    let heads = (6, 2, 32);
    let whole = Whole::new(&mut rng, 200, heads);
    let mut paged = Paged::new(&mut rng, 16, heads);
    let table = paged.store(&whole);
    let parts = [whole.part(100, 200, &table), whole.part(1, 50, &table)];
    assert_same_on_one_and_two_threads(|| vec![values(&paged.attend(&parts))]);
}

/// A sequence without new tokens and a call without sequences are allowed.
#[test]
fn nothing_to_do() {
    let mut rng = Rng::new(4);
    let heads = (2, 1, 4);
    let whole = Whole::new(&mut rng, 3, heads);
    let mut paged = Paged::new(&mut rng, 2, heads);
    let table = paged.store(&whole);
    let out = paged.attend(&[whole.part(0, 3, &table), whole.part(1, 3, &table)]);
    assert_eq!(out.dims(), [1, 2, 4]);
    let q = whole.q.narrow(0, 0, 0).unwrap();
    let out = paged_attention(&q, paged.cache.layer(0), &PagedBatch::default()).unwrap();
    assert_eq!(out.dims(), [0, 2, 4]);
}

/// What does not fit together is an error that says what; nothing is read out of bounds.
#[test]
fn misfits_are_errors() {
    let mut rng = Rng::new(5);
    let heads = (2, 1, 4);
    let whole = Whole::new(&mut rng, 3, heads);
    let mut paged = Paged::new(&mut rng, 2, heads);
    paged.store(&whole);
    let attend = |query_len, context_len, block_table: &[u32]| {
        let block_table = block_table.to_vec();
        let batch = PagedBatch {
            sequences: vec![PagedSequence {
                query_len,
                context_len,
                block_table,
            }],
        };
        paged_attention(&whole.q, paged.cache.layer(0), &batch)
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        attend(3, 3, &[0]),
        "paged_attention: length of block_table is 1, expected at least 2 for 3 tokens"
    );
    assert_eq!(
        attend(3, 3, &[0, 64]),
        "paged_attention: block_table is 64, expected below 64"
    );
    assert_eq!(
        attend(3, 2, &[0, 1]),
        "paged_attention: query_len is 3, expected at most context_len 2"
    );
    assert_eq!(
        attend(2, 3, &[0, 1]),
        "paged_attention: q has shape [3, 2, 4], expected [2, H, D], as the query lengths say"
    );
}
