//! Attention over packed documents and its gradient against f64 and the analytic gradient, itself
//! against differences.

#![expect(
    clippy::unwrap_used,
    reason = "a GPU that does not work fails the test"
)]

use cuda::{CausalSaved, Device, Documents, HEAD_DIMS, Heads};
use half::bf16;

use crate::support::{Random, SEEDS, assert_close, device, to_f32};

/// Probabilities, and the result, are each rounded to bf16: two halves of a unit in 8 bits.
const TOLERANCE: f32 = 1.0 / 128.0;
/// Of P, dS, `out` (in delta) and the gradient itself, each is rounded to bf16; the errors of many terms, of
/// random sign, are small beside the largest gradient.
const GRADIENT_TOLERANCE: f32 = 1.0 / 64.0;

struct Case {
    heads: Heads,
    lengths: Vec<usize>,
    qkv: Vec<f64>,
}

/// Of every row and head.
struct Forward {
    out: Vec<f64>,
    log_sum_exp: Vec<f64>,
}

impl Case {
    fn num_tokens(&self) -> usize {
        self.lengths.iter().sum()
    }

    fn bounds(&self) -> Vec<u32> {
        let mut bounds = vec![0];
        for length in &self.lengths {
            bounds.push(bounds[bounds.len() - 1] + *length as u32);
        }
        bounds
    }

    fn stride(&self) -> usize {
        (self.heads.num_heads + 2 * self.heads.num_groups) * self.heads.head_dim
    }

    /// Where the query, key and value of a token begin, for a query head.
    fn at(&self, token: usize, head: usize) -> [usize; 3] {
        let Heads {
            num_heads,
            num_groups,
            head_dim,
        } = self.heads;
        let group = head / (num_heads / num_groups);
        [head, num_heads + group, num_heads + num_groups + group]
            .map(|column| token * self.stride() + column * head_dim)
    }

    fn dot(a: &[f64], b: &[f64]) -> f64 {
        a.iter().zip(b).map(|(a, b)| a * b).sum()
    }

    /// The scaled scores of a token, from its document's first token on.
    fn scores(&self, start: usize, token: usize, head: usize) -> Vec<f64> {
        let dim = self.heads.head_dim;
        let query = &self.qkv[self.at(token, head)[0]..][..dim];
        let score = |key: usize| {
            let key = &self.qkv[self.at(key, head)[1]..][..dim];
            Self::dot(query, key) / (dim as f64).sqrt()
        };
        (start..=token).map(score).collect()
    }

    fn forward(&self) -> Forward {
        let Heads {
            num_heads,
            head_dim,
            ..
        } = self.heads;
        let tokens = self.num_tokens();
        let mut out = vec![0.0; tokens * num_heads * head_dim];
        let mut log_sum_exp = vec![0.0; num_heads * tokens];
        let starts = cuda::document_starts(&self.bounds());
        for token in 0..tokens {
            for head in 0..num_heads {
                let start = starts[token] as usize;
                let scores = self.scores(start, token, head);
                let sum: f64 = scores.iter().map(|score| score.exp()).sum();
                log_sum_exp[head * tokens + token] = sum.ln();
                for (i, score) in scores.iter().enumerate() {
                    let value = self.at(start + i, head)[2];
                    for d in 0..head_dim {
                        out[(token * num_heads + head) * head_dim + d] +=
                            score.exp() / sum * self.qkv[value + d];
                    }
                }
            }
        }
        Forward { out, log_sum_exp }
    }

    fn backward(&self, dout: &[f64]) -> Vec<f64> {
        let Heads {
            num_heads,
            head_dim,
            ..
        } = self.heads;
        let Forward { out, log_sum_exp } = self.forward();
        let tokens = self.num_tokens();
        let starts = cuda::document_starts(&self.bounds());
        let scale = 1.0 / (head_dim as f64).sqrt();
        let mut dqkv = vec![0.0; self.qkv.len()];
        for token in 0..tokens {
            for head in 0..num_heads {
                let start = starts[token] as usize;
                let row = (token * num_heads + head) * head_dim
                    ..(token * num_heads + head + 1) * head_dim;
                let delta = Self::dot(&dout[row.clone()], &out[row.clone()]);
                for (i, score) in self.scores(start, token, head).iter().enumerate() {
                    let [_, key, value] = self.at(start + i, head);
                    let query = self.at(token, head)[0];
                    let p = (score - log_sum_exp[head * tokens + token]).exp();
                    let dp = Self::dot(&dout[row.clone()], &self.qkv[value..value + head_dim]);
                    let ds = p * (dp - delta) * scale;
                    for d in 0..head_dim {
                        dqkv[value + d] += p * dout[row.start + d];
                        dqkv[key + d] += ds * self.qkv[query + d];
                        dqkv[query + d] += ds * self.qkv[key + d];
                    }
                }
            }
        }
        dqkv
    }

