//! AdamW over all weights, in place, with f32 moments. The arithmetic of one step is
//! `kernels::adamw_step`; here live the moments, the step count and which weights decay.

use candle_core::Tensor;
use kernels::tensor::f32_update;
use kernels::{AdamWStep, adamw_step};
use model::config::LlamaConfig;
use model::weights::{Weights, tensor_specs};

use crate::config::OptimizerConfig;
use crate::error::Result;
use crate::gradients::Gradients;

/// Moments of every weight, in the order of `model::weights::tensor_specs`.
#[derive(Debug)]
pub struct Optimizer {
    config: OptimizerConfig,
    /// Updates made. Bias correction counts these, not the skipped steps.
    pub num_updates: u64,
    pub moments: Vec<Moments>,
}

/// Running means of a weight's gradient and of its square.
#[derive(Debug)]
pub struct Moments {
    pub name: String,
    pub first: Vec<f32>,
    pub second: Vec<f32>,
    /// Weight decay is for matrices; a norm's weight near 0 would switch its channel off.
    decays: bool,
}

impl Optimizer {
    pub fn new(config: OptimizerConfig, architecture: &LlamaConfig) -> Self {
        let moments = tensor_specs(architecture)
            .into_iter()
            .map(|spec| Moments {
                first: vec![0.0; spec.num_elements()],
                second: vec![0.0; spec.num_elements()],
                decays: spec.shape.len() >= 2,
                name: spec.name,
            })
            .collect();
        Self {
            config,
            num_updates: 0,
            moments,
        }
    }

    /// One update of `weights` in place. `gradients` are averages over the window; `grad_norm` is
    /// their global norm, by which they are clipped.
    pub fn step(
        &mut self,
        weights: &Weights,
        gradients: &Gradients,
        (lr, grad_norm): (f64, f64),
    ) -> Result<()> {
        self.num_updates += 1;
        // The small constant is PyTorch's (clip_grad_norm_): no division by zero.
        let clip = (self.config.max_grad_norm / (grad_norm + 1e-6)).min(1.0);
        let parameters: Vec<(String, Tensor)> = weights.named();
        let all = parameters
            .iter()
            .zip(gradients.in_order())
            .zip(&mut self.moments);
        for (((_, weight), gradient), moments) in all {
            let step = AdamWStep {
                lr,
                beta1: self.config.beta1,
                beta2: self.config.beta2,
                eps: self.config.eps,
                weight_decay: if moments.decays {
                    self.config.weight_decay
                } else {
                    0.0
                },
                step: self.num_updates,
                grad_scale: clip as f32,
            };
            let Moments { first, second, .. } = moments;
            let mut outcome = Ok(());
            f32_update("adamw_step", "param", weight, |values| {
                outcome = adamw_step(values, gradient, first, second, &step);
            })?;
            outcome?;
        }
        Ok(())
    }
}
