//! Several ranks, each a thread with memory of its own on the GPU, against one.

use super::*;
use crate::distributed::tests::on_all;

/// Four micro-batches, so that two ranks have two each and six ranks are too many.
fn four_batches() -> Vec<MicroBatch> {
    let examples = examples(&[14, 3, 9, 4, 12, 6, 3, 11]);
    let all: Vec<u32> = (0..8).collect();
    let batches = pack(&all, &examples, 16);
    assert_eq!(batches.len(), 4);
    batches
}

/// What one rank has after a step and an evaluation.
#[derive(Debug)]
struct Step {
    sums: StepSums,
    evaluated: f64,
    gradients: Vec<f32>,
}

fn step(device: &Device, options: &NetworkOptions, group: &mut Group) -> Step {
    let batches = four_batches();
    let mut gpu = gpu(device, Head::Tied, options.clone(), MomentsDtype::F32);
    for (number, parameter) in gpu.parameters().iter().enumerate() {
        if let Some(values) = values_of_b(&parameter.name, &parameter.shape) {
            gpu.set_values(Slot(number), &values).unwrap();
        }
    }
    let goal = goal(&batches, 3);
    Step {
        sums: gpu.forward_backward(&batches, goal, group).unwrap(),
        evaluated: gpu.evaluate(&batches, group).unwrap(),
        gradients: device.download(&gpu.gradients.values).unwrap(),
    }
}

/// Gradient and NLL of a step do not depend on how many ranks share it, but for the order of sums; every
/// rank has the same bits. A gradient is a sum over four micro-batches, so that an entry is off by at
/// most 3 roundings of 2^-24 on either way, each of no more than the sum of the four sizes, which here is
/// a few times the size of the sum: 1e-6. NLL is summed in f64. Dropout is the same, whoever computes a
/// micro-batch: another mask would be off by tenths.
#[test]
fn a_step_of_ranks_is_that_of_one() {
    let Some(device) = device() else { return };
    for method in [Method::Full, lora(BaseFormat::Bf16, 0.25)] {
        let options = options(method, Precision::Bf16);
        let one = step(&device, &options, &mut Group::Single);
        for size in [2, 3, 6] {
            let ranks = on_all(size, |group| step(&device, &options, group));
            for rank in &ranks {
                let off = distance(&rank.gradients, &one.gradients);
                assert!(off < 1e-6, "{size} ranks: {off}");
                let pairs = [
                    (rank.sums.nll, one.sums.nll, 1e-12),
                    (rank.evaluated, one.evaluated, 1e-12),
                    (rank.sums.grad_norm, one.sums.grad_norm, 1e-6),
                ];
                for (found, expected, limit) in pairs {
                    assert!(
                        (found / expected - 1.0).abs() < limit,
                        "{size}: {found} {expected}"
                    );
                }
                assert_eq!(rank.sums, ranks[0].sums);
                assert_eq!(rank.evaluated.to_bits(), ranks[0].evaluated.to_bits());
                assert!(rank.gradients == ranks[0].gradients, "{size} ranks differ");
            }
        }
    }
}

/// Each rank makes the same updates, stochastic rounding included: weights stay the same bits.
#[test]
fn weights_of_ranks_are_the_same_bits() {
    let Some(device) = device() else { return };
    for (method, precision) in [
        (Method::Full, Precision::Bf16Weights),
        (lora(BaseFormat::Int8, 0.25), Precision::Bf16),
    ] {
        let options = options(method, precision);
        let ranks = on_all(2, |group| {
            let mut gpu = gpu(&device, Head::Tied, options.clone(), MomentsDtype::Int8);
            journey(&mut gpu, group, 4)
        });
        assert!(ranks[0] == ranks[1], "{precision:?}");
        let losses = &ranks[0].0;
        assert!(losses[3] < losses[0], "{losses:?}");
    }
}
