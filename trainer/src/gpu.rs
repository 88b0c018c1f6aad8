//! Training on a GPU: forward, backward and the optimizer by hand, as `crate::forward` does them on the
//! CPU, with everything in the GPU's memory. The host hands micro-batches over and reads two numbers a
//! step: loss and gradient norm. Products take bf16 factors; sums, the residual stream, gradients and
//! (with `--precision bf16`) the weights that are trained are f32; the frozen ones may be int8. Of several
//! processes each has a GPU with the whole model and takes its share of the micro-batches; gradients are
//! summed, and all make the same update.

mod budget;
mod buffers;
mod head;
mod inputs;
mod layer;
mod layout;
mod linear;
mod moments;
mod peak;
mod rope;
mod weights;

use std::borrow::Cow;

use candle_core::Tensor;
use cuda::{AdamWParameter, CudaSlice, Device, LossGradient, Summed, TokensById};
use kernels::Moments;
use model::config::LlamaConfig;
use model::gpu::{WeightElement, check_config};
use model::llama::rope_table;
use model::weights::TensorSpec;

use self::budget::check_memory;
pub(crate) use self::budget::gpu_budget;
use self::buffers::{Buffers, Capacity};
use self::inputs::{Inputs, Part};
use self::layer::Pass;
use self::linear::Products;
use self::moments::DeviceMoments;
pub(crate) use self::peak::peak_tflops;
use self::rope::Rope;
use self::weights::{Gradients, Weights};
use crate::config::{Method, OptimizerConfig};
use crate::distributed::Group;
use crate::error::Result;
use crate::forward::{DropoutKey, NetworkOptions};
use crate::lora::LoraConfig;
use crate::optimizer::{numbers, rounding};
use crate::pack::MicroBatch;
use crate::train::engine::{Engine, ParameterSpec, StepGoal, StepSums, Update};
use crate::weights::Slot;

/// A model that is trained by one GPU.
#[derive(Debug)]
pub struct GpuEngine {
    model: Model,
    optimizer: OptimizerConfig,
    gradients: Gradients,
    /// In the order of slots.
    moments: Vec<DeviceMoments>,
    /// What 8-bit moments mean.
    moment_tables: CudaSlice<f32>,
    buffers: Buffers,
    /// The sum of NLL and that of the gradient's squares, read at once.
    totals: CudaSlice<f64>,
}

/// What passes only read.
#[derive(Debug)]
struct Model {
    device: Device,
    config: LlamaConfig,
    options: NetworkOptions,
    rope: Rope,
    weights: Weights,
}

/// Places of the two sums.
const NLL: usize = 0;
const SQUARES: usize = 1;

impl GpuEngine {
    /// Takes over one f32 tensor per entry of `model::weights::tensor_specs`, in that order. All memory
    /// that steps need is taken here; `max_tokens` is the size of the largest micro-batch.
    ///
    /// # Errors
    /// Sizes of a model that the kernels do not take, before a tensor is asked for; a GPU without the
    /// memory.
    pub fn new(
        device: Device,
        config: LlamaConfig,
        tensors: impl IntoIterator<Item = Result<(TensorSpec, Tensor)>>,
        (options, optimizer): (NetworkOptions, OptimizerConfig),
        max_tokens: usize,
    ) -> Result<Self> {
        check_config(&config, WeightElement::Float)?;
        let budget = gpu_budget(&config, &options, optimizer.moments, max_tokens);
        check_memory(&device, &budget)?;
        let kind = (&options.method, options.precision, options.seed);
        let weights = Weights::new(&device, &config, kind, tensors)?;
        let gradients = Gradients::zeros(&device, &weights.layout)?;
        let format = optimizer.moments.format();
        let parameters = weights.layout.parameters.iter();
        let moments = parameters
            .map(|parameter| DeviceMoments::zeros(&device, format, parameter.spec.num_elements()))
            .collect::<Result<_>>()?;
        let positions = config.max_position_embeddings.min(options.max_positions);
        let rope = Rope::new(&device, &rope_table(&config, positions))?;
        let capacity = Capacity {
            num_tokens: max_tokens,
            lora: lora(&options.method),
        };
        let buffers = Buffers::new(&device, &config, capacity, options.checkpointing)?;
        Ok(Self {
            totals: device.zeros(2)?,
            moment_tables: device.upload(&kernels::moment_tables())?,
            model: Model {
                device,
                config,
                options,
                rope,
                weights,
            },
            optimizer,
            gradients,
            moments,
            buffers,
        })
    }

