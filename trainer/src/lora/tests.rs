use super::*;
use crate::config::{Checkpointing, Method, MomentsDtype, Precision};
use crate::forward::{DropoutKey, Goal, Network, NetworkOptions};
use crate::gradients::Gradients;
use crate::optimizer::Optimizer;
use crate::pack::{MicroBatch, pack};
use crate::testing::{
    Head, difference_quotient, examples, largest_entry, optimizer_config, tiny_network,
    tiny_network_with,
};
use crate::train::engine::Update;

fn lora(dropout: f64, base: BaseFormat) -> LoraConfig {
    LoraConfig {
        rank: 3,
        alpha: 6.0,
        dropout,
        targets: LoraTarget::ALL.to_vec(),
        base,
    }
}

fn network(lora: LoraConfig) -> Network {
    let options = NetworkOptions {
        method: Method::Lora(lora),
        checkpointing: Checkpointing::On,
        ..NetworkOptions::default()
    };
    tiny_network_with(Head::Tied, options)
}

/// B's are zero at first, which hides A's gradient: give them values.
fn with_values_in_b(network: Network) -> Network {
    for (number, parameter) in network.parameters.iter().enumerate() {
        if parameter.name.contains("lora_B") {
            let stream = Stream::Init {
                parameter: number as u32,
            };
            let rng = CounterRng::new(4, stream);
            kernels::tensor::f32_update("test", "b", &parameter.values, |values| {
                for (at, value) in values.iter_mut().enumerate() {
                    *value = 0.2 * rng.normal(at as u64) as f32;
                }
            })
            .unwrap();
        }
    }
    network
}

fn batches() -> Vec<MicroBatch> {
    pack(&[0, 1], &examples(&[12, 7]), 100)
}

fn loss_and_gradients(network: &Network, dropout: Option<DropoutKey>) -> (f64, Gradients) {
    let mut gradients = Gradients::zeros(&network.parameters);
    let goal = Goal {
        grad_scale: 1.0,
        dropout,
    };
    let run = |batch| {
        network
            .forward_backward(batch, goal, &mut gradients)
            .unwrap()
    };
    let nll = batches().iter().map(run).sum();
    (nll, gradients)
}

/// An adapter changes nothing before it is trained, and only adapters are trained: two matrices for
/// each of seven projections of two layers.
#[test]
fn fresh_adapters_change_nothing() {
    let plain = tiny_network(Head::Tied, Checkpointing::Auto);
    let adapted = network(lora(0.5, BaseFormat::F32));
    assert_eq!(adapted.parameters.len(), 2 * 7 * 2);
    let batch = &batches()[0];
    let (expected, found) = (
        plain.evaluate(batch).unwrap(),
        adapted.evaluate(batch).unwrap(),
    );
    assert!(
        (expected - found).abs() < 1e-6 * expected,
        "{expected} {found}"
    );
    let names = &adapted.parameters;
    assert_eq!(
        names[0].name,
        "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    );
    assert_eq!(names[0].values.dims(), [3, 12]);
    assert_eq!(names[1].values.dims(), [16, 3]);
}

/// Each gradient of an adapter predicts how the loss moves (central differences), with dropout as
/// without, since a pass draws the same values every time.
#[test]
fn gradients_equal_finite_differences() {
    const STEP: f32 = 4e-3;
    for dropout in [0.0, 0.3] {
        let network = with_values_in_b(network(lora(dropout, BaseFormat::F32)));
        let key = Some(DropoutKey(77));
        let (_, gradients) = loss_and_gradients(&network, key);
        for (parameter, gradient) in network.parameters.iter().zip(gradients.in_order()) {
            let at = largest_entry(gradient);
            let loss = || loss_and_gradients(&network, key).0;
            let quotient = difference_quotient((&parameter.values, at), STEP, loss);
            let expected = f64::from(gradient[at]);
            assert!(expected != 0.0, "{} has no gradient", parameter.name);
            let error = (quotient - expected).abs() / expected.abs().max(5e-2);
            assert!(
                error < 2e-2,
                "{}[{at}], dropout {dropout}: quotient {quotient}, gradient {expected}",
                parameter.name
            );
        }
    }
}

/// Other micro-batches and steps leave other inputs out; evaluation leaves out none.
#[test]
fn dropout_follows_its_key() {
    let network = with_values_in_b(network(lora(0.3, BaseFormat::F32)));
    let nll = |key| loss_and_gradients(&network, key).0;
    let one = nll(Some(DropoutKey::new(1, 0, 0)));
    assert_eq!(one.to_bits(), nll(Some(DropoutKey::new(1, 0, 0))).to_bits());
    for other in [
        DropoutKey::new(1, 1, 0),
        DropoutKey::new(1, 0, 1),
        DropoutKey::new(2, 0, 0),
    ] {
        assert_ne!(one.to_bits(), nll(Some(other)).to_bits());
    }
    let evaluated = network.evaluate(&batches()[0]).unwrap();
    let none = nll(None);
    assert!((evaluated - none).abs() < 1e-6 * none, "{evaluated} {none}");
}

/// The merged weights are a plain network with the same loss, over an f32, a bf16 and an 8-bit base.
#[test]
fn merged_weights_have_the_adapted_loss() {
    for base in [BaseFormat::F32, BaseFormat::Bf16, BaseFormat::Int8] {
        let adapted = with_values_in_b(network(lora(0.0, base)));
        let specs = model::weights::tensor_specs(&adapted.config);
        let merged = specs
            .into_iter()
            .zip(adapted.weights.in_order())
            .map(|(spec, weight)| {
                let values = weight.merged()?;
                let tensor = Tensor::from_vec(values, spec.shape.as_slice(), &Device::Cpu)?;
                Ok((spec, tensor))
            });
        let plain =
            Network::new(adapted.config.clone(), merged, NetworkOptions::default()).unwrap();
        let batch = &batches()[0];
        let (expected, found) = (
            adapted.evaluate(batch).unwrap(),
            plain.evaluate(batch).unwrap(),
        );
        assert!(
            (expected - found).abs() < 1e-5 * expected,
            "{base:?}: {expected} {found}"
        );
    }
}

/// Adapters learn beside a base in 8 bits, computing in bf16, and the base does not move.
#[test]
fn adapters_learn_on_a_quantised_base() {
    let options = NetworkOptions {
        method: Method::Lora(lora(0.0, BaseFormat::Int8)),
        precision: Precision::Bf16,
        ..NetworkOptions::default()
    };
    let network = tiny_network_with(Head::Untied, options);
    let base = |network: &Network| network.weights.layers[0].q.weight.matrix.to_f32().unwrap();
    let before = base(&network)
        .flatten_all()
        .unwrap()
        .to_vec1::<f32>()
        .unwrap();
    let config = optimizer_config(2e-2, MomentsDtype::Int8);
    let mut optimizer = Optimizer::new(config, 1, &network.parameters);
    let first = network.evaluate(&batches()[0]).unwrap();
    for number in 1..=60 {
        let (_, gradients) = loss_and_gradients(&network, None);
        let update = Update {
            number,
            lr: 2e-2,
            grad_norm: gradients.global_norm(),
        };
        optimizer
            .step(&network.parameters, &gradients, &update)
            .unwrap();
    }
    let last = network.evaluate(&batches()[0]).unwrap();
    assert!(last < 0.5 * first, "{first} became {last}");
    let after = base(&network)
        .flatten_all()
        .unwrap()
        .to_vec1::<f32>()
        .unwrap();
    assert_eq!(before, after);
}
