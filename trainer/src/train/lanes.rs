//! Who computes what of a step. Micro-batches are dealt out to a fixed number of lanes, which run side
//! by side and have gradients of their own: far fewer meetings between threads than in splitting each
//! small product. Several processes share the lanes; sums over lanes and processes have one order.

use model::config::LlamaConfig;
use rayon::prelude::*;

use crate::dataset::Examples;
use crate::distributed::{Group, pairwise_order};
use crate::error::Result;
use crate::forward::{DropoutKey, Goal, Network};
use crate::gradients::Gradients;
use crate::pack::{MicroBatch, pack};
use crate::train::engine::StepGoal;

/// A fixed number, not the number of threads, so that sums have one order on every machine.
const NUM_LANES: usize = 4;

/// Lanes cost a gradient and activations each. In models above this many weights, frozen ones included,
/// there is one lane: the products are then large enough to be split well.
const MAX_LANE_PARAMETERS: usize = 64 << 20;

/// A step is not cut into micro-batches smaller than this to fill the lanes: products of fewer rows
/// lose more than the lanes win.
const MIN_LANE_TOKENS: usize = 384;

/// This process's lanes among those of the whole group.
#[derive(Debug)]
pub struct Lanes {
    /// One per lane of this process; the first also takes the sum.
    gradients: Vec<Gradients>,
    first: usize,
    /// Of all processes.
    total: usize,
}

/// How many lanes a process has where so many train a model of this many weights: each a gradient in
/// memory.
pub fn lanes_per_process(num_parameters: usize, num_processes: usize) -> usize {
    if num_parameters <= MAX_LANE_PARAMETERS && NUM_LANES.is_multiple_of(num_processes) {
        NUM_LANES / num_processes
    } else {
        1
    }
}

/// Lanes of all processes together: what the numbers of a run depend on.
pub fn total_lanes(config: &LlamaConfig, group: &Group) -> usize {
    group.size() * lanes_per_process(config.num_parameters(), group.size())
}

/// Packs the examples of one step so that every lane has work, within the token budget.
pub fn deal(
    chosen: &[u32],
    examples: &Examples,
    (num_lanes, max_tokens): (usize, usize),
) -> Vec<MicroBatch> {
    let inputs = |&index: &u32| examples.get(index as usize).num_inputs();
    let share = chosen.iter().map(inputs).sum::<usize>().div_ceil(num_lanes);
    pack(chosen, examples, share.max(MIN_LANE_TOKENS).min(max_tokens))
}

impl Lanes {
    pub fn new(network: &Network, group: &Group) -> Self {
        let own = lanes_per_process(network.config.num_parameters(), group.size());
        let zeros = |_| Gradients::zeros(&network.parameters);
        Self {
            gradients: (0..own).map(zeros).collect(),
            first: group.rank() * own,
            total: group.size() * own,
        }
    }

    /// Of this process.
    pub fn count(&self) -> usize {
        self.gradients.len()
    }

    /// The sum of the last [`Lanes::forward_backward`].
    pub fn gradients(&self) -> &Gradients {
        &self.gradients[0]
    }

    /// The sum of NLL over all micro-batches; computes the gradient of the goal's multiple of that sum. Both
    /// are the same bits in every process.
    pub fn forward_backward(
        &mut self,
        network: &Network,
        batches: &[MicroBatch],
        goal: StepGoal,
        group: &mut Group,
    ) -> Result<f64> {
        let (first, total) = (self.first, self.total);
        let run_lane = |(lane, gradients): (usize, &mut Gradients)| -> Result<f64> {
            gradients.clear();
            let own = batches.iter().enumerate().skip(first + lane).step_by(total);
            own.map(|(number, batch)| {
                let dropout = Some(DropoutKey::new(network.seed, goal.steps, number));
                let goal = Goal {
                    grad_scale: goal.grad_scale,
                    dropout,
                };
                network.forward_backward(batch, goal, gradients)
            })
            .sum()
        };
        let mut sums = Vec::with_capacity(self.gradients.len());
        let mut lanes: Vec<_> = self.gradients.iter_mut().enumerate().collect();
        for round in lanes.chunks_mut(lanes_at_once()) {
            let lanes = round.par_iter_mut();
            let round = lanes.map(|(lane, gradients)| run_lane((*lane, gradients)));
            sums.extend(round.collect::<Result<Vec<f64>>>()?);
        }
        for (into, from) in pairwise_order(self.gradients.len()) {
            let (head, tail) = self.gradients.split_at_mut(from);
            head[into].add(&tail[0]);
        }
        let sum = &mut self.gradients[0];
        for gradient in sum.in_order_mut() {
            group.all_reduce_sum(gradient)?;
        }
        total_of(sums, group)
    }

    /// The sum of NLL over all micro-batches; the same bits in every process.
    pub fn evaluate(
        &self,
        network: &Network,
        batches: &[MicroBatch],
        group: &mut Group,
    ) -> Result<f64> {
        let run_lane = |lane: usize| -> Result<f64> {
            let own = batches.iter().skip(lane).step_by(self.total);
            own.map(|batch| network.evaluate(batch)).sum()
        };
        let own: Vec<usize> = (self.first..self.first + self.gradients.len()).collect();
        let mut sums = Vec::with_capacity(own.len());
        for round in own.chunks(lanes_at_once()) {
            let round = round.par_iter().map(|lane| run_lane(*lane));
            sums.extend(round.collect::<Result<Vec<f64>>>()?);
        }
        total_of(sums, group)
    }
}

/// Lanes that run side by side: one for each thread. Were all of them offered at once, a thread that
/// waits for a part of its own lane would begin another one in the meantime, whose activations would
/// come on top.
pub fn lanes_at_once() -> usize {
    rayon::current_num_threads().clamp(1, NUM_LANES)
}

/// The sum over lanes and processes, in the order in which gradients are summed.
fn total_of(mut sums: Vec<f64>, group: &mut Group) -> Result<f64> {
    for (into, from) in pairwise_order(sums.len()) {
        sums[into] += sums[from];
    }
    let mut total = [sums[0]];
    group.all_reduce_sum_f64(&mut total)?;
    Ok(total[0])
}
