//! What a fine-tuning run will need, worked out from `config.json`, the settings and the lengths of the
//! examples, before a weight is read. All sizes in bytes. No files and no printing here.

use kernels::{INT8_GROUP, Moments};
use model::config::LlamaConfig;
use model::weights::{TensorSpec, tensor_specs};

use crate::config::{BaseFormat, Checkpointing, Method, MomentsDtype, Precision, SaveDtype};
use crate::forward::{NetworkOptions, activation_bytes, layer_activation_bytes};
use crate::gpu::gpu_budget;
use crate::lora::LoraTarget;
use crate::pack::MicroBatch;
use crate::train::lanes::lanes_per_process;

/// The settings that memory depends on.
#[derive(Debug, Clone)]
pub struct Shape<'a> {
    pub config: &'a LlamaConfig,
    pub method: &'a Method,
    pub precision: Precision,
    pub moments: MomentsDtype,
    pub checkpointing: Checkpointing,
    pub save_dtype: SaveDtype,
    /// Of the rotary table.
    pub max_positions: usize,
    /// Processes that train as one, each with the whole model.
    pub num_ranks: usize,
    /// Micro-batches that a process computes at the same time, at most.
    pub lanes_at_once: usize,
    /// On a GPU: the tokens of the largest micro-batch that there is to be room for.
    pub gpu_tokens: Option<usize>,
}

/// The size of the largest micro-batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Largest {
    pub num_tokens: usize,
    pub num_labels: usize,
    /// In one optimizer step, at most: fewer than lanes leave lanes idle.
    pub num_micro_batches: usize,
}

impl Largest {
    /// Takes the micro-batches of one more step into account.
    pub fn add(&mut self, step: &[MicroBatch]) {
        self.num_micro_batches = self.num_micro_batches.max(step.len());
        for batch in step {
            self.num_tokens = self.num_tokens.max(batch.num_tokens());
            self.num_labels = self.num_labels.max(batch.num_labels());
        }
    }
}

/// A run's memory, part by part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Budget {
    pub num_parameters: usize,
    pub num_trained: usize,
    /// Trained and frozen, and the rotary table.
    pub weights: usize,
    pub gradients: usize,
    pub moments: usize,
    /// At the moment of a step in which they are largest, temporaries included.
    pub activations: usize,
    /// What a save holds besides: one tensor at a time.
    pub saving: usize,
    /// Weights, gradients, moments, and the larger of activations and saving.
    pub peak: usize,
}

impl Budget {
    /// `trained` and `evaluated`: the largest micro-batches of steps and of validation.
    pub fn new(shape: &Shape<'_>, trained: Largest, evaluated: Largest) -> Self {
        if let Some(num_tokens) = shape.gpu_tokens {
            let options = NetworkOptions {
                method: shape.method.clone(),
                precision: shape.precision,
                checkpointing: shape.checkpointing,
                max_positions: shape.max_positions,
                ..NetworkOptions::default()
            };
            return gpu_budget(shape.config, &options, shape.moments, num_tokens);
        }
        let specs = tensor_specs(shape.config);
        let num_parameters = specs.iter().map(TensorSpec::num_elements).sum();
        let mut budget = Self {
            num_parameters,
            num_trained: 0,
            weights: 0,
            gradients: 0,
            moments: 0,
            activations: 0,
            saving: 0,
            peak: 0,
        };
        for spec in &specs {
            budget.add_weight(shape, spec);
        }
        let num_lanes = lanes_per_process(num_parameters, shape.num_ranks);
        budget.gradients = num_lanes * 4 * budget.num_trained;
        let lanes = num_lanes.min(shape.lanes_at_once);
        let at_once = |largest: Largest| lanes.min(largest.num_micro_batches);
        let training = at_once(trained) * micro_batch_bytes(shape, trained);
        let evaluation = at_once(evaluated) * evaluation_bytes(shape.config, evaluated);
        budget.activations = training.max(evaluation);
        // Cosine and sine of half a head for each position.
        budget.weights += 4 * shape.config.head_dim * shape.max_positions;
        budget.saving = saving_bytes(shape, &specs);
        budget.peak = budget.weights
            + budget.gradients
            + budget.moments
            + budget.activations.max(budget.saving);
        budget
    }

