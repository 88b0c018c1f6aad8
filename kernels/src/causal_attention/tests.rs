use candle_core::{D, DType, Device, Tensor};

use super::{AttentionSaved, causal_attention, causal_attention_backward};
use crate::segments::Segments;
use crate::testing::{
    Rng, assert_close, assert_finite_differences, assert_same_on_one_and_two_threads, autograd,
    values,
};

struct Case {
    lengths: &'static [usize],
    /// (query heads, key/value heads, head dim)
    heads: (usize, usize, usize),
}

/// Lengths around the block of 64 query rows, an empty segment at each place, grouped heads.
const CASES: [Case; 7] = [
    Case {
        lengths: &[1],
        heads: (1, 1, 1),
    },
    Case {
        lengths: &[5, 0, 1, 3],
        heads: (4, 2, 8),
    },
    Case {
        lengths: &[63],
        heads: (2, 1, 16),
    },
    Case {
        lengths: &[64, 2],
        heads: (3, 3, 5),
    },
    Case {
        lengths: &[65, 0],
        heads: (4, 1, 32),
    },
    Case {
        lengths: &[0, 130, 17],
        heads: (6, 2, 32),
    },
    Case {
        lengths: &[],
        heads: (2, 1, 4),
    },
];

struct Tensors {
    q: Tensor,
    k: Tensor,
    v: Tensor,
    dout: Tensor,
    segments: Segments,
}

impl Case {
    fn tensors(&self, seed: u64) -> Tensors {
        let mut rng = Rng::new(seed);
        let (h, g, d) = self.heads;
        let segments = Segments::from_lengths(self.lengths);
        let t = segments.num_tokens();
        Tensors {
            q: rng.tensor(&[t, h, d]),
            k: rng.tensor(&[t, g, d]),
            v: rng.tensor(&[t, g, d]),
            dout: rng.tensor(&[t, h, d]),
            segments,
        }
    }
}

impl Tensors {
    fn forward(&self) -> Tensor {
        causal_attention(&self.q, &self.k, &self.v, &self.segments)
            .unwrap()
            .0
    }

    fn backward(&self) -> [Tensor; 3] {
        let Self {
            q,
            k,
            v,
            dout,
            segments,
        } = self;
        let (out, log_sum_exp) = causal_attention(q, k, v, segments).unwrap();
        let saved = AttentionSaved {
            q,
            k,
            v,
            out: &out,
            log_sum_exp: &log_sum_exp,
            segments,
        };
        causal_attention_backward(&saved, dout).unwrap().into()
    }
}

/// Attention by stock operations in f64, one segment after another: scores with a mask, softmax,
/// heads repeated.
fn stock(qkv: &[Tensor], segments: &Segments) -> candle_core::Result<Tensor> {
    let to_heads = |x: &Tensor, group: usize| {
        let (l, heads, d) = x.dims3()?;
        let x = x.to_dtype(DType::F64)?.transpose(0, 1)?.unsqueeze(1)?;
        x.expand((heads, group, l, d))?
            .reshape((heads * group, l, d))
    };
    let group = qkv[0].dim(1)? / qkv[1].dim(1)?;
    let mut outs = Vec::new();
    for rows in segments.ranges().filter(|rows| !rows.is_empty()) {
        let l = rows.len();
        let part = |x: &Tensor| x.narrow(0, rows.start, l)?.contiguous();
        let q = to_heads(&part(&qkv[0])?, 1)?;
        let k = to_heads(&part(&qkv[1])?, group)?;
        let v = to_heads(&part(&qkv[2])?, group)?;
        let scale = 1.0 / (q.dim(2)? as f64).sqrt();
        let scores = (q.matmul(&k.transpose(1, 2)?.contiguous()?)? * scale)?;
        let mask: Vec<f64> = (0..l * l)
            .map(|i| {
                if i % l > i / l {
                    f64::NEG_INFINITY
                } else {
                    0.0
                }
            })
            .collect();
        let mask = Tensor::from_vec(mask, (1, l, l), &Device::Cpu)?;
        let p = candle_nn::ops::softmax(&scores.broadcast_add(&mask)?, D::Minus1)?;
        outs.push(p.matmul(&v.contiguous()?)?.transpose(0, 1)?.contiguous()?);
    }
    if outs.is_empty() {
        return qkv[0].to_dtype(DType::F64);
    }
    Tensor::cat(&outs, 0)
}

