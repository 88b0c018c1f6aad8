#![expect(non_snake_case, reason = "tensors end in their shape")]

use candle_core::{D, DType, Device, Tensor, Var};
use candle_nn::ops::softmax;
use candle_nn::rotary_emb::rope_slow;

use super::*;
use crate::pack::pack;
use crate::testing::{Head, difference_quotient, examples, largest_entry, tiny_network};

const PLAIN: Goal = Goal {
    grad_scale: 1.0,
    dropout: None,
};

/// NLL sum and gradients of all weights, in order.
fn gradients_of(network: &Network, batches: &[MicroBatch]) -> (f64, Gradients) {
    let mut gradients = Gradients::zeros(&network.parameters);
    let nll = batches
        .iter()
        .map(|b| network.forward_backward(b, PLAIN, &mut gradients).unwrap())
        .sum();
    (nll, gradients)
}

/// The independent twin: the same network from candle's stock differentiable ops, one example at a
/// time, with candle's own backward pass.
fn twin_loss(network: &Network, vars: &[Var], batch: &MicroBatch) -> Tensor {
    let config = &network.config;
    let (H, G, D) = (
        config.num_attention_heads,
        config.num_key_value_heads,
        config.head_dim,
    );
    let rms = |x: &Tensor, w: &Tensor| {
        candle_nn::ops::rms_norm_slow(x, w, config.rms_norm_eps as f32).unwrap()
    };
    let linear = |x: &Tensor, w: &Tensor| x.matmul(&w.t().unwrap()).unwrap();
    let T = batch.num_tokens();
    let (cos, sin) = twin_rope(config, T);
    let mask = twin_mask(T);
    let heads = |x: &Tensor, count: usize| {
        x.reshape((1, T, count, D))
            .unwrap()
            .transpose(1, 2)
            .unwrap()
            .contiguous()
            .unwrap()
    };
    let mut w = vars.iter().map(Var::as_tensor);
    let mut next = || w.next().unwrap();
    let embed = next();
    let ids = Tensor::new(batch.token_ids.as_slice(), &Device::Cpu).unwrap();
    let mut x = embed.index_select(&ids, 0).unwrap();
    for _ in 0..config.num_hidden_layers {
        let n = rms(&x, next());
        let q = rope_slow(&heads(&linear(&n, next()), H), &cos, &sin).unwrap();
        let k = rope_slow(&heads(&linear(&n, next()), G), &cos, &sin).unwrap();
        let v = heads(&linear(&n, next()), G);
        let spread = |x: Tensor| {
            let x = x.unsqueeze(2).unwrap().expand((1, G, H / G, T, D)).unwrap();
            x.reshape((1, H, T, D)).unwrap()
        };
        let (k, v) = (spread(k), spread(v));
        let scores = (q.matmul(&k.t().unwrap()).unwrap() / (D as f64).sqrt()).unwrap();
        let scores = softmax(&scores.broadcast_add(&mask).unwrap(), D::Minus1).unwrap();
        let out = scores.matmul(&v).unwrap().transpose(1, 2).unwrap();
        let h = (&x + linear(&out.reshape((T, H * D)).unwrap(), next())).unwrap();
        let m = rms(&h, next());
        let inner = linear(&m, next())
            .silu()
            .unwrap()
            .mul(&linear(&m, next()))
            .unwrap();
        x = (&h + linear(&inner, next())).unwrap();
    }
    let n = rms(&x, next());
    let rows = Tensor::new(batch.label_rows.as_slice(), &Device::Cpu).unwrap();
    let head = if config.tie_word_embeddings {
        embed
    } else {
        next()
    };
    let logits = linear(&n.index_select(&rows, 0).unwrap(), head);
    let targets = Tensor::new(batch.targets.as_slice(), &Device::Cpu).unwrap();
    let log_probabilities = candle_nn::ops::log_softmax(&logits, D::Minus1).unwrap();
    let picked = log_probabilities
        .gather(&targets.unsqueeze(1).unwrap(), 1)
        .unwrap();
    picked.neg().unwrap().sum_all().unwrap()
}

fn twin_rope(config: &LlamaConfig, num_tokens: usize) -> (Tensor, Tensor) {
    let half = config.head_dim / 2;
    let angles: Vec<f32> = (0..num_tokens)
        .flat_map(|t| (0..half).map(move |i| (t, i)))
        .map(|(t, i)| t as f32 * twin_frequency(config, i) as f32)
        .collect();
    let angles = Tensor::from_vec(angles, (num_tokens, half), &Device::Cpu).unwrap();
    (angles.cos().unwrap(), angles.sin().unwrap())
}

/// 0 for a key up to the query's own place, minus infinity after it.
fn twin_mask(num_tokens: usize) -> Tensor {
    let blocked: Vec<f32> = (0..num_tokens * num_tokens)
        .map(|at| {
            if at % num_tokens > at / num_tokens {
                f32::NEG_INFINITY
            } else {
                0.0
            }
        })
        .collect();
    Tensor::from_vec(blocked, (num_tokens, num_tokens), &Device::Cpu).unwrap()
}

