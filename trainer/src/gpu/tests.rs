//! The GPU (the software one where there is no other) against the CPU, on the same weights and
//! micro-batches.

mod group;

use cuda_emulator::Provided;

use super::*;
use crate::config::{BaseFormat, Checkpointing, MomentsDtype, Precision};
use crate::forward::{Network, tensors_of};
use crate::lora::LoraTarget;
use crate::optimizer::Optimizer;
use crate::pack::pack;
use crate::rng::{CounterRng, Stream};
use crate::testing::{Head, examples, gpu_config, optimizer_config, tiny_weights};
use crate::train::cpu::CpuEngine;
use crate::train::lanes::Lanes;

/// A GPU, or `None` and a loud line.
fn device() -> Option<Device> {
    if let Provided::Nothing(why) = cuda_emulator::load() {
        eprintln!("SKIPPED, no GPU: {why}");
        return None;
    }
    Some(Device::open(0).unwrap())
}

/// No micro-batch of these tests has more tokens.
const MAX_TOKENS: usize = 40;

fn options(method: Method, precision: Precision) -> NetworkOptions {
    NetworkOptions {
        method,
        precision,
        seed: 7,
        ..NetworkOptions::default()
    }
}

fn lora(base: BaseFormat, dropout: f64) -> Method {
    Method::Lora(LoraConfig {
        rank: 8,
        alpha: 12.0,
        dropout,
        targets: LoraTarget::ALL.to_vec(),
        base,
    })
}

fn gpu(device: &Device, head: Head, options: NetworkOptions, moments: MomentsDtype) -> GpuEngine {
    let config = gpu_config(head);
    let tensors = tensors_of(&config, &tiny_weights(&config));
    gpu_of(device, config, tensors, (options, moments))
}

fn gpu_of(
    device: &Device,
    config: LlamaConfig,
    tensors: impl IntoIterator<Item = Result<(TensorSpec, Tensor)>>,
    (options, moments): (NetworkOptions, MomentsDtype),
) -> GpuEngine {
    let optimizer = optimizer_config(1e-2, moments);
    GpuEngine::new(
        device.clone(),
        config,
        tensors,
        (options, optimizer),
        MAX_TOKENS,
    )
    .unwrap()
}

fn network(head: Head, options: NetworkOptions) -> Network {
    let config = gpu_config(head);
    let tensors = tensors_of(&config, &tiny_weights(&config));
    Network::new(config, tensors, options).unwrap()
}

fn cpu(head: Head, options: NetworkOptions, moments: MomentsDtype) -> CpuEngine {
    let network = network(head, options);
    let optimizer = optimizer_config(1e-2, moments);
    let optimizer = Optimizer::new(optimizer, 7, &network.parameters);
    CpuEngine::new(network, optimizer, &Group::Single)
}

/// Two micro-batches of several examples each.
fn batches() -> Vec<MicroBatch> {
    let examples = examples(&[14, 3, 9, 4, 12, 6, 3, 11]);
    let all: Vec<u32> = (0..8).collect();
    pack(&all, &examples, MAX_TOKENS)
}

fn goal(batches: &[MicroBatch], steps: u64) -> StepGoal {
    let num_labels: usize = batches.iter().map(MicroBatch::num_labels).sum();
    StepGoal {
        steps,
        grad_scale: 1.0 / num_labels as f32,
    }
}

/// Length of the difference over the length of what is expected.
fn distance(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let square = |x: f32| f64::from(x) * f64::from(x);
    let pairs = found.iter().zip(expected);
    let difference: f64 = pairs.map(|(a, b)| square(a - b)).sum();
    let length: f64 = expected.iter().map(|x| square(*x)).sum();
    (difference / length.max(1e-30)).sqrt()
}

/// B is zero at first, and with it A's gradient: here it is not.
fn values_of_b(name: &str, shape: &[usize]) -> Option<Tensor> {
    if !name.contains("lora_B") {
        return None;
    }
    let rng = CounterRng::new(1, Stream::Init { parameter: 0 });
    let count = shape.iter().product::<usize>() as u64;
    let values: Vec<f32> = (0..count).map(|at| 0.1 * rng.normal(at) as f32).collect();
    Some(Tensor::from_vec(values, shape, &candle_core::Device::Cpu).unwrap())
}

