//! Memory of forward and backward passes, taken once for the largest micro-batch: what layers keep, what
//! one layer's passes need in between, and a chunk of logits.
//!
//! Shape letters: T tokens, L label rows, R rows of a chunk of them, C hidden, F inner width of the MLP,
//! H query heads, G key/value heads, D head dimension, V vocabulary.

use cuda::{CudaSlice, Device, SUM_SCRATCH_LEN, norm_scratch_len};
use half::bf16;
use model::config::LlamaConfig;

use crate::config::{BaseFormat, Checkpointing};
use crate::error::Result;
use crate::lora::LoraConfig;

/// Bytes of a chunk's logits, at most: 512 MiB are 1044 rows of Llama 3's vocabulary. Each chunk reads and
/// writes the head's gradient once (1.6 GB each for a 3B model, 0.7 ms), against 4.8 ms of arithmetic
/// for so many rows at half of an H100's peak.
const LOGIT_CHUNK_BYTES: usize = 512 << 20;

/// Chunks are whole tiles of the products' kernels where they can be.
const CHUNK_ROWS: usize = 128;

/// Part of the free memory that `--checkpointing auto` may fill: the rest is for cublasLt and the
/// allocator.
const USABLE: f64 = 0.9;

/// The largest micro-batch that there is room for, and the adapters.
#[derive(Debug, Clone, Copy)]
pub(super) struct Capacity<'a> {
    pub(super) num_tokens: usize,
    pub(super) lora: Option<&'a LoraConfig>,
}

/// Everything that is not a weight, a gradient or a moment.
#[derive(Debug)]
pub(super) struct Buffers {
    /// The residual stream before each layer and after the last, `[T, C]` each.
    pub(super) x: Vec<CudaSlice<f32>>,
    /// One for each layer, or one for all, which is then computed again on the way back.
    kept: Vec<Kept>,
    pub(super) scratch: Scratch,
    pub(super) head: Head,
    pub(super) lora: Option<Lora>,
}

/// What a layer's backward pass needs, but for what is cheap to compute again: norms and SwiGLU.
#[derive(Debug)]
pub(super) struct Kept {
    /// The residual stream between attention and MLP, `[T, C]`.
    pub(super) h: CudaSlice<f32>,
    /// Queries and keys rotated, `[T, (H + 2G)·D]`.
    pub(super) qkv: CudaSlice<bf16>,
    /// `[T, H·D]`
    pub(super) attended: CudaSlice<bf16>,
    /// `[H, T]`
    pub(super) log_sum_exp: CudaSlice<f32>,
    /// `[T, 2F]`; on the way back its gradient takes its place.
    pub(super) gate_up: CudaSlice<bf16>,
}

/// Within one layer.
#[derive(Debug)]
pub(super) struct Scratch {
    /// The gradient of the residual stream, `[T, C]`.
    pub(super) dx: CudaSlice<f32>,
    /// The same in bf16, for products.
    pub(super) dx_bf16: CudaSlice<bf16>,
    /// Input of a product behind a norm, and its gradient, `[T, C]`.
    pub(super) normed: CudaSlice<bf16>,
    pub(super) dnormed: CudaSlice<bf16>,
    /// `[T, F]`
    pub(super) inner: CudaSlice<bf16>,
    pub(super) dinner: CudaSlice<bf16>,
    /// `[T, H·D]`
    pub(super) dattended: CudaSlice<bf16>,
    /// `[T, (H + 2G)·D]`
    pub(super) dqkv: CudaSlice<bf16>,
    /// Of each head of each token the output times its gradient, summed: `[H, T]`
    pub(super) delta: CudaSlice<f32>,
    /// For the sum over rows of a norm's gradient.
    pub(super) norm_sums: CudaSlice<f32>,
}

/// Output head and loss, on rows with a label.
#[derive(Debug)]
pub(super) struct Head {
    /// `[L, C]`
    pub(super) x: CudaSlice<f32>,
    pub(super) dx: CudaSlice<f32>,
    pub(super) normed: CudaSlice<bf16>,
    pub(super) dnormed: CudaSlice<bf16>,
    /// `[R, V]`
    pub(super) logits: CudaSlice<f32>,
    pub(super) dlogits: CudaSlice<bf16>,
    /// `[L]`
    pub(super) losses: CudaSlice<f32>,
    /// For sums in f64.
    pub(super) sum_parts: CudaSlice<f64>,
    /// R.
    pub(super) chunk_rows: usize,
}

