use candle_core::{Device, Tensor};

use super::{AttentionPlan, PagedBatch, PagedSequence, QueryRows, attend, paged_attention};
use crate::causal_attention;
use crate::crew::Crew;
use crate::kv_cache::{KvCache, KvFormat, KvRows, KvShape};
use crate::segments::Segments;
use crate::step::Isa;
use crate::testing::{Rng, assert_close, values};

/// How much of a bf16 result may differ from f32's: half a unit in the eighth bit of keys, values and
/// queries, a little summed.
const BF16_TOLERANCE: f32 = 2e-2;

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
    num_heads: usize,
}

impl Paged {
    fn new(
        rng: &mut Rng,
        block_size: usize,
        format: KvFormat,
        heads: (usize, usize, usize),
    ) -> Self {
        let (num_heads, num_kv_heads, head_dim) = heads;
        let shape = KvShape {
            num_layers: 1,
            num_blocks: 64,
            block_size,
            num_kv_heads,
            head_dim,
            format,
        };
        let mut free: Vec<u32> = (0..64).collect();
        for i in (1..free.len()).rev() {
            free.swap(i, rng.below(i + 1));
        }
        Self {
            cache: KvCache::new(shape, &Device::Cpu).unwrap(),
            free,
            num_heads,
        }
    }

    /// Stores a sequence's keys and values; returns its block table.
    fn store(&mut self, whole: &Whole) -> Vec<u32> {
        let KvShape {
            block_size,
            num_kv_heads,
            head_dim,
            ..
        } = self.cache.shape();
        let table = self
            .free
            .split_off(self.free.len() - whole.len.div_ceil(block_size));
        let slot = |i: usize| table[i / block_size] * block_size as u32 + (i % block_size) as u32;
        let slots: Vec<u32> = (0..whole.len).map(slot).collect();
        let rows = Tensor::cat(&[&whole.k, &whole.v], 1).unwrap();
        let width = num_kv_heads * head_dim;
        let rows = KvRows {
            values: &values(&rows),
            row_len: 2 * width,
            k: 0,
            v: width,
        };
        let layer = self.cache.layer_mut(0);
        layer.write(&rows, &slots, &Crew::new(2).unwrap()).unwrap();
        table
    }

    /// On an instruction set, with some threads.
    fn attend_on(&self, parts: &[(Tensor, PagedSequence)], isa: Isa, crew: &Crew) -> Tensor {
        let qs: Vec<&Tensor> = parts.iter().map(|part| &part.0).collect();
        let sequences = parts.iter().map(|part| part.1.clone()).collect();
        let q = Tensor::cat(&qs, 0).unwrap();
        let batch = PagedBatch { sequences };
        let plan = AttentionPlan::new(&batch, self.cache.shape(), self.num_heads).unwrap();
        let q_values = values(&q);
        let rows = QueryRows {
            values: &q_values,
            row_len: self.num_heads * self.cache.shape().head_dim,
        };
        let mut out = vec![f32::NAN; q_values.len()];
        attend(&rows, &mut out, (self.cache.layer(0), &plan), (crew, isa)).unwrap();
        Tensor::from_vec(out, q.dims(), &Device::Cpu).unwrap()
    }

    fn attend(&self, parts: &[(Tensor, PagedSequence)]) -> Tensor {
        self.attend_on(parts, Isa::detect(), &Crew::alone())
    }
}

const FORMATS: [KvFormat; 2] = [KvFormat::F32, KvFormat::Bf16];
const HEADS: [(usize, usize, usize); 7] = [
    (1, 1, 1),
    (4, 2, 8),
    (6, 2, 32),
    (3, 3, 17),
    (8, 2, 64),
    (5, 1, 128),
    (26, 2, 40),
];

/// Paged gives what dense attention gives, on every instruction set, at lengths around the block and
/// with scattered blocks.
#[test]
fn paged_equals_dense() {
    let mut rng = Rng::new(1);
    for (format, tolerance) in [(KvFormat::F32, 2e-6), (KvFormat::Bf16, BF16_TOLERANCE)] {
        for heads in HEADS {
            for len in [1, 15, 16, 17, 32, 70] {
                let whole = Whole::new(&mut rng, len, heads);
                let mut paged = Paged::new(&mut rng, 16, format, heads);
                let table = paged.store(&whole);
                for isa in Isa::all() {
                    let parts = [whole.part(len, len, &table)];
                    let out = paged.attend_on(&parts, isa, &Crew::alone());
                    assert_close(&out, &whole.dense(), tolerance);
                }
            }
        }
    }
}