fn fill_b(gpu: &mut GpuEngine) {
    for (number, parameter) in gpu.parameters().iter().enumerate() {
        if let Some(values) = values_of_b(&parameter.name, &parameter.shape) {
            gpu.set_values(Slot(number), &values).unwrap();
        }
    }
}

/// Loss and gradients of one step on the CPU.
fn cpu_step(head: Head, options: NetworkOptions, goal: StepGoal) -> (f64, Vec<Vec<f32>>) {
    let network = network(head, options);
    for parameter in &network.parameters {
        let Some(values) = values_of_b(&parameter.name, parameter.values.dims()) else {
            continue;
        };
        let values = values.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let fill = |own: &mut [f32]| own.copy_from_slice(&values);
        kernels::tensor::f32_update("test", "b", &parameter.values, fill).unwrap();
    }
    let mut lanes = Lanes::new(&network, &Group::Single);
    let nll = lanes
        .forward_backward(&network, &batches(), goal, &mut Group::Single)
        .unwrap();
    let gradients = lanes.gradients().in_order().map(<[f32]>::to_vec);
    (nll, gradients.collect())
}

fn norm_of(gradients: &[Vec<f32>]) -> f64 {
    let squares = gradients.iter().map(|values| kernels::squared_norm(values));
    squares.sum::<f64>().sqrt()
}

/// Loss and every gradient of one step lie as near to those in f32 as the CPU's with products in bf16 do:
/// both round the factors of products; here projections, attention's output and the gradients on the
/// way back are bf16 as well, which is as much again at most.
fn check_step(head: Head, options: NetworkOptions) {
    let Some(device) = device() else { return };
    let batches = batches();
    assert!(batches.len() > 1);
    let goal = goal(&batches, 3);
    let mut gpu = gpu(&device, head, options.clone(), MomentsDtype::F32);
    fill_b(&mut gpu);
    let found = gpu
        .forward_backward(&batches, goal, &mut Group::Single)
        .unwrap();
    let (_, rounded) = cpu_step(head, options.clone(), goal);
    let in_f32 = NetworkOptions {
        precision: Precision::F32,
        ..options
    };
    let (nll, exact) = cpu_step(head, in_f32, goal);
    assert!((found.nll / nll - 1.0).abs() < 2e-3, "{found:?} {nll}");
    let off = |norm: f64| (norm / norm_of(&exact) - 1.0).abs();
    let (own, cpus) = (off(found.grad_norm), off(norm_of(&rounded)));
    assert!(own < 2.0 * cpus + 1e-2, "norm: {own}, the CPU's {cpus}");
    let parameters = &gpu.model.weights.layout.parameters;
    for (parameter, (exact, rounded)) in parameters.iter().zip(exact.iter().zip(&rounded)) {
        let range = parameter.place.gradient.clone().unwrap();
        let gradient = device.download(&gpu.gradients.part(&range)).unwrap();
        let name = &parameter.spec.name;
        assert!(gradient.iter().any(|value| *value != 0.0), "{name}");
        let (own, cpus) = (distance(&gradient, exact), distance(rounded, exact));
        assert!(own < 2.0 * cpus + 5e-3, "{name}: {own}, the CPU's {cpus}");
    }
    let evaluated = gpu.evaluate(&batches, &mut Group::Single).unwrap();
    if matches!(gpu.method(), Method::Full) {
        // Without dropout it is the same pass.
        assert_eq!(evaluated.to_bits(), found.nll.to_bits());
    }
}

#[test]
fn a_step_is_the_cpus() {
    check_step(Head::Tied, options(Method::Full, Precision::Bf16));
    check_step(Head::Untied, options(Method::Full, Precision::Bf16Weights));
}

/// Dropout included: it leaves out the same values.
#[test]
fn a_step_of_adapters_is_the_cpus() {
    let lora = |dropout| lora(BaseFormat::Bf16, dropout);
    check_step(Head::Tied, options(lora(0.25), Precision::Bf16));
    check_step(Head::Untied, options(lora(0.0), Precision::Bf16));
}