    /// The gradient of one micro-batch is added to those before it, its NLL to the total.
    fn add_batch(&mut self, batch: &MicroBatch, goal: StepGoal, number: usize) -> Result<()> {
        let Self {
            model,
            gradients,
            buffers,
            totals,
            ..
        } = self;
        let inputs = Inputs::new(&model.device, batch)?;
        let dropout = DropoutKey::new(model.options.seed, goal.steps, number);
        let pass = model.pass(&inputs, Some(dropout));
        model.forward(&pass, buffers)?;
        let of = LossGradient {
            scale: goal.grad_scale,
            smoothing: model.options.label_smoothing,
        };
        let layout = &model.weights.layout;
        let to = (&mut *gradients, &mut totals.slice_mut(NLL..=NLL));
        head::loss_and_gradient(&pass, layout, buffers, of, to)?;
        let computes_again = buffers.computes_again();
        for (number, layer) in layout.layers.iter().enumerate().rev() {
            let mut buffers = buffers.layer(number);
            if computes_again {
                layer::forward(&pass, layer, &mut buffers)?;
            }
            layer::backward(&pass, layer, &mut buffers, gradients)?;
        }
        if let Some(mut table) = gradients.of(layout.embed.gradient.as_ref()) {
            let width = model.config.hidden_size;
            let dx = buffers.scratch.dx.slice(..inputs.num_tokens * width);
            let tokens = TokensById {
                ids: &inputs.part(Part::TokenIds),
                order: &inputs.part(Part::ByIdOrder),
                starts: &inputs.part(Part::ByIdStarts),
            };
            cuda::embedding_backward(&model.device, &dx, tokens, &mut table, width)?;
        }
        Ok(())
    }
}

impl Model {
    fn pass<'a>(&'a self, inputs: &'a Inputs, dropout: Option<DropoutKey>) -> Pass<'a> {
        Pass {
            device: &self.device,
            config: &self.config,
            products: Products {
                device: &self.device,
                weights: &self.weights,
                lora: lora(&self.options.method),
                dropout,
            },
            inputs,
            rope: &self.rope,
        }
    }

    /// From token ids to the stream after the last layer.
    fn forward(&self, pass: &Pass<'_>, buffers: &mut Buffers) -> Result<()> {
        let layout = &self.weights.layout;
        let width = self.config.hidden_size;
        let mut x = buffers.x[0].slice_mut(..pass.inputs.num_tokens * width);
        let table = self.weights.matrix(&layout.embed);
        let ids = pass.inputs.part(Part::TokenIds);
        cuda::embedding(&self.device, &table, &ids, &mut x, width)?;
        for (number, layer) in layout.layers.iter().enumerate() {
            layer::forward(pass, layer, &mut buffers.layer(number))?;
        }
        Ok(())
    }
}