    /// out, log Σ exp and dqkv, by the GPU.
    fn run(&self, device: &Device, dout: &[f64]) -> [Vec<f32>; 3] {
        let heads = self.heads;
        let bf16s = |values: &[f64]| -> Vec<bf16> {
            values.iter().map(|value| bf16::from_f64(*value)).collect()
        };
        let num_rows = self.num_tokens() * heads.num_heads;
        let bounds = self.bounds();
        let starts = device.upload(&cuda::document_starts(&bounds)).unwrap();
        let bounds = device.upload(&bounds).unwrap();
        let qkv = device.upload(&bf16s(&self.qkv)).unwrap();
        let dout = device.upload(&bf16s(dout)).unwrap();
        let mut out = device
            .upload(&vec![bf16::NAN; num_rows * heads.head_dim])
            .unwrap();
        let mut lse = device.upload(&vec![f32::NAN; num_rows]).unwrap();
        let mut delta = device.upload(&vec![f32::NAN; num_rows]).unwrap();
        let mut dqkv = device.upload(&vec![bf16::NAN; self.qkv.len()]).unwrap();
        let documents = Documents {
            starts: &starts.as_view(),
            bounds: &bounds.as_view(),
        };
        let to = (&mut out.as_view_mut(), &mut lse.as_view_mut());
        cuda::causal_attention(device, &qkv.as_view(), documents, heads, to).unwrap();
        let saved = CausalSaved {
            qkv: &qkv.as_view(),
            out: &out.as_view(),
            log_sum_exp: &lse.as_view(),
            documents,
        };
        let to = (&mut dqkv.as_view_mut(), &mut delta.as_view_mut());
        cuda::causal_attention_backward(device, saved, heads, &dout.as_view(), to).unwrap();
        [
            to_f32(&device.download(&out).unwrap()),
            device.download(&lse).unwrap(),
            to_f32(&device.download(&dqkv).unwrap()),
        ]
    }
}

/// Values that bf16 holds exactly.
fn values(random: &mut Random, len: usize, size: f32) -> Vec<f64> {
    (0..len)
        .map(|_| bf16::from_f32(size * random.float()).to_f64())
        .collect()
}

fn case(random: &mut Random, heads: Heads, lengths: &[usize]) -> (Case, Vec<f64>) {
    let mut case = Case {
        heads,
        lengths: lengths.to_vec(),
        qkv: Vec::new(),
    };
    case.qkv = values(random, case.num_tokens() * case.stride(), 2.0);
    let dout = values(
        random,
        case.num_tokens() * heads.num_heads * heads.head_dim,
        1.0,
    );
    (case, dout)
}

fn single(values: &[f64]) -> Vec<f32> {
    values.iter().map(|value| *value as f32).collect()
}

#[test]
fn attention_and_its_gradient_are_their_twins() {
    let Some(device) = device() else { return };
    for seed in SEEDS {
        let mut random = Random::new(seed);
        let num_groups = random.below(1, 3);
        let heads = Heads {
            num_heads: num_groups * random.below(1, 3),
            num_groups,
            head_dim: HEAD_DIMS[seed as usize % 3],
        };
        // Across the edges of tiles of 64, with an empty document.
        let lengths = [
            random.below(1, 50),
            0,
            1,
            random.below(1, 90),
            random.below(1, 70),
        ];
        let (case, dout) = case(&mut random, heads, &lengths);
        let [out, lse, dqkv] = case.run(&device, &dout);
        let expected = case.forward();
        assert_close(&out, &single(&expected.out), TOLERANCE);
        // f32 throughout.
        assert_close(&lse, &single(&expected.log_sum_exp), 1e-5);
        assert_close(&dqkv, &single(&case.backward(&dout)), GRADIENT_TOLERANCE);
    }
}

#[test]
fn one_long_document_and_the_same_bits_again() {
    let Some(device) = device() else { return };
    let heads = Heads {
        num_heads: 3,
        num_groups: 1,
        head_dim: 64,
    };
    let (case, dout) = case(&mut Random::new(5), heads, &[200]);
    let [out, lse, dqkv] = case.run(&device, &dout);
    assert_close(&out, &single(&case.forward().out), TOLERANCE);
    assert_close(&dqkv, &single(&case.backward(&dout)), GRADIENT_TOLERANCE);
    assert_eq!(case.run(&device, &dout), [out, lse, dqkv]);
}

/// The twin's own formulas.
#[test]
fn the_twin_has_the_slope_of_the_sum() {
    let heads = Heads {
        num_heads: 2,
        num_groups: 1,
        head_dim: 64,
    };
    let (mut case, dout) = case(&mut Random::new(6), heads, &[2, 4]);
    let gradient = case.backward(&dout);
    let step = 1e-5;
    for at in (0..case.qkv.len()).step_by(7) {
        let before = case.qkv[at];
        let mut loss = |value: f64| {
            case.qkv[at] = value;
            Case::dot(&case.forward().out, &dout)
        };
        let slope = (loss(before + step) - loss(before - step)) / (2.0 * step);
        loss(before);
        assert!(
            (slope - gradient[at]).abs() < 1e-6,
            "{slope} {}",
            gradient[at]
        );
    }
}

#[test]
fn what_does_not_fit_is_an_error() {
    let Some(device) = device() else { return };
    let heads = Heads {
        num_heads: 2,
        num_groups: 1,
        head_dim: 64,
    };
    let starts = device.zeros::<u32>(3).unwrap();
    let bounds = device.upload(&[0_u32, 3]).unwrap();
    let documents = Documents {
        starts: &starts.as_view(),
        bounds: &bounds.as_view(),
    };
    let qkv = device.zeros::<bf16>(3 * 256).unwrap();
    let mut out = device.zeros::<bf16>(3 * 128).unwrap();
    let mut lse = device.zeros::<f32>(5).unwrap();
    let to = (&mut out.as_view_mut(), &mut lse.as_view_mut());
    let error = cuda::causal_attention(&device, &qkv.as_view(), documents, heads, to).unwrap_err();
    let expected = "causal_attention: log_sum_exp: expected 6 values, found 5";
    assert_eq!(error.to_string(), expected);
}
