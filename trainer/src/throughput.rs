//! Arithmetic of a step and of a machine: model FLOPs by formula, and the peak they are divided by.

use std::time::{Duration, Instant};

use candle_core::{Device, Tensor};
use kernels::{Compute, Matrix, linear};
use model::config::LlamaConfig;

use crate::config::Method;
use crate::error::Result;
use crate::train::engine::{Engine, ParameterSpec};

/// Model FLOPs, as in Chowdhery et al. 2022 (PaLM), appendix B: for each token 2 per weight in the
/// forward pass and 4 in the backward one, and the same threefold for attention. Attention is counted
/// over the keys that a token sees, not over a whole square. Weights that only look up (an embedding
/// that is not the output head, too) do not count; the output head counts for every token, also where
/// it is computed on label rows only. What is computed again for the backward pass does not count.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ModelFlops {
    per_token: f64,
    /// For one query and one key it sees, over all layers.
    per_attention_pair: f64,
}

impl ModelFlops {
    /// Of this network trained by this method, with so many trained weights. Nothing but the gradient
    /// that passes through is computed for frozen weights: 4 instead of 6.
    pub fn new(config: &LlamaConfig, method: &Method, num_trained: usize) -> Self {
        let looked_up = if config.tie_word_embeddings {
            0
        } else {
            config.vocab_size * config.hidden_size
        };
        let base = (config.num_parameters() - looked_up) as f64;
        let heads = config.num_hidden_layers * config.num_attention_heads * config.head_dim;
        Self {
            per_token: match method {
                Method::Full => 6.0 * base,
                Method::Lora(_) => 4.0 * base + 6.0 * num_trained as f64,
            },
            // Scores and weighted sum, 2 each, three times.
            per_attention_pair: 12.0 * heads as f64,
        }
    }

    /// Of this model as it is trained.
    pub fn of(engine: &dyn Engine) -> Self {
        let parameters = engine.parameters();
        let trained = parameters.iter().map(ParameterSpec::num_elements);
        Self::new(engine.config(), engine.method(), trained.sum())
    }

    pub fn of_step(&self, num_tokens: u64, num_attention_pairs: u64) -> f64 {
        self.per_token * num_tokens as f64 + self.per_attention_pair * num_attention_pairs as f64
    }
}

/// Enough for a few dozen products on two cores.
const MEASURED_FOR: Duration = Duration::from_millis(200);

/// The rate of our own product of this kind on this machine, in TFLOP/s: the best of several of a size that
/// fits the caches, on all threads of the current pool. It is no data sheet's number: an MFU against
/// it says how much of a step is spent at the speed of the step's best part.
pub fn measured_cpu_tflops(compute: Compute) -> Result<f64> {
    const ROWS: usize = 512;
    const WIDTH: usize = 1024;
    let filled = |rows: usize| Tensor::full(0.5_f32, (rows, WIDTH), &Device::Cpu);
    let (x, weight) = (filled(ROWS)?, Matrix::F32(filled(WIDTH)?));
    let flop = 2.0 * (ROWS * WIDTH * WIDTH) as f64;
    let started = Instant::now();
    let mut best = Duration::MAX;
    while started.elapsed() < MEASURED_FOR {
        let one = Instant::now();
        linear(&x, &weight, compute)?;
        best = best.min(one.elapsed());
    }
    Ok(flop / best.as_secs_f64().max(1e-9) / 1e12)
}

#[cfg(test)]
mod tests;
