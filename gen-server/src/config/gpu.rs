//! What only a GPU asks for.

use clap::ValueEnum;

use super::{Dtype, Mistake, Precision, ServerConfig};

/// Leaves room for what the driver and other libraries take.
pub(crate) const DEFAULT_GPU_MEMORY_UTILIZATION: f32 = 0.9;
/// Sixteen keys are read at once.
const BLOCK_SIZE_UNIT: u32 = 16;

/// How a GPU is used.
#[derive(Debug, Clone, PartialEq)]
pub struct GpuConfig {
    /// Number of the GPU, from 0.
    pub ordinal: usize,
    /// Share of the GPU's memory for weights, workspace and KV cache together.
    pub memory_utilization: f32,
    pub kv_cache_dtype: KvCacheDtype,
    pub weight_arenas: WeightArenas,
    pub cascade_attention: CascadeAttention,
    pub product_tuning: ProductTuning,
}

impl Default for GpuConfig {
    fn default() -> Self {
        Self {
            ordinal: 0,
            memory_utilization: DEFAULT_GPU_MEMORY_UTILIZATION,
            kv_cache_dtype: KvCacheDtype::Auto,
            weight_arenas: WeightArenas::Two,
            cascade_attention: CascadeAttention::Off,
            product_tuning: ProductTuning::Off,
        }
    }
}

/// What keys and values are stored in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum KvCacheDtype {
    /// What the model computes in.
    Auto,
    Bf16,
    /// One byte a value (e4m3): twice the tokens, and half the time of attention, at 4 significant bits.
    Fp8,
}

/// How many checkpoints there is room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum WeightArenas {
    /// The live one; a new one waits in the host's memory and is copied at the swap.
    #[value(name = "1")]
    One,
    /// The live one and the next, so that a swap only exchanges them.
    #[value(name = "2")]
    Two,
}

/// When keys that sequences have in common are read once for all that decode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CascadeAttention {
    Off,
    /// Where it pays by arithmetic: few-shot prompts of hundreds of tokens.
    Auto,
    /// Wherever two sequences share a block, for measurements.
    Always,
}

/// Whether the kernels of products are chosen by trial at the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ProductTuning {
    /// Those that cublasLt expects to be fastest.
    Off,
    On,
}

/// What a GPU cannot be asked for.
pub(super) fn mistakes(config: &ServerConfig) -> Vec<Mistake> {
    let mut mistakes = Vec::new();
    let mut wrong = |option, problem: String| mistakes.push(Mistake { option, problem });
    let is_f32 = config.precision == Precision::Float(Dtype::F32);
    if is_f32 && config.gpu.kv_cache_dtype == KvCacheDtype::Bf16 {
        let problem = "expected auto or fp8 with --dtype f32, found bf16";
        wrong("--kv-cache-dtype", problem.to_owned());
    }
    if is_f32 && config.gpu.cascade_attention != CascadeAttention::Off {
        let problem = "expected off with --dtype f32, which has no kernels for it";
        wrong("--cascade-attention", problem.to_owned());
    }
    if !config.block_size.is_multiple_of(BLOCK_SIZE_UNIT) {
        let found = config.block_size;
        let problem =
            format!("expected a multiple of {BLOCK_SIZE_UNIT} with --device cuda, found {found}");
        wrong("--block-size", problem);
    }
    let share = config.gpu.memory_utilization;
    if !(0.05..=0.98).contains(&share) {
        let problem = format!("expected 0.05 to 0.98, found {share}");
        wrong("--gpu-memory-utilization", problem);
    }
    mistakes
}