/// The output is that of the stock operations in f64, in every case.
#[test]
fn forward_matches_stock_operations() {
    for (i, case) in CASES.iter().enumerate() {
        let t = case.tensors(i as u64);
        let qkv = [t.q.clone(), t.k.clone(), t.v.clone()];
        let expected = stock(&qkv, &t.segments)
            .unwrap()
            .to_dtype(DType::F32)
            .unwrap();
        assert_close(&t.forward(), &expected, 2e-6);
    }
}

/// The gradients are those of candle's autograd through the stock operations in f64.
#[test]
fn gradients_match_autograd() {
    for (i, case) in CASES
        .iter()
        .enumerate()
        .filter(|(_, case)| !case.lengths.is_empty())
    {
        let t = case.tensors(100 + i as u64);
        let dout = t.dout.to_dtype(DType::F64).unwrap();
        let expected = autograd(&[&t.q, &t.k, &t.v], &dout, |qkv| stock(qkv, &t.segments));
        for (found, expected) in t.backward().iter().zip(&expected) {
            assert_close(found, expected, 1e-5);
        }
    }
}

/// The gradients are the slopes of our own forward pass.
#[test]
fn gradients_match_finite_differences() {
    let t = Case {
        lengths: &[3, 2],
        heads: (2, 1, 4),
    }
    .tensors(7);
    let Tensors {
        q,
        k,
        v,
        dout,
        segments,
    } = &t;
    let [dq, dk, dv] = t.backward();
    let out = |q: &Tensor, k: &Tensor, v: &Tensor| causal_attention(q, k, v, segments).unwrap().0;
    assert_finite_differences(&dq, q, dout, |q| out(q, k, v));
    assert_finite_differences(&dk, k, dout, |k| out(q, k, v));
    assert_finite_differences(&dv, v, dout, |v| out(q, k, v));
}

/// Examples packed into one batch give the bits that each gives alone, forward and backward.
#[test]
fn packed_equals_unpacked() {
    let packed = Case {
        lengths: &[70, 1, 129],
        heads: (4, 2, 32),
    }
    .tensors(8);
    let rows_of = |x: &Tensor, rows: &std::ops::Range<usize>| {
        x.narrow(0, rows.start, rows.len())
            .unwrap()
            .contiguous()
            .unwrap()
    };
    let (out, gradients) = (packed.forward(), packed.backward());
    for rows in packed.segments.ranges() {
        let alone = Tensors {
            q: rows_of(&packed.q, &rows),
            k: rows_of(&packed.k, &rows),
            v: rows_of(&packed.v, &rows),
            dout: rows_of(&packed.dout, &rows),
            segments: Segments::from_lengths(&[rows.len()]),
        };
        assert_eq!(values(&alone.forward()), values(&rows_of(&out, &rows)));
        for (alone, packed) in alone.backward().iter().zip(&gradients) {
            assert_eq!(values(alone), values(&rows_of(packed, &rows)));
        }
    }
}

/// The number of threads changes no bit.
#[test]
fn same_bits_on_one_and_two_threads() {
    let t = Case {
        lengths: &[130, 60, 5],
        heads: (6, 2, 32),
    }
    .tensors(9);
    assert_same_on_one_and_two_threads(|| {
        let mut outputs = vec![values(&t.forward())];
        outputs.extend(t.backward().iter().map(values));
        outputs
    });
}

/// Scores of hundreds do not overflow.
#[test]
fn large_scores_stay_finite() {
    let mut t = Case {
        lengths: &[20],
        heads: (2, 1, 8),
    }
    .tensors(10);
    t.q = (t.q * 300.0).unwrap();
    assert!(values(&t.forward()).iter().all(|x| x.is_finite()));
    assert!(t.backward().iter().flat_map(values).all(f32::is_finite));
}

/// What does not fit together is an error that says what.
#[test]
fn misfits_are_errors() {
    let t = Case {
        lengths: &[3],
        heads: (4, 2, 8),
    }
    .tensors(11);
    let error = causal_attention(&t.q, &t.k, &t.v, &Segments::from_lengths(&[4])).unwrap_err();
    let expected =
        "causal_attention: q has shape [3, 4, 8], expected [4, H, D], as the segments say";
    assert_eq!(error.to_string(), expected);
    let three_heads = Rng::new(1).tensor(&[3, 3, 8]);
    let error = causal_attention(&three_heads, &t.k, &t.v, &t.segments)
        .unwrap_err()
        .to_string();
    assert!(error.contains("3 heads, 2 key/value heads"), "{error}");
}