/// Of a base in 8 bits the engine tells the values that products see: projections rounded to whole numbers
/// of their row's scale, embedding, head and norms as they are beside a base in bf16.
#[test]
fn a_base_in_8_bits_is_rounded_by_rows() {
    let Some(device) = device() else { return };
    for head in [Head::Tied, Head::Untied] {
        let options = options(lora(BaseFormat::Int8, 0.0), Precision::Bf16);
        let gpu = gpu(&device, head, options, MomentsDtype::F32);
        let config = gpu_config(head);
        let mut num_projections = 0;
        for (number, tensor) in tensors_of(&config, &tiny_weights(&config)).enumerate() {
            let (spec, values) = tensor.unwrap();
            let values = values.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let found = gpu.merged(number).unwrap();
            if !spec.name.contains("_proj") {
                let rounded = |x: &f32| half::bf16::from_f32(*x).to_f32();
                let is_norm = spec.shape.len() == 1;
                let expected = values.iter().map(|x| if is_norm { *x } else { rounded(x) });
                assert!(found.iter().copied().eq(expected), "{}", spec.name);
                continue;
            }
            num_projections += 1;
            let rows = found.chunks(spec.shape[1]);
            for (found, row) in rows.zip(values.chunks(spec.shape[1])) {
                let scale = row.iter().fold(0.0_f32, |most, x| most.max(x.abs())) / 127.0;
                for (found, x) in found.iter().zip(row) {
                    let whole = (x / scale).round();
                    let expected = whole * scale;
                    // Rounded to bf16, which has 8 bits; a tie may go either way.
                    let off = (found - expected).abs() - expected.abs() / 256.0;
                    let is_tie = ((x / scale).fract().abs() - 0.5).abs() < 1e-3;
                    assert!(off <= 0.0 || is_tie, "{}: {found} {x}", spec.name);
                }
            }
        }
        assert_eq!(num_projections, 7 * config.num_hidden_layers);
    }
}

/// A base in 8 bits is, to the bit, a base in bf16 of the values that it is widened to: loss, gradients and
/// where some steps lead, dropout and activations that are computed again included.
#[test]
fn a_base_in_8_bits_is_that_of_its_widened_values() {
    let Some(device) = device() else { return };
    for (head, checkpointing) in [
        (Head::Tied, Checkpointing::On),
        (Head::Untied, Checkpointing::Off),
    ] {
        let with = |base| NetworkOptions {
            checkpointing,
            ..options(lora(base, 0.25), Precision::Bf16)
        };
        let mut narrow = gpu(&device, head, with(BaseFormat::Int8), MomentsDtype::F32);
        assert!(narrow.model.weights.layout.num_int8 > 0);
        // B is zero yet.
        let config = gpu_config(head);
        let specs = model::weights::tensor_specs(&config)
            .into_iter()
            .enumerate();
        let widened = specs.map(|(number, spec)| {
            let values = narrow.merged(number)?;
            let shape = spec.shape.as_slice();
            let values = Tensor::from_vec(values, shape, &candle_core::Device::Cpu)?;
            Ok((spec, values))
        });
        let options = (with(BaseFormat::Bf16), MomentsDtype::F32);
        let mut wide = gpu_of(&device, config, widened.collect::<Vec<_>>(), options);
        assert_eq!(wide.model.weights.layout.num_int8, 0);
        let batches = batches();
        let step = |engine: &mut GpuEngine| {
            fill_b(engine);
            let goal = goal(&batches, 3);
            let sums = engine.forward_backward(&batches, goal, &mut Group::Single);
            let gradients = device.download(&engine.gradients.values).unwrap();
            let gradients = gradients.into_iter().map(f32::to_bits);
            (sums.unwrap().nll.to_bits(), gradients.collect::<Vec<_>>())
        };
        let (narrow_step, wide_step) = (step(&mut narrow), step(&mut wide));
        assert!(wide_step.1.iter().filter(|bits| **bits != 0).count() > 1000);
        assert!(narrow_step == wide_step, "{head:?}");
        let evaluate = |engine: &mut GpuEngine| engine.evaluate(&batches, &mut Group::Single);
        let evaluated = [&mut narrow, &mut wide].map(|it| evaluate(it).unwrap().to_bits());
        assert_eq!(evaluated[0], evaluated[1]);
        let (narrow_way, wide_way) = (
            journey(&mut narrow, &mut Group::Single, 3),
            journey(&mut wide, &mut Group::Single, 3),
        );
        assert!(narrow_way == wide_way, "{head:?}");
    }
}

