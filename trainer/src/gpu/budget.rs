//! What a run will take of a GPU's memory, in bytes, from the same places and sizes that it is then
//! taken by.

use cuda::Device;
use kernels::Moments;
use model::config::LlamaConfig;
use model::weights::{TensorSpec, tensor_specs};

use super::buffers::{kept_bytes, lora_bytes, working_bytes};
use super::layout::Layout;
use super::lora;
use crate::budget::Budget;
use crate::config::{Checkpointing, MomentsDtype};
use crate::error::{Result, TrainError};
use crate::forward::NetworkOptions;

/// With micro-batches of up to so many tokens. Where `--checkpointing auto` decides by what is free, the
/// least that it needs.
pub(crate) fn gpu_budget(
    config: &LlamaConfig,
    options: &NetworkOptions,
    moments: MomentsDtype,
    num_tokens: usize,
) -> Budget {
    let layout = Layout::new(config, &options.method, options.precision);
    let trained = layout.parameters.iter();
    let counts: Vec<usize> = trained.map(|it| it.spec.num_elements()).collect();
    let moments = |count: &usize| Moments::num_bytes(moments.format(), *count);
    // Cosine and sine of half a head for each position.
    let positions = config.max_position_embeddings.min(options.max_positions);
    let rope = 4 * config.head_dim * positions;
    let adapters = lora(&options.method).map_or(0, |lora| lora_bytes(config, lora, num_tokens));
    let specs = tensor_specs(config);
    let mut budget = Budget {
        num_parameters: specs.iter().map(TensorSpec::num_elements).sum(),
        num_trained: counts.iter().sum(),
        weights: 4 * layout.num_f32 + 2 * layout.num_bf16 + layout.num_int8 + rope,
        gradients: 4 * layout.num_gradients,
        moments: counts.iter().map(moments).sum(),
        activations: working_bytes(config, num_tokens)
            + num_kept(config, options.checkpointing) * kept_bytes(config, num_tokens)
            + adapters,
        // A tensor at a time, in the host's memory.
        saving: 0,
        peak: 0,
    };
    budget.peak = budget.weights + budget.gradients + budget.moments + budget.activations;
    budget
}

/// Refuses a run that the GPU has no memory for, with what could be done about it.
pub(super) fn check_memory(device: &Device, budget: &Budget) -> Result<()> {
    let (free, _) = device.memory()?;
    if budget.peak <= free {
        return Ok(());
    }
    Err(TrainError::GpuMemory {
        needed_mib: budget.peak >> 20,
        free_mib: free >> 20,
    })
}

/// Layers that keep what their backward pass needs.
fn num_kept(config: &LlamaConfig, checkpointing: Checkpointing) -> usize {
    match checkpointing {
        Checkpointing::Off => config.num_hidden_layers,
        Checkpointing::On | Checkpointing::Auto => 1,
    }
}