/// Between the two thin matrices of an adapter, and beside them.
#[derive(Debug)]
pub(super) struct Lora {
    /// The adapter's input with values left out, `[T, in]`.
    pub(super) dropped: CudaSlice<bf16>,
    /// `[T, rank]`, as a product's sums and as a factor.
    pub(super) sums: CudaSlice<f32>,
    pub(super) u: CudaSlice<bf16>,
    pub(super) du: CudaSlice<bf16>,
    /// The adapter's part of a projection, or of its input's gradient, `[T, out]` or `[T, in]`.
    pub(super) delta: CudaSlice<f32>,
    /// Columns of a gradient, `[T, out]`.
    pub(super) dy: CudaSlice<bf16>,
    /// A frozen matrix of int8 in bf16, while it is multiplied. As large as the largest.
    pub(super) widened: CudaSlice<bf16>,
}

impl Buffers {
    /// Takes the memory; `checkpointing` says whether every layer keeps its own.
    pub(super) fn new(
        device: &Device,
        config: &LlamaConfig,
        capacity: Capacity<'_>,
        checkpointing: Checkpointing,
    ) -> Result<Self> {
        let num_tokens = capacity.num_tokens;
        let num_layers = config.num_hidden_layers;
        let x = (0..=num_layers).map(|_| Ok(device.zeros(num_tokens * config.hidden_size)?));
        let x = x.collect::<Result<_>>()?;
        let scratch = Scratch::new(device, config, num_tokens)?;
        let head = Head::new(device, config, num_tokens)?;
        let lora = match capacity.lora {
            None => None,
            Some(lora) => Some(Lora::new(device, config, (num_tokens, lora))?),
        };
        let keeps_all = match checkpointing {
            Checkpointing::On => false,
            Checkpointing::Off => true,
            Checkpointing::Auto => {
                let (free, _) = device.memory()?;
                num_layers * kept_bytes(config, num_tokens) <= (USABLE * free as f64) as usize
            }
        };
        let num_kept = if keeps_all { num_layers } else { 1 };
        let kept = (0..num_kept).map(|_| Kept::new(device, config, num_tokens));
        Ok(Self {
            kept: kept.collect::<Result<_>>()?,
            x,
            scratch,
            head,
            lora,
        })
    }

    /// Whether what a layer needs on the way back is overwritten by the next one.
    pub(super) fn computes_again(&self) -> bool {
        self.kept.len() < self.x.len() - 1
    }

    /// One layer's parts: the stream before it and after it, what it keeps, and scratch memory.
    pub(super) fn layer(&mut self, number: usize) -> LayerBuffers<'_> {
        let (before, after) = self.x.split_at_mut(number + 1);
        let kept = number.min(self.kept.len() - 1);
        LayerBuffers {
            x: &before[number],
            y: &mut after[0],
            kept: &mut self.kept[kept],
            scratch: &mut self.scratch,
            lora: self.lora.as_mut(),
        }
    }
}

/// What a layer's passes work with.
#[derive(Debug)]
pub(super) struct LayerBuffers<'a> {
    pub(super) x: &'a CudaSlice<f32>,
    pub(super) y: &'a mut CudaSlice<f32>,
    pub(super) kept: &'a mut Kept,
    pub(super) scratch: &'a mut Scratch,
    pub(super) lora: Option<&'a mut Lora>,
}

/// Bytes of [`Kept`] for so many tokens.
pub(super) fn kept_bytes(config: &LlamaConfig, num_tokens: usize) -> usize {
    let per_token = 4 * config.hidden_size
        + 2 * qkv_size(config)
        + 2 * config.query_size()
        + 4 * config.num_attention_heads
        + 4 * config.intermediate_size;
    per_token * num_tokens
}

/// Bytes of everything else here, without adapters.
pub(super) fn working_bytes(config: &LlamaConfig, num_tokens: usize) -> usize {
    let (hidden, mlp) = (config.hidden_size, config.intermediate_size);
    let streams = 4 * hidden * (config.num_hidden_layers + 1);
    let scratch = (4 + 3 * 2) * hidden
        + 2 * 2 * mlp
        + 2 * (config.query_size() + qkv_size(config))
        + 4 * config.num_attention_heads;
    let head = (2 * 4 + 2 * 2) * hidden + 4;
    let logits = (4 + 2) * config.vocab_size * chunk_rows(config, num_tokens);
    let sums = 4 * norm_scratch_len(num_tokens, hidden) + 8 * SUM_SCRATCH_LEN;
    num_tokens * (streams + scratch + head) + logits + sums
}