    fn add_weight(&mut self, shape: &Shape<'_>, spec: &TensorSpec) {
        let count = spec.num_elements();
        let is_matrix = spec.shape.len() == 2;
        let Method::Lora(lora) = shape.method else {
            let narrow = is_matrix && shape.precision == Precision::Bf16Weights;
            self.weights += if narrow { 2 * count } else { 4 * count };
            self.add_trained(shape, count);
            return;
        };
        let is_table = spec.name.contains("embed_tokens") || spec.name.contains("lm_head");
        self.weights += match lora.base {
            BaseFormat::Bf16 if is_matrix => 2 * count,
            BaseFormat::Int8 if is_matrix && is_table => 2 * count,
            // One f32 scale for each group of inputs.
            BaseFormat::Int8 if is_matrix => {
                count + 4 * spec.shape[0] * spec.shape[1].div_ceil(INT8_GROUP)
            }
            _ => 4 * count,
        };
        let is_target = |target: &&LoraTarget| spec.name.contains(target.module());
        if is_matrix && lora.targets.iter().any(|target| is_target(&target)) {
            for count in [lora.rank * spec.shape[1], spec.shape[0] * lora.rank] {
                self.weights += 4 * count;
                self.add_trained(shape, count);
            }
        }
    }

    fn add_trained(&mut self, shape: &Shape<'_>, count: usize) {
        self.num_trained += count;
        self.moments += Moments::num_bytes(shape.moments.format(), count);
    }
}

/// What a forward and backward pass over one micro-batch holds at its height.
fn micro_batch_bytes(shape: &Shape<'_>, largest: Largest) -> usize {
    let config = shape.config;
    let tokens = largest.num_tokens;
    let (hidden, mlp) = (config.hidden_size, config.intermediate_size);
    let lanes = lanes_per_process(config.num_parameters(), 1).min(shape.lanes_at_once);
    let keeps = shape
        .checkpointing
        .keeps(lanes * activation_bytes(config, tokens));
    let kept = if keeps {
        activation_bytes(config, tokens)
    } else {
        4 * hidden * tokens * config.num_hidden_layers
    };
    let again = if keeps {
        0
    } else {
        layer_activation_bytes(config, tokens)
    };
    // dy, d(inner), d(gate), d(up) of the MLP's way back; the forward pass of a layer whose
    // activations are not kept holds less.
    let dropped = match shape.method {
        // The input of an adapter with values left out, and its gradient twice.
        Method::Lora(lora) if lora.dropout > 0.0 => 3 * mlp,
        _ => 0,
    };
    let layer = again + 4 * tokens * (hidden + 3 * mlp + dropped);
    kept + layer.max(head_bytes(config, largest))
}

/// What an evaluation of one micro-batch holds at its height: one layer's forward pass, or the head.
fn evaluation_bytes(config: &LlamaConfig, largest: Largest) -> usize {
    let layer = layer_activation_bytes(config, largest.num_tokens);
    layer.max(head_bytes(config, largest))
}

/// Hidden states and their gradients of label rows and of all rows, and a chunk of logits.
fn head_bytes(config: &LlamaConfig, largest: Largest) -> usize {
    let (labels, tokens) = (largest.num_labels, largest.num_tokens);
    let logits = kernels::logit_chunk_bytes(labels, config.vocab_size);
    4 * config.hidden_size * (4 * labels + 2 * tokens) + logits
}

/// The largest tensor in f32 and as it is written.
fn saving_bytes(shape: &Shape<'_>, specs: &[TensorSpec]) -> usize {
    let largest = specs.iter().map(TensorSpec::num_elements).max();
    largest.unwrap_or(0) * (4 + shape.save_dtype.stored().size())
}

#[cfg(test)]
pub(crate) mod tests;