/// Llama 3's scaled frequency of rotation `i`, from the published formula, in f64.
fn twin_frequency(config: &LlamaConfig, i: usize) -> f64 {
    let base = config
        .rope_theta
        .powf(-2.0 * i as f64 / config.head_dim as f64);
    let Some(scaling) = config.rope_scaling else {
        return base;
    };
    let wave = std::f64::consts::TAU / base;
    let original = scaling.original_max_position_embeddings as f64;
    let (low, high) = (scaling.low_freq_factor, scaling.high_freq_factor);
    if wave < original / high {
        base
    } else if wave > original / low {
        base / scaling.factor
    } else {
        let smooth = (original / wave - low) / (high - low);
        (1.0 - smooth) * base / scaling.factor + smooth * base
    }
}

/// Largest difference between two lists, as a part of the second's largest value.
fn relative_difference(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(1e-6_f32, |max, x| max.max(x.abs()));
    let pairs = found.iter().zip(expected);
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / largest
}

/// Loss and every gradient equal those of candle's autograd over stock differentiable ops, with a
/// tied and an untied head, and every weight gets a finite gradient that is not zero.
#[test]
fn gradients_equal_autograd() {
    for head in [Head::Tied, Head::Untied] {
        let network = tiny_network(head, Checkpointing::Off);
        let examples = examples(&[14, 3, 9]);
        let (nll, ours) = gradients_of(&network, &pack(&[0, 1, 2], &examples, 100));
        let parameters = &network.parameters;
        let vars: Vec<Var> = parameters
            .iter()
            .map(|parameter| Var::from_tensor(&parameter.values).unwrap())
            .collect();
        let alone = (0..3).map(|i| twin_loss(&network, &vars, &pack(&[i], &examples, 100)[0]));
        let loss = alone.reduce(|a, b| (a + b).unwrap()).unwrap();
        let expected_nll = f64::from(loss.to_scalar::<f32>().unwrap());
        assert!(
            (nll - expected_nll).abs() < 1e-4 * expected_nll,
            "{nll} {expected_nll}"
        );
        let store = loss.backward().unwrap();
        for ((parameter, var), ours) in parameters.iter().zip(&vars).zip(ours.in_order()) {
            let name = &parameter.name;
            let twin = store.get(var.as_tensor()).unwrap().flatten_all().unwrap();
            let twin = twin.to_dtype(DType::F32).unwrap().to_vec1::<f32>().unwrap();
            let difference = relative_difference(ours, &twin);
            assert!(difference < 2e-5, "{head:?} {name}: {difference}");
            assert!(ours.iter().all(|value| value.is_finite()), "{name}");
            assert!(
                ours.iter().any(|&value| value != 0.0),
                "{name} has no gradient"
            );
        }
    }
}

/// Each gradient predicts how the loss moves when its weight moves (central differences).
#[test]
fn gradients_equal_finite_differences() {
    const STEP: f32 = 4e-3;
    let network = tiny_network(Head::Tied, Checkpointing::Off);
    let batches = pack(&[0, 1], &examples(&[12, 7]), 100);
    let (_, gradients) = gradients_of(&network, &batches);
    let loss = || {
        batches
            .iter()
            .map(|b| network.evaluate(b).unwrap())
            .sum::<f64>()
    };
    for (parameter, gradient) in network.parameters.iter().zip(gradients.in_order()) {
        let (name, weight) = (&parameter.name, &parameter.values);
        let at = largest_entry(gradient);
        let quotient = difference_quotient((weight, at), STEP, loss);
        let expected = f64::from(gradient[at]);
        let error = (quotient - expected).abs() / expected.abs().max(1e-2);
        assert!(
            error < 1e-2,
            "{name}[{at}]: quotient {quotient}, gradient {expected}"
        );
    }
}

/// Computing layers again gives the same bits as keeping their activations.
#[test]
fn checkpointing_changes_nothing() {
    let batches = pack(&[0, 1], &examples(&[12, 7]), 100);
    let (loss_off, off) = gradients_of(&tiny_network(Head::Tied, Checkpointing::Off), &batches);
    let (loss_on, on) = gradients_of(&tiny_network(Head::Tied, Checkpointing::On), &batches);
    assert_eq!(loss_off.to_bits(), loss_on.to_bits());
    assert!(off.in_order().eq(on.in_order()));
}

/// Packed into one micro-batch or each alone: the same loss and gradient, so neither attention nor
/// positions leak from one example into the next.
#[test]
fn packed_equals_unpacked() {
    let network = tiny_network(Head::Tied, Checkpointing::Auto);
    let examples = examples(&[12, 7, 5, 3]);
    let packed = pack(&[0, 1, 2, 3], &examples, 100);
    let alone = pack(&[0, 1, 2, 3], &examples, 1);
    assert_eq!((packed.len(), alone.len()), (1, 4));
    let (packed_nll, packed) = gradients_of(&network, &packed);
    let (alone_nll, alone) = gradients_of(&network, &alone);
    assert!(
        (packed_nll - alone_nll).abs() < 1e-5 * alone_nll,
        "{packed_nll} {alone_nll}"
    );
    for (packed, alone) in packed.in_order().zip(alone.in_order()) {
        assert!(relative_difference(packed, alone) < 1e-5);
    }
}

/// Evaluation and training compute the same loss.
#[test]
fn evaluation_equals_training_loss() {
    let network = tiny_network(Head::Untied, Checkpointing::Auto);
    let batch = &pack(&[0, 1], &examples(&[12, 7]), 100)[0];
    let (nll, _) = gradients_of(&network, std::slice::from_ref(batch));
    let evaluated = network.evaluate(batch).unwrap();
    assert!((nll - evaluated).abs() < 1e-6 * nll, "{nll} {evaluated}");
}
