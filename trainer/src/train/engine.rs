//! What computes a run's steps: the CPU ([`super::cpu`]) or a GPU (`crate::gpu`). The loop, checkpoints
//! and resume know nothing else of the model, and nothing of where it lies. Values cross this border
//! one parameter at a time, so that no second copy of a whole model is ever made.

use std::borrow::Cow;
use std::fmt::Debug;

use candle_core::{DType, Tensor};
use kernels::Moments;
use model::config::LlamaConfig;

use crate::config::Method;
use crate::distributed::Group;
use crate::error::Result;
use crate::pack::MicroBatch;
use crate::weights::Slot;

/// What a checkpoint must know of a tensor that is trained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParameterSpec {
    /// Hugging Face's name, or PEFT's where it is an adapter's.
    pub name: String,
    pub shape: Vec<usize>,
    /// f32 or bf16.
    pub dtype: DType,
}

impl ParameterSpec {
    pub fn num_elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// What a step's micro-batches are to be computed for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepGoal {
    /// Steps before this one: dropout depends on it.
    pub steps: u64,
    /// 1 / (labels of all micro-batches), for the gradient of the mean.
    pub grad_scale: f32,
}

/// What the micro-batches of a step come to; equal bits in every process of the group.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepSums {
    /// Over all labels, in nats.
    pub nll: f64,
    /// Of the gradient.
    pub grad_norm: f64,
}

/// One optimizer step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Update {
    /// Counts the updates from 1; skipped steps make none.
    pub number: u64,
    pub lr: f64,
    /// The gradient is scaled down where this is above the maximum.
    pub grad_norm: f64,
}

/// A model in training, with its gradients and moments.
pub trait Engine: Debug {
    fn config(&self) -> &LlamaConfig;

    fn method(&self) -> &Method;

    /// What is trained, in the order of slots.
    fn parameters(&self) -> Vec<ParameterSpec>;

    /// Micro-batches are dealt out to the lanes of all processes; each process has so many.
    fn num_lanes(&self) -> usize;

    /// Computes the gradient of the goal's multiple of the sum of NLL (with label smoothing: of the loss)
    /// over the micro-batches, and keeps it for [`Engine::update`].
    fn forward_backward(
        &mut self,
        batches: &[MicroBatch],
        goal: StepGoal,
        group: &mut Group,
    ) -> Result<StepSums>;

    /// Changes the parameters by the gradient of the last [`Engine::forward_backward`].
    fn update(&mut self, update: &Update) -> Result<()>;

    /// The sum of NLL over the micro-batches, without dropout and label smoothing.
    fn evaluate(&mut self, batches: &[MicroBatch], group: &mut Group) -> Result<f64>;

    /// Weight `number` of `model::weights::tensor_specs` as a plain checkpoint has it, row-major:
    /// adapters are merged.
    fn merged(&self, number: usize) -> Result<Vec<f32>>;

    /// A parameter's values, on the host; whoever gets them must not change them.
    fn values(&self, slot: Slot) -> Result<Tensor>;

    /// A parameter's moments, on the host.
    fn moments(&self, slot: Slot) -> Result<Cow<'_, Moments>>;

    /// Replaces a parameter's values by those of a host tensor of its shape and type.
    fn set_values(&mut self, slot: Slot, values: &Tensor) -> Result<()>;

    /// Replaces a parameter's moments, of the same format and length.
    fn set_moments(&mut self, slot: Slot, moments: Moments) -> Result<()>;
}
