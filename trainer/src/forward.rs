//! The network for training: forward, loss and backward, written by hand over the ops of `kernels`.
//! No autograd: every weight's gradient is added straight into its accumulator, and one layer's
//! temporaries are gone before the next layer's are made. Activations, sums and gradients are f32.
//!
//! Activation checkpointing keeps each layer's input alone and computes the layer again on the way
//! back: the same ops on the same values, so the gradients are the same bits.

#![expect(non_snake_case, reason = "tensors end in their shape")]

mod head;
mod layer;
mod linear;

use candle_core::Tensor;
use kernels::tensor::{f32_update, f32_view};
use kernels::{Compute, RopeTable, Segments, embedding, embedding_grad_accumulate};
use model::config::LlamaConfig;
use model::llama::rope_table;
use model::weights::{TensorSpec, Weights, tensor_specs};
use rayon::prelude::*;

use crate::config::{Checkpointing, Method, Precision};
use crate::error::Result;
use crate::gradients::Gradients;
use crate::pack::MicroBatch;
use crate::rng::{CounterRng, Stream};
use crate::train::lanes::{lanes_at_once, lanes_per_process};
use crate::weights::{Builder, NetworkWeights, Parameter};
use layer::LayerActivations;

/// The model that is being trained. Its tensors are its own: the optimizer changes them in place.
#[derive(Debug)]
pub struct Network {
    pub config: LlamaConfig,
    pub weights: NetworkWeights,
    /// What is trained, in the order of gradients and moments.
    pub parameters: Vec<Parameter>,
    pub method: Method,
    pub precision: Precision,
    pub checkpointing: Checkpointing,
    /// Part of each label's probability that is spread over the vocabulary, as PyTorch's.
    pub label_smoothing: f32,
    /// For dropout.
    pub seed: u64,
    rope: RopeTable,
    /// Of one process.
    num_lanes: usize,
}

/// How a network is trained, beside what its config says.
#[derive(Debug, Clone)]
pub struct NetworkOptions {
    pub method: Method,
    pub precision: Precision,
    pub checkpointing: Checkpointing,
    pub label_smoothing: f32,
    /// For the first values of adapters, and for dropout.
    pub seed: u64,
    /// No example is longer; a model's own limit may be far above (a table of 64 MiB for Llama 3.2).
    pub max_positions: usize,
}

impl Default for NetworkOptions {
    /// Full fine-tuning in f32.
    fn default() -> Self {
        Self {
            method: Method::Full,
            precision: Precision::F32,
            checkpointing: Checkpointing::Auto,
            label_smoothing: 0.0,
            seed: 0,
            max_positions: usize::MAX,
        }
    }
}

/// Makes a pass draw its dropout: a function of (seed, step, micro-batch), so that a resumed run draws
/// the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DropoutKey(pub u64);

impl DropoutKey {
    /// For micro-batch `number` of the step after `steps` steps.
    pub fn new(seed: u64, steps: u64, number: usize) -> Self {
        let stream = Stream::MicroBatch {
            number: number as u32,
        };
        Self(CounterRng::new(seed, stream).bits(steps))
    }
}

/// What one training pass over a micro-batch is to compute.
#[derive(Debug, Clone, Copy)]
pub struct Goal {
    /// The gradient is that of this multiple of the loss sum: with 1 / (labels of all micro-batches of
    /// the step) they add up to the gradient of the mean.
    pub grad_scale: f32,
    /// `None`: nothing is left out.
    pub dropout: Option<DropoutKey>,
}

/// A micro-batch on its way through the layers.
#[derive(Debug)]
struct Pass<'a> {
    positions: &'a [u32],
    segments: Segments,
    compute: Compute,
    dropout: Option<DropoutKey>,
}

/// What a layer leaves behind for the backward pass.
enum Kept {
    Activations(LayerActivations),
    /// The layer's input, to compute the rest again.
    Input(Tensor),
}

impl Network {
    /// Takes over one f32 tensor per entry of `model::weights::tensor_specs`, in that order. Where it
    /// stays f32 it is not copied: whoever shares it sees it change.
    pub fn new(
        config: LlamaConfig,
        tensors: impl IntoIterator<Item = Result<(TensorSpec, Tensor)>>,
        options: NetworkOptions,
    ) -> Result<Self> {
        let builder = Builder::new(&options.method, options.precision, options.seed);
        let (weights, parameters) = builder.build(&config, tensors)?;
        let positions = config.max_position_embeddings.min(options.max_positions);
        let rope = rope_table(&config, positions);
        Ok(Self {
            num_lanes: lanes_per_process(config.num_parameters(), 1),
            config,
            weights,
            parameters,
            method: options.method,
            precision: options.precision,
            checkpointing: options.checkpointing,
            label_smoothing: options.label_smoothing,
            seed: options.seed,
            rope,
        })
    }

