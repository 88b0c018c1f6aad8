//! AdamW over all parameters, in place. The arithmetic of one step is `kernels::adamw_step`; here live
//! the moments, the step count and which parameters decay.

use kernels::{AdamWStep, Moments, Rounding, adamw_step};

use crate::config::OptimizerConfig;
use crate::error::Result;
use crate::gradients::Gradients;
use crate::rng::{CounterRng, Stream};
use crate::train::engine::Update;
use crate::weights::{Parameter, Slot};

/// Moments of every parameter, in the order of the network's list.
#[derive(Debug)]
pub struct Optimizer {
    config: OptimizerConfig,
    /// For stochastic rounding.
    seed: u64,
    pub moments: Vec<Moments>,
}

impl Optimizer {
    pub fn new(config: OptimizerConfig, seed: u64, parameters: &[Parameter]) -> Self {
        let format = config.moments.format();
        let moments = parameters
            .iter()
            .map(|parameter| Moments::zeros(format, parameter.num_elements()))
            .collect();
        Self {
            config,
            seed,
            moments,
        }
    }

    /// One update of `parameters` in place. `gradients` are averages over the window. Bias correction
    /// and rounding count the updates, not the skipped steps.
    pub fn step(
        &mut self,
        parameters: &[Parameter],
        gradients: &Gradients,
        update: &Update,
    ) -> Result<()> {
        let all = parameters
            .iter()
            .zip(gradients.in_order())
            .zip(&mut self.moments)
            .enumerate();
        for (number, ((parameter, gradient), moments)) in all {
            let decay = if parameter.decays {
                self.config.weight_decay
            } else {
                0.0
            };
            let step = numbers(&self.config, decay, update);
            let rounding = rounding(self.seed, Slot(number), update);
            adamw_step(&parameter.values, gradient, moments, &step, rounding)?;
        }
        Ok(())
    }
}

/// The numbers of an update for a parameter with this weight decay, clipping included.
pub(crate) fn numbers(config: &OptimizerConfig, weight_decay: f64, update: &Update) -> AdamWStep {
    // The small constant is PyTorch's (clip_grad_norm_): no division by zero.
    let clip = (config.max_grad_norm / (update.grad_norm + 1e-6)).min(1.0);
    AdamWStep {
        lr: update.lr,
        beta1: config.beta1,
        beta2: config.beta2,
        eps: config.eps,
        weight_decay,
        step: update.number,
        grad_scale: clip as f32,
    }
}

/// The random bits of an update for a parameter.
pub(crate) fn rounding(seed: u64, slot: Slot, update: &Update) -> Rounding {
    let stream = Stream::Rounding {
        parameter: slot.0 as u32,
    };
    Rounding {
        key: CounterRng::new(seed, stream).bits(update.number),
    }
}
