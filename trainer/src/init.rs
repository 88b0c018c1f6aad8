//! The first values of a new model: normal(0, 0.02), the projections that write into the residual
//! stream scaled by 1/sqrt(2·layers) so that the stream's variance does not grow with depth (GPT-2),
//! norms at 1. A function of the seed alone.

use candle_core::{Device, Tensor};
use model::config::LlamaConfig;
use model::weights::{Weights, tensor_specs};

use crate::error::Result;
use crate::rng::{CounterRng, Stream};

const STANDARD_DEVIATION: f64 = 0.02;

pub fn random_weights(config: &LlamaConfig, seed: u64) -> Result<Weights> {
    let residual = STANDARD_DEVIATION / (2.0 * config.num_hidden_layers as f64).sqrt();
    let tensors = tensor_specs(config)
        .into_iter()
        .enumerate()
        .map(|(index, spec)| {
            let count = spec.num_elements() as u64;
            let rng = CounterRng::new(
                seed,
                Stream::Init {
                    parameter: index as u32,
                },
            );
            let writes_residual = spec.name.contains("o_proj") || spec.name.contains("down_proj");
            let deviation = if writes_residual {
                residual
            } else {
                STANDARD_DEVIATION
            };
            let values: Vec<f32> = match spec.shape.len() {
                1 => vec![1.0; count as usize],
                _ => (0..count)
                    .map(|at| (deviation * rng.normal(at)) as f32)
                    .collect(),
            };
            Ok(Tensor::from_vec(values, spec.shape, &Device::Cpu)?)
        });
    Ok(Weights::from_tensors(config, tensors)?)
}