    /// Sum of NLL over the micro-batch's labels, in nats. The gradient of the goal's multiple of the
    /// loss sum (equal to it but for label smoothing) is added to `gradients`.
    pub fn forward_backward(
        &self,
        batch: &MicroBatch,
        goal: Goal,
        gradients: &mut Gradients,
    ) -> Result<f64> {
        let pass = self.pass(batch, goal.dropout)?;
        let keep_all = self.keeps_activations(batch.num_tokens());
        let embed = &self.weights.embed;
        let mut x_TC = embedding(&batch.token_ids, &embed.matrix)?;
        let mut kept = Vec::with_capacity(self.weights.layers.len());
        for weights in &self.weights.layers {
            let (y_TC, activations) = layer::forward_layer(self, weights, &pass, &x_TC)?;
            kept.push(if keep_all {
                Kept::Activations(activations)
            } else {
                Kept::Input(x_TC)
            });
            x_TC = y_TC;
        }
        let (loss, mut dx_TC) = head::loss_and_gradient(
            self,
            (batch, &pass),
            &x_TC,
            (&mut *gradients, goal.grad_scale),
        )?;
        drop(x_TC);
        for (weights, kept) in self.weights.layers.iter().zip(kept).rev() {
            let activations = match kept {
                Kept::Activations(activations) => activations,
                Kept::Input(x_TC) => layer::forward_layer(self, weights, &pass, &x_TC)?.1,
            };
            let upstream = (dx_TC, &mut *gradients);
            dx_TC = layer::backward_layer(self, weights, &pass, &activations, upstream)?;
        }
        if let Some(slot) = embed.slot {
            embedding_grad_accumulate(&batch.token_ids, &dx_TC, gradients.get_mut(slot))?;
        }
        Ok(loss.nll_sum)
    }

    /// Sum of NLL over the micro-batch's labels, without gradients, dropout and label smoothing.
    pub fn evaluate(&self, batch: &MicroBatch) -> Result<f64> {
        let pass = self.pass(batch, None)?;
        let mut x_TC = embedding(&batch.token_ids, &self.weights.embed.matrix)?;
        for weights in &self.weights.layers {
            x_TC = layer::forward_layer(self, weights, &pass, &x_TC)?.0;
        }
        head::loss(self, (batch, &pass), &x_TC)
    }

    fn pass<'a>(&self, batch: &'a MicroBatch, dropout: Option<DropoutKey>) -> Result<Pass<'a>> {
        Ok(Pass {
            positions: &batch.positions,
            segments: Segments::from_cu_seqlens(&batch.segment_bounds)?,
            compute: self.precision.compute(),
            dropout,
        })
    }

    fn keeps_activations(&self, num_tokens: usize) -> bool {
        let at_once = self.num_lanes.min(lanes_at_once());
        let bytes = at_once * activation_bytes(&self.config, num_tokens);
        self.checkpointing.keeps(bytes)
    }
}

/// Weights in memory as [`Network::new`] takes them over; shared, not copied.
pub fn tensors_of(
    config: &LlamaConfig,
    weights: &Weights,
) -> impl Iterator<Item = Result<(TensorSpec, Tensor)>> + use<> {
    let tensors = weights.named().into_iter().map(|(_, tensor)| tensor);
    tensor_specs(config).into_iter().zip(tensors).map(Ok)
}

/// Of all layers of a micro-batch of this size, in bytes: the fields of `LayerActivations`.
pub fn activation_bytes(config: &LlamaConfig, num_tokens: usize) -> usize {
    layer_activation_bytes(config, num_tokens) * config.num_hidden_layers
}

/// Of one layer.
pub fn layer_activation_bytes(config: &LlamaConfig, num_tokens: usize) -> usize {
    let per_token = 4 * config.hidden_size
        + 2 * config.query_size()
        + 2 * config.kv_size()
        + 3 * config.intermediate_size;
    4 * per_token * num_tokens
}

/// Values one task adds: enough to be worth handing to another thread.
const SUM_TASK: usize = 1 << 15;

/// own += other. Not candle's `+`: that hands every addition to a pool of its own whose threads spin
/// while they wait, which took a third of a small model's step.
fn add_into(own: &Tensor, other: &Tensor) -> Result<()> {
    let other = f32_view("add_into", "other", other)?;
    Ok(f32_update("add_into", "own", own, |own| {
        own.par_chunks_mut(SUM_TASK)
            .zip(other.par_chunks(SUM_TASK))
            .for_each(|(own, other)| {
                own.iter_mut()
                    .zip(other)
                    .for_each(|(own, other)| *own += other);
            });
    })?)
}

#[cfg(test)]
mod tests;