/// This rank's micro-batches, with their numbers in the whole step: every rank has its part of a step
/// that has as many as there are ranks.
fn share<'a>(
    batches: &'a [MicroBatch],
    group: &Group,
) -> impl Iterator<Item = (usize, &'a MicroBatch)> + use<'a> {
    let all = batches.iter().enumerate();
    all.skip(group.rank()).step_by(group.size())
}

fn lora(method: &Method) -> Option<&LoraConfig> {
    match method {
        Method::Full => None,
        Method::Lora(lora) => Some(lora),
    }
}

impl Engine for GpuEngine {
    fn config(&self) -> &LlamaConfig {
        &self.model.config
    }

    fn method(&self) -> &Method {
        &self.model.options.method
    }

    fn parameters(&self) -> Vec<ParameterSpec> {
        let parameters = self.model.weights.layout.parameters.iter();
        parameters.map(|parameter| parameter.spec.clone()).collect()
    }

    fn num_lanes(&self) -> usize {
        1
    }

    fn forward_backward(
        &mut self,
        batches: &[MicroBatch],
        goal: StepGoal,
        group: &mut Group,
    ) -> Result<StepSums> {
        let device = self.model.device.clone();
        device.set_zero(&mut self.gradients.values)?;
        device.set_zero(&mut self.totals)?;
        for (number, batch) in share(batches, group) {
            self.add_batch(batch, goal, number)?;
        }
        group.all_reduce_device(&device, &mut self.gradients.values)?;
        let mut squares = self.totals.slice_mut(SQUARES..=SQUARES);
        let values = self.gradients.values.as_view();
        let mut parts = self.buffers.head.sum_parts.as_view_mut();
        cuda::add_sum(&device, &values, Summed::Squares, &mut squares, &mut parts)?;
        // Alone, the one place of a step that waits for the GPU.
        let mut totals = device.download(&self.totals)?;
        group.all_reduce_sum_f64(&mut totals[NLL..=NLL])?;
        Ok(StepSums {
            nll: totals[NLL],
            grad_norm: totals[SQUARES].sqrt(),
        })
    }

    fn update(&mut self, update: &Update) -> Result<()> {
        let Model {
            device,
            weights,
            options,
            ..
        } = &mut self.model;
        let Weights {
            layout,
            f32s,
            bf16s,
            ..
        } = weights;
        for (number, parameter) in layout.parameters.iter().enumerate() {
            let decay = if parameter.spec.shape.len() >= 2 {
                self.optimizer.weight_decay
            } else {
                0.0
            };
            let step = numbers(&self.optimizer, decay, update);
            let rounding = rounding(options.seed, Slot(number), update);
            let place = &parameter.place;
            let gradient = place.gradient.as_ref().expect("parameters have gradients");
            let gradient = self.gradients.part(gradient);
            let mut wide = place.f32.clone().map(|range| f32s.slice_mut(range));
            let mut narrow = place.bf16.clone().map(|range| bf16s.slice_mut(range));
            let values = match (&mut wide, &mut narrow) {
                (Some(wide), Some(copy)) => AdamWParameter::F32WithCopy(wide, copy),
                (Some(wide), None) => AdamWParameter::F32(wide),
                (None, Some(narrow)) => AdamWParameter::Bf16(narrow),
                (None, None) => unreachable!("every parameter has a place"),
            };
            let how = (&step, rounding, &self.moment_tables);
            self.moments[number].step(device, values, &gradient, how)?;
        }
        Ok(())
    }

    fn evaluate(&mut self, batches: &[MicroBatch], group: &mut Group) -> Result<f64> {
        let Self {
            model,
            buffers,
            totals,
            ..
        } = self;
        model.device.set_zero(totals)?;
        for (_, batch) in share(batches, group) {
            let inputs = Inputs::new(&model.device, batch)?;
            let pass = model.pass(&inputs, None);
            model.forward(&pass, buffers)?;
            let mut total = totals.slice_mut(NLL..=NLL);
            head::loss(&pass, &model.weights.layout, buffers, &mut total)?;
        }
        let mut totals = model.device.download(totals)?;
        group.all_reduce_sum_f64(&mut totals[NLL..=NLL])?;
        Ok(totals[NLL])
    }

    fn merged(&self, number: usize) -> Result<Vec<f32>> {
        let Model {
            device, weights, ..
        } = &self.model;
        weights.merged(device, number, self.method())
    }

    fn values(&self, slot: Slot) -> Result<Tensor> {
        self.model.weights.values(&self.model.device, slot)
    }

    fn moments(&self, slot: Slot) -> Result<Cow<'_, Moments>> {
        let moments = self.moments[slot.0].download(&self.model.device)?;
        Ok(Cow::Owned(moments))
    }

    fn set_values(&mut self, slot: Slot, values: &Tensor) -> Result<()> {
        let Model {
            device, weights, ..
        } = &mut self.model;
        weights.set_values(device, slot, values)
    }

    fn set_moments(&mut self, slot: Slot, moments: Moments) -> Result<()> {
        self.moments[slot.0] = DeviceMoments::upload(&self.model.device, &moments)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
