//! The network for training: forward, loss and backward, written by hand over the ops of `kernels`.
//! No autograd: every weight's gradient is added straight into its accumulator, and one layer's
//! temporaries are gone before the next layer's are made. Everything is f32.
//!
//! Activation checkpointing keeps each layer's input alone and computes the layer again on the way
//! back: the same ops on the same values, so the gradients are the same bits.

#![expect(non_snake_case, reason = "tensors end in their shape")]

mod head;
mod layer;

use candle_core::Tensor;
use kernels::tensor::{f32_update, f32_view};
use kernels::{Matrix, RopeTable, Segments, embedding, embedding_grad_accumulate};
use model::config::LlamaConfig;
use model::llama::rope_table;
use model::weights::Weights;

use crate::config::{AUTO_ACTIVATION_BYTES, Checkpointing};
use crate::error::Result;
use crate::gradients::Gradients;
use crate::pack::MicroBatch;
use layer::LayerActivations;

/// The model that is being trained. Its tensors are its own: the optimizer changes them in place.
#[derive(Debug)]
pub struct Network {
    pub config: LlamaConfig,
    pub weights: Weights,
    pub checkpointing: Checkpointing,
    rope: RopeTable,
}

/// A micro-batch as attention sees it.
#[derive(Debug)]
struct BatchShape<'a> {
    positions: &'a [u32],
    segments: Segments,
}

impl<'a> BatchShape<'a> {
    fn of(batch: &'a MicroBatch) -> Result<Self> {
        let segments = Segments::from_cu_seqlens(&batch.segment_bounds)?;
        Ok(Self {
            positions: &batch.positions,
            segments,
        })
    }
}

/// What a layer leaves behind for the backward pass.
enum Kept {
    Activations(LayerActivations),
    /// The layer's input, to compute the rest again.
    Input(Tensor),
}

impl Network {
    /// Takes `weights` over, in f32. Tensors that are f32 already are not copied: whoever shares them
    /// sees them change.
    pub fn new(
        config: LlamaConfig,
        weights: Weights,
        checkpointing: Checkpointing,
    ) -> Result<Self> {
        let named = weights.named();
        drop(weights);
        let tensors = named
            .into_iter()
            .map(|(_, tensor)| Ok(tensor.to_dtype(candle_core::DType::F32)?.contiguous()?));
        // A new list, since loaded weights remember the digest of their files.
        let weights = Weights::from_tensors(&config, tensors)?;
        let rope = rope_table(&config, config.max_position_embeddings);
        Ok(Self {
            config,
            weights,
            checkpointing,
            rope,
        })
    }

    /// Takes over the values of `weights`, in place.
    pub fn set_weights(&self, weights: &Weights) -> Result<()> {
        for ((_, own), (_, new)) in self.weights.named().iter().zip(weights.named()) {
            let new = f32_view("set_weights", "new", &new)?;
            f32_update("set_weights", "own", own, |own| own.copy_from_slice(&new))?;
        }
        Ok(())
    }

    /// Sum of NLL over the micro-batch's labels, in nats. The gradient of `grad_scale` times that sum
    /// is added to `gradients`: with 1 / (labels of all micro-batches of the step) they add up to the
    /// gradient of the mean.
    pub fn forward_backward(
        &self,
        batch: &MicroBatch,
        grad_scale: f32,
        gradients: &mut Gradients,
    ) -> Result<f64> {
        let shape = BatchShape::of(batch)?;
        let keep_all = self.keeps_activations(batch.num_tokens());
        let mut x_TC = embedding(&batch.token_ids, &Matrix::F32(self.weights.embed.clone()))?;
        let mut kept = Vec::with_capacity(self.weights.layers.len());
        for weights in &self.weights.layers {
            let (y_TC, activations) = layer::forward(self, weights, &shape, &x_TC)?;
            kept.push(if keep_all {
                Kept::Activations(activations)
            } else {
                Kept::Input(x_TC)
            });
            x_TC = y_TC;
        }
        let (nll, mut dx_TC) =
            head::loss_and_gradient(self, batch, &x_TC, (&mut *gradients, grad_scale))?;
        drop(x_TC);
        let layers = self.weights.layers.iter().zip(&mut gradients.layers);
        for ((weights, gradients), kept) in layers.zip(kept).rev() {
            let activations = match kept {
                Kept::Activations(activations) => activations,
                Kept::Input(x_TC) => layer::forward(self, weights, &shape, &x_TC)?.1,
            };
            dx_TC = layer::backward(self, weights, &shape, &activations, (&dx_TC, gradients))?;
        }
        embedding_grad_accumulate(&batch.token_ids, &dx_TC, &mut gradients.embed)?;
        Ok(nll)
    }

    /// Sum of NLL over the micro-batch's labels, without gradients.
    pub fn evaluate(&self, batch: &MicroBatch) -> Result<f64> {
        let shape = BatchShape::of(batch)?;
        let mut x_TC = embedding(&batch.token_ids, &Matrix::F32(self.weights.embed.clone()))?;
        for weights in &self.weights.layers {
            x_TC = layer::forward(self, weights, &shape, &x_TC)?.0;
        }
        head::loss(self, batch, &x_TC)
    }

    fn keeps_activations(&self, num_tokens: usize) -> bool {
        match self.checkpointing {
            Checkpointing::On => false,
            Checkpointing::Off => true,
            Checkpointing::Auto => self.activation_bytes(num_tokens) <= AUTO_ACTIVATION_BYTES,
        }
    }

    /// Of all layers of a micro-batch of this size, in bytes: the fields of `LayerActivations`.
    pub fn activation_bytes(&self, num_tokens: usize) -> usize {
        let config = &self.config;
        let per_token = 4 * config.hidden_size
            + 2 * config.query_size()
            + 2 * config.kv_size()
            + 3 * config.intermediate_size;
        4 * per_token * num_tokens * config.num_hidden_layers
    }
}

#[cfg(test)]
mod tests;