/// Chunks, single steps and any batch around them give the same bits as one call for the whole
/// sequence, whatever the block size.
#[test]
fn same_bits_however_it_is_cut() {
    let mut rng = Rng::new(2);
    for (format, heads) in FORMATS.iter().flat_map(|f| HEADS.map(|heads| (*f, heads))) {
        let (one, other) = (
            Whole::new(&mut rng, 37, heads),
            Whole::new(&mut rng, 50, heads),
        );
        for isa in Isa::all() {
            let mut answers = Vec::new();
            let crew = Crew::alone();
            for block_size in [1, 7, 16, 24, 64] {
                let mut paged = Paged::new(&mut rng, block_size, format, heads);
                if block_size == 1 {
                    paged.free.truncate(37); // the other one does not fit
                }
                let table = paged.store(&one);
                let attend = |parts: &[_]| paged.attend_on(parts, isa, &crew);
                let whole = values(&attend(&[one.part(37, 37, &table)]));
                let mut rows = Vec::new();
                for (query_len, context_len) in [(20, 20), (16, 36), (1, 37)] {
                    rows.extend(values(&attend(&[one.part(query_len, context_len, &table)])));
                }
                assert_eq!(rows, whole);
                if block_size > 1 {
                    let others = paged.store(&other);
                    let (h, _, d) = heads;
                    let parts = [
                        other.part(3, 50, &others),
                        one.part(5, 37, &table),
                        other.part(1, 9, &others),
                    ];
                    let mixed = paged.attend_on(&parts, isa, &crew);
                    let rows = values(&mixed.narrow(0, 3, 5).unwrap());
                    assert_eq!(rows, whole[32 * h * d..]);
                }
                answers.push(whole);
            }
            assert!(answers.windows(2).all(|pair| pair[0] == pair[1]));
        }
    }
}

/// The number of threads changes no bit, in a call large enough to be shared.
#[test]
fn same_bits_on_any_number_of_threads() {
    let mut rng = Rng::new(3);
    let heads = (6, 2, 32);
    let whole = Whole::new(&mut rng, 200, heads);
    let mut paged = Paged::new(&mut rng, 16, KvFormat::Bf16, heads);
    let table = paged.store(&whole);
    let parts = [whole.part(100, 200, &table), whole.part(1, 50, &table)];
    let alone = values(&paged.attend(&parts));
    let together = paged.attend_on(&parts, Isa::detect(), &Crew::new(3).unwrap());
    assert_eq!(values(&together), alone);
}

/// What lies in slots that a row does not see, be it not a number, does not reach it.
#[test]
fn unseen_slots_do_not_matter() {
    let mut rng = Rng::new(6);
    let heads = (4, 2, 16);
    let whole = Whole::new(&mut rng, 40, heads);
    let poison = Whole {
        k: (&whole.k * f64::NAN).unwrap(),
        v: (&whole.v * f64::NAN).unwrap(),
        ..Whole::new(&mut rng, 40, heads)
    };
    for format in FORMATS {
        let mut paged = Paged::new(&mut rng, 16, format, heads);
        let free = paged.free.clone();
        let table = paged.store(&whole);
        let expected = values(&paged.attend(&[whole.part(20, 20, &table)]));
        paged.free.clone_from(&free);
        paged.store(&poison);
        paged.free = free;
        let first = Whole {
            q: whole.q.clone(),
            k: whole.k.narrow(0, 0, 20).unwrap(),
            v: whole.v.narrow(0, 0, 20).unwrap(),
            len: 20,
        };
        // The same last blocks of the list, so the third of them keeps its poison.
        let table = paged.store(&first);
        assert_eq!(
            values(&paged.attend(&[whole.part(20, 20, &table)])),
            expected
        );
    }
}

/// A sequence without new tokens and a call without sequences are allowed.
#[test]
fn nothing_to_do() {
    let mut rng = Rng::new(4);
    let heads = (2, 1, 4);
    let whole = Whole::new(&mut rng, 3, heads);
    let mut paged = Paged::new(&mut rng, 2, KvFormat::F32, heads);
    let table = paged.store(&whole);
    let out = paged.attend(&[whole.part(0, 3, &table), whole.part(1, 3, &table)]);
    assert_eq!(out.dims(), [1, 2, 4]);
    let plan = AttentionPlan::new(&PagedBatch::default(), paged.cache.shape(), 2).unwrap();
    let none = QueryRows {
        values: &[],
        row_len: 8,
    };
    let call = (paged.cache.layer(0), &plan);
    paged_attention(&none, &mut [], call, &Crew::alone()).unwrap();
}

/// What does not fit together is an error that says what; nothing is read out of bounds.
#[test]
fn misfits_are_errors() {
    let mut rng = Rng::new(5);
    let heads = (2, 1, 4);
    let whole = Whole::new(&mut rng, 3, heads);
    let mut paged = Paged::new(&mut rng, 2, KvFormat::F32, heads);
    paged.store(&whole);
    let shape = paged.cache.shape();
    let plan = |query_len, context_len, block_table: &[u32]| {
        let block_table = block_table.to_vec();
        let batch = PagedBatch {
            sequences: vec![PagedSequence {
                query_len,
                context_len,
                block_table,
            }],
        };
        AttentionPlan::new(&batch, shape, 2)
    };
    let error = |found: crate::Result<AttentionPlan>| found.unwrap_err().to_string();
    assert_eq!(
        error(plan(3, 3, &[0])),
        "paged_attention: length of block_table is 1, expected at least 2 for 3 tokens"
    );
    assert_eq!(
        error(plan(3, 3, &[0, 64])),
        "paged_attention: block_table is 64, expected below 64"
    );
    assert_eq!(
        error(plan(3, 2, &[0, 1])),
        "paged_attention: query_len is 3, expected at most context_len 2"
    );
    let plan = plan(2, 3, &[0, 1]).unwrap();
    let q = values(&whole.q);
    let rows = QueryRows {
        values: &q,
        row_len: 8,
    };
    let call = (paged.cache.layer(0), &plan);
    let error = paged_attention(&rows, &mut [0.0; 16], call, &Crew::alone());
    assert_eq!(
        error.unwrap_err().to_string(),
        "paged_attention: q has shape [24], expected [16]"
    );
}