/// Activations that are computed again are the same bits.
#[test]
fn checkpointing_changes_nothing() {
    let Some(device) = device() else { return };
    let batches = batches();
    let gradients = |checkpointing| {
        let options = NetworkOptions {
            checkpointing,
            ..options(lora(BaseFormat::Bf16, 0.25), Precision::Bf16)
        };
        let mut gpu = gpu(&device, Head::Tied, options, MomentsDtype::F32);
        gpu.forward_backward(&batches, goal(&batches, 0), &mut Group::Single)
            .unwrap();
        let values = device.download(&gpu.gradients.values).unwrap();
        values.into_iter().map(f32::to_bits).collect::<Vec<u32>>()
    };
    assert!(gradients(Checkpointing::On) == gradients(Checkpointing::Off));
}

/// Losses of so many steps, and where the weights have come to.
fn journey(engine: &mut dyn Engine, group: &mut Group, num_steps: u64) -> (Vec<f64>, Vec<f32>) {
    let batches = batches();
    let losses = (0..num_steps).map(|steps| {
        let goal = goal(&batches, steps);
        let sums = engine.forward_backward(&batches, goal, group).unwrap();
        let update = Update {
            number: steps + 1,
            lr: 1e-3,
            grad_norm: sums.grad_norm,
        };
        engine.update(&update).unwrap();
        sums.nll * f64::from(goal.grad_scale)
    });
    let losses = losses.collect();
    let num_weights = model::weights::tensor_specs(engine.config()).len();
    let weights = (0..num_weights).flat_map(|number| engine.merged(number).unwrap());
    (losses, weights.collect())
}

/// In every format the losses of eight steps are the CPU's, and so is the way of the weights.
#[test]
fn loss_curves_are_the_cpus() {
    let Some(device) = device() else { return };
    for (method, precision, moments) in [
        (Method::Full, Precision::Bf16, MomentsDtype::F32),
        (Method::Full, Precision::Bf16Weights, MomentsDtype::Int8),
        (
            lora(BaseFormat::Bf16, 0.1),
            Precision::Bf16,
            MomentsDtype::Bf16,
        ),
        // The CPU's scales are of groups of 64 inputs: other numbers where a row is longer.
        (
            lora(BaseFormat::Int8, 0.1),
            Precision::Bf16,
            MomentsDtype::F32,
        ),
    ] {
        let what = super::lora(&method).map_or("full", |lora| lora.base.name());
        let options = options(method.clone(), precision);
        let mut gpu = gpu(&device, Head::Tied, options.clone(), moments);
        let mut cpu = cpu(Head::Tied, options, moments);
        let (found, weights) = journey(&mut gpu, &mut Group::Single, 8);
        let (expected, expected_weights) = journey(&mut cpu, &mut Group::Single, 8);
        let what = format!("{what}, {precision:?}, moments {moments:?}");
        eprintln!(
            "{what}: {:.4} to {:.4}, CPU to {:.4}",
            found[0], found[7], expected[7]
        );
        assert!(found[7] < 0.9 * found[0], "{what}: {found:?}");
        for (step, (found, expected)) in found.iter().zip(&expected).enumerate() {
            let limit = 0.03 * expected + 0.005;
            assert!(
                (found - expected).abs() < limit,
                "{what}, step {step}: {found} {expected}"
            );
        }
        let distance = distance(&weights, &expected_weights);
        assert!(distance < 1e-2, "{what}: {distance}");
    }
}