/// Bytes of [`Lora`].
pub(super) fn lora_bytes(config: &LlamaConfig, lora: &LoraConfig, num_tokens: usize) -> usize {
    num_tokens * ((2 + 4 + 2) * widest(config) + (4 + 2 + 2) * lora.rank)
        + 2 * widened_len(config, lora)
}

/// Values of the largest matrix that is one product, where it is to be widened: qkv or gate over up.
fn widened_len(config: &LlamaConfig, lora: &LoraConfig) -> usize {
    match lora.base {
        BaseFormat::F32 | BaseFormat::Bf16 => 0,
        BaseFormat::Int8 => config.hidden_size * qkv_size(config).max(2 * config.intermediate_size),
    }
}

/// The longest row that an adapter reads or writes.
fn widest(config: &LlamaConfig) -> usize {
    let widths = [
        config.hidden_size,
        config.intermediate_size,
        config.query_size(),
    ];
    widths.into_iter().max().unwrap_or_default()
}

/// (H + 2G)·D.
pub(super) fn qkv_size(config: &LlamaConfig) -> usize {
    config.query_size() + 2 * config.kv_size()
}

fn chunk_rows(config: &LlamaConfig, num_tokens: usize) -> usize {
    let rows = LOGIT_CHUNK_BYTES / (4 * config.vocab_size);
    let rows = rows / CHUNK_ROWS * CHUNK_ROWS;
    rows.max(CHUNK_ROWS).min(num_tokens)
}

impl Kept {
    fn new(device: &Device, config: &LlamaConfig, num_tokens: usize) -> Result<Self> {
        Ok(Self {
            h: device.zeros(num_tokens * config.hidden_size)?,
            qkv: device.zeros(num_tokens * qkv_size(config))?,
            attended: device.zeros(num_tokens * config.query_size())?,
            log_sum_exp: device.zeros(num_tokens * config.num_attention_heads)?,
            gate_up: device.zeros(2 * num_tokens * config.intermediate_size)?,
        })
    }
}

impl Scratch {
    fn new(device: &Device, config: &LlamaConfig, num_tokens: usize) -> Result<Self> {
        let stream = num_tokens * config.hidden_size;
        let mlp = num_tokens * config.intermediate_size;
        Ok(Self {
            dx: device.zeros(stream)?,
            dx_bf16: device.zeros(stream)?,
            normed: device.zeros(stream)?,
            dnormed: device.zeros(stream)?,
            inner: device.zeros(mlp)?,
            dinner: device.zeros(mlp)?,
            dattended: device.zeros(num_tokens * config.query_size())?,
            dqkv: device.zeros(num_tokens * qkv_size(config))?,
            delta: device.zeros(num_tokens * config.num_attention_heads)?,
            norm_sums: device.zeros(norm_scratch_len(num_tokens, config.hidden_size))?,
        })
    }
}

impl Head {
    fn new(device: &Device, config: &LlamaConfig, num_tokens: usize) -> Result<Self> {
        let stream = num_tokens * config.hidden_size;
        let chunk_rows = chunk_rows(config, num_tokens);
        Ok(Self {
            x: device.zeros(stream)?,
            dx: device.zeros(stream)?,
            normed: device.zeros(stream)?,
            dnormed: device.zeros(stream)?,
            logits: device.zeros(chunk_rows * config.vocab_size)?,
            dlogits: device.zeros(chunk_rows * config.vocab_size)?,
            losses: device.zeros(num_tokens)?,
            sum_parts: device.zeros(SUM_SCRATCH_LEN)?,
            chunk_rows,
        })
    }
}

impl Lora {
    fn new(
        device: &Device,
        config: &LlamaConfig,
        (num_tokens, lora): (usize, &LoraConfig),
    ) -> Result<Self> {
        let rank = lora.rank;
        let wide = num_tokens * widest(config);
        Ok(Self {
            dropped: device.zeros(wide)?,
            sums: device.zeros(num_tokens * rank)?,
            u: device.zeros(num_tokens * rank)?,
            du: device.zeros(num_tokens * rank)?,
            delta: device.zeros(wide)?,
            dy: device.zeros(wide)?,
            widened: device.zeros(widened_len(config, lora))?,
        })
    }
}
