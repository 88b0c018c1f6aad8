use super::*;
use crate::forward::{Network, NetworkOptions, tensors_of};
use crate::init::random_weights;
use crate::lora::LoraConfig;
use crate::optimizer::Optimizer;
use crate::testing::{Head, tiny_config};
use crate::weights::AnyWeight;

/// The shape of Llama-3.2-3B.
pub(crate) fn llama_3b() -> LlamaConfig {
    model::random::preset("3b").unwrap()
}

fn shape<'a>(config: &'a LlamaConfig, method: &'a Method) -> Shape<'a> {
    Shape {
        config,
        method,
        precision: Precision::F32,
        moments: MomentsDtype::F32,
        checkpointing: Checkpointing::On,
        save_dtype: SaveDtype::F32,
        max_positions: 0,
        num_ranks: 1,
        lanes_at_once: 2,
        gpu_tokens: None,
    }
}

pub(crate) fn lora(targets: &[LoraTarget], base: BaseFormat) -> Method {
    Method::Lora(LoraConfig {
        rank: 16,
        alpha: 32.0,
        dropout: 0.0,
        targets: targets.to_vec(),
        base,
    })
}

/// The paper's numbers for the 3B shape: parameters to the last one, states to the byte.
#[test]
fn states_of_the_3b_shape() {
    let config = llama_3b();
    let full = Budget::new(
        &shape(&config, &Method::Full),
        Largest::default(),
        Largest::default(),
    );
    assert_eq!(full.num_parameters, 3_212_749_824);
    // f32 weights, gradient and two moments: scheme C.
    let states = full.weights + full.gradients + full.moments;
    assert_eq!(states, 16 * full.num_parameters);
    let eight_bit = Shape {
        precision: Precision::Bf16Weights,
        moments: MomentsDtype::Int8,
        ..shape(&config, &Method::Full)
    };
    // bf16 weights, f32 gradient, 8-bit moments: scheme H, 8 bytes a parameter and the scales.
    let small = Budget::new(&eight_bit, Largest::default(), Largest::default());
    let states = (small.weights + small.gradients + small.moments) as f64;
    let per_parameter = states / full.num_parameters as f64;
    assert!((8.0..8.05).contains(&per_parameter), "{per_parameter}");
    let all = lora(&LoraTarget::ALL, BaseFormat::Bf16);
    let adapters = Budget::new(
        &shape(&config, &all),
        Largest::default(),
        Largest::default(),
    );
    assert_eq!(adapters.num_trained, 24_313_856);
    let some = lora(&[LoraTarget::QProj, LoraTarget::VProj], BaseFormat::Int8);
    let adapters = Budget::new(
        &shape(&config, &some),
        Largest::default(),
        Largest::default(),
    );
    assert_eq!(adapters.num_trained, 4_587_520);
}

/// What the plan says of weights and moments is what a network and an optimizer then have.
#[test]
fn states_are_those_of_the_network() {
    let config = LlamaConfig {
        hidden_size: 72,
        ..tiny_config(Head::Untied)
    };
    let methods = [
        (Method::Full, Precision::F32, MomentsDtype::F32),
        (Method::Full, Precision::Bf16Weights, MomentsDtype::Int8),
        (
            lora(&LoraTarget::ALL, BaseFormat::Int8),
            Precision::Bf16,
            MomentsDtype::Bf16,
        ),
        (
            lora(&[LoraTarget::VProj], BaseFormat::Bf16),
            Precision::Bf16,
            MomentsDtype::F32,
        ),
    ];
    for (method, precision, moments) in methods {
        let shape = Shape {
            precision,
            moments,
            ..shape(&config, &method)
        };
        let budget = Budget::new(&shape, Largest::default(), Largest::default());
        let options = NetworkOptions {
            method: method.clone(),
            precision,
            ..NetworkOptions::default()
        };
        let weights = random_weights(&config, 1).unwrap();
        let network = Network::new(config.clone(), tensors_of(&config, &weights), options).unwrap();
        assert_eq!(budget.weights, stored_bytes(&network), "{method:?}");
        let trained: usize = network
            .parameters
            .iter()
            .map(crate::weights::Parameter::num_elements)
            .sum();
        assert_eq!(budget.num_trained, trained, "{method:?}");
        let config = crate::testing::optimizer_config(1e-3, moments);
        let optimizer = Optimizer::new(config, 0, &network.parameters);
        let held: usize = optimizer.moments.iter().map(moment_bytes).sum();
        assert_eq!(budget.moments, held, "{method:?}");
    }
}

fn stored_bytes(network: &Network) -> usize {
    let bytes = |weight: &AnyWeight<'_>| match weight {
        AnyWeight::Norm(norm) => 4 * norm.values.elem_count(),
        AnyWeight::Table(weight) => weight.matrix.num_bytes(),
        AnyWeight::Linear(linear) => {
            let adapter = linear.adapter.as_ref();
            let adapter = adapter.map_or(0, |a| a.a.matrix.num_bytes() + a.b.matrix.num_bytes());
            linear.weight.matrix.num_bytes() + adapter
        }
    };
    network.weights.in_order().iter().map(bytes).sum()
}

fn moment_bytes(moments: &Moments) -> usize {
    match moments {
        Moments::F32 { first, second } => 4 * (first.len() + second.len()),
        Moments::Bf16 { first, second } => 2 * (first.len() + second.len()),
        Moments::Int8 { first, second } => {
            let bytes = |q: &kernels::Quantized| q.codes.len() + 4 * q.scales.len();
            bytes(first) + bytes(second)
        }
    }
}
