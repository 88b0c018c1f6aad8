//! AdamW over all parameters, in place. The arithmetic of one step is `kernels::adamw_step`; here live
//! the moments, the step count and which parameters decay.

use kernels::{AdamWStep, Moments, Rounding, adamw_step};

use crate::config::OptimizerConfig;
use crate::error::Result;
use crate::gradients::Gradients;
use crate::rng::{CounterRng, Stream};
use crate::weights::Parameter;

/// Moments of every parameter, in the order of the network's list.
#[derive(Debug)]
pub struct Optimizer {
    config: OptimizerConfig,
    /// For stochastic rounding.
    seed: u64,
    /// Updates made. Bias correction counts these, not the skipped steps.
    pub num_updates: u64,
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
            num_updates: 0,
            moments,
        }
    }

    /// One update of `parameters` in place. `gradients` are averages over the window; `grad_norm` is
    /// their global norm, by which they are clipped.
    pub fn step(
        &mut self,
        parameters: &[Parameter],
        gradients: &Gradients,
        (lr, grad_norm): (f64, f64),
    ) -> Result<()> {
        self.num_updates += 1;
        // The small constant is PyTorch's (clip_grad_norm_): no division by zero.
        let clip = (self.config.max_grad_norm / (grad_norm + 1e-6)).min(1.0);
        let all = parameters
            .iter()
            .zip(gradients.in_order())
            .zip(&mut self.moments)
            .enumerate();
        for (number, ((parameter, gradient), moments)) in all {
            let step = AdamWStep {
                lr,
                beta1: self.config.beta1,
                beta2: self.config.beta2,
                eps: self.config.eps,
                weight_decay: if parameter.decays {
                    self.config.weight_decay
                } else {
                    0.0
                },
                step: self.num_updates,
                grad_scale: clip as f32,
            };
            let stream = Stream::Rounding {
                parameter: number as u32,
            };
            let rounding = Rounding {
                key: CounterRng::new(self.seed, stream).bits(self.num_updates),
            };
            adamw_step(&parameter.values, gradient, moments, &step, rounding)?;
        }
        Ok(())
    }
}