/// Values and moments that went to the host and into another engine make the same next step, bit for
/// bit.
#[test]
fn states_travel_whole() {
    let Some(device) = device() else { return };
    for moments in [MomentsDtype::F32, MomentsDtype::Bf16, MomentsDtype::Int8] {
        let options = options(Method::Full, Precision::Bf16Weights);
        let new = || gpu(&device, Head::Untied, options.clone(), moments);
        let (mut whole, mut resumed) = (new(), new());
        journey(&mut whole, &mut Group::Single, 2);
        for number in 0..whole.parameters().len() {
            let slot = Slot(number);
            let values = whole.values(slot).unwrap();
            resumed.set_values(slot, &values).unwrap();
            let moments = whole.moments(slot).unwrap().into_owned();
            resumed.set_moments(slot, moments).unwrap();
        }
        let batches = batches();
        let next = |engine: &mut GpuEngine| {
            let sums = engine.forward_backward(&batches, goal(&batches, 2), &mut Group::Single);
            let update = Update {
                number: 3,
                lr: 1e-3,
                grad_norm: sums.unwrap().grad_norm,
            };
            engine.update(&update).unwrap();
            let number_of_weights = engine.model.weights.layout.tensors.len();
            let weights = (0..number_of_weights).flat_map(|at| engine.merged(at).unwrap());
            weights.map(f32::to_bits).collect::<Vec<u32>>()
        };
        assert!(next(&mut whole) == next(&mut resumed), "{moments:?}");
    }
}

/// A projection of Llama-3.2-3B takes a byte a weight and 4 a row; embedding and norms are no smaller.
#[test]
fn a_base_in_8_bits_takes_a_byte_a_weight() {
    let config = model::random::preset("3b").unwrap();
    let budget = |base| {
        let options = options(lora(base, 0.0), Precision::Bf16);
        gpu_budget(&config, &options, MomentsDtype::F32, 4096)
    };
    let (wide, narrow) = (budget(BaseFormat::Bf16), budget(BaseFormat::Int8));
    let rows = 28 * (3072 + 2 * 1024 + 3072 + 2 * 8192 + 3072);
    let weights = 28 * (2 * 3072 * 3072 + 2 * 3072 * 1024 + 3 * 3072 * 8192);
    assert_eq!(wide.weights - narrow.weights, weights - 4 * rows);
    // Gate over up.
    let widened = 2 * 2 * 8192 * 3072;
    assert_eq!(narrow.activations - wide.activations, widened);
    assert_eq!(wide.num_trained, narrow.num_trained);
}

/// The plan of the memory is what is then taken: weights, gradients and moments to the byte, but for the
/// places that are rounded up; and a run that has no room is refused with what to do.
#[test]
fn a_budget_is_what_is_taken() {
    let Some(device) = device() else { return };
    let config = gpu_config(Head::Tied);
    let kind = |base| options(lora(base, 0.0), Precision::Bf16);
    let budget_of = |base| gpu_budget(&config, &kind(base), MomentsDtype::Int8, MAX_TOKENS);
    let new = |base| gpu(&device, Head::Tied, kind(base), MomentsDtype::Int8);
    let budget = budget_of(BaseFormat::Bf16);
    for base in [BaseFormat::Bf16, BaseFormat::Int8] {
        let gpu = new(base);
        let weights = &gpu.model.weights;
        let table = 4 * 64 * gpu.model.config.max_position_embeddings;
        let frozen = 2 * weights.bf16s.len() + weights.layout.num_int8;
        let held = 4 * weights.f32s.len() + frozen + table;
        let planned = budget_of(base);
        assert_eq!(planned.weights, held, "{base:?}");
        // What products widen to is all that the passes need more.
        let widened = &gpu.buffers.lora.as_ref().unwrap().widened;
        let more = match base {
            BaseFormat::Int8 => 2 * widened.len(),
            _ => 0,
        };
        assert_eq!(planned.activations, budget.activations + more, "{base:?}");
    }
    let gpu = new(BaseFormat::Bf16);
    assert_eq!(budget.gradients, 4 * gpu.gradients.values.len());
    let moments = gpu.moments.iter().map(|moments| match moments {
        DeviceMoments::Int8 { first, second } => {
            let bytes = |of: &moments::DeviceQuantized| of.codes.len() + 4 * of.scales.len();
            bytes(first) + bytes(second)
        }
        _ => panic!("asked for 8 bits"),
    });
    assert_eq!(budget.moments, moments.sum::<usize>());
    let (free, _) = device.memory().unwrap();
    let budget = crate::budget::Budget {
        peak: free + (1 << 20),
        ..budget
    };
    let error = check_memory(&device, &budget).unwrap_err().to_string();
    assert!(error.contains("--method lora"), "{error}");
}
