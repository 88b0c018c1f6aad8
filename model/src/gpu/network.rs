//! The forward pass on a GPU. Prefill, a chunk of it and decode are the same call; all memory was taken at the
//! start, so that a pass can be recorded as a graph.
//!
//! The last layer ends with the rows that logits are wanted for, where these are fewer than the tokens: of the
//! others only keys and values are needed.
//!
//! The residual stream is f32; what is multiplied is bf16 (or f32, where results are to be a CPU's), sums are f32. The projections that end a block
//! add straight into the residual stream.
//!
//! Shape letters: T tokens of the step, R rows that logits are wanted for, H query heads, G key and value
//! heads, D head dimension, C hidden, F inner width of the MLP, V vocabulary.

mod attention;
mod tuning;

use std::ops::Range;

use cuda::{CudaSlice, CudaViewMut, Device, Float, Heads, Sum};

use self::attention::{heads, scratch_len};
use super::arena::{Arena, Layer};
use super::inputs::{Inputs, Step};
use super::kv_cache::{KvCache, KvLayer};
use super::products::Products;
use super::room::Room;
use crate::config::LlamaConfig;
use crate::error::Result;
use crate::llama::rope_table;

/// The memory between the kernels, for one stream.
#[derive(Debug)]
pub struct Network<A> {
    device: Device,
    config: LlamaConfig,
    room: Room,
    products: Products<A>,
    tokens: Stream<A>,
    /// Of the rows that logits are wanted for.
    rows: Stream<A>,
    /// `[T, C]`
    normed: CudaSlice<A>,
    /// `[T, (H + 2 G) * D]`
    qkv: CudaSlice<A>,
    /// `[T, 2 F]`
    gate_up: CudaSlice<A>,
    /// `[T, F]`
    activated: CudaSlice<A>,
    /// `[logits_rows, V]`
    logits: CudaSlice<f32>,
    /// `[max_context, D / 2]`
    cosines: CudaSlice<f32>,
    sines: CudaSlice<f32>,
    /// Of attention whose keys are split.
    scratch: CudaSlice<f32>,
}

/// The residual stream of some tokens, and what attention adds to it next.
#[derive(Debug)]
struct Stream<A> {
    /// `[T, C]`
    residual: CudaSlice<f32>,
    /// `[T, H * D]`
    attended: CudaSlice<A>,
}

/// Which of the streams, and how many tokens of it.
#[derive(Debug, Clone, Copy)]
enum Over {
    Tokens(usize),
    Rows(usize),
}

impl<A: Float> Stream<A> {
    fn new(device: &Device, config: &LlamaConfig, num_tokens: usize) -> Result<Self> {
        Ok(Self {
            residual: device.zeros(num_tokens * config.hidden_size)?,
            attended: device.zeros(num_tokens * config.query_size())?,
        })
    }
}

impl<A: Float> Network<A> {
    /// Takes the memory for steps that fit into `room`.
    pub fn new(device: &Device, config: &LlamaConfig, room: Room) -> Result<Self> {
        let (tokens, rows) = (room.num_tokens, room.num_rows);
        let (hidden, query) = (config.hidden_size, config.query_size());
        let rope = rope_table(config, room.max_context);
        Ok(Self {
            products: Products::new(device, config, room.products())?,
            tokens: Stream::new(device, config, tokens)?,
            rows: Stream::new(device, config, rows)?,
            normed: device.zeros(tokens.max(rows) * hidden)?,
            qkv: device.zeros(tokens * (query + 2 * config.kv_size()))?,
            gate_up: device.zeros(tokens.max(rows) * 2 * config.intermediate_size)?,
            activated: device.zeros(tokens.max(rows) * config.intermediate_size)?,
            logits: device.zeros(room.logits_rows * config.vocab_size)?,
            cosines: device.upload(rope.cosines())?,
            sines: device.upload(rope.sines())?,
            scratch: device.zeros(scratch_len::<A>(device, config, room.num_sequences)?)?,
            device: device.clone(),
            config: config.clone(),
            room,
        })
    }

    pub fn device(&self) -> &Device {
        &self.device
    }

    pub fn config(&self) -> &LlamaConfig {
        &self.config
    }

    pub fn room(&self) -> Room {
        self.room
    }

    pub fn heads(&self) -> Heads {
        heads(&self.config)
    }

    /// Runs a step whose inputs are on the GPU: writes its keys and values, and keeps the residual stream of
    /// the wanted rows for [`Self::logits`].
    pub fn forward(
        &mut self,
        arena: &Arena<A>,
        kv_cache: &mut KvCache<A>,
        inputs: &Inputs<'_>,
    ) -> Result<()> {
        let hidden = self.config.hidden_size;
        let num_tokens = inputs.token_ids.len();
        let (embed, ids) = (arena.embed(), &inputs.token_ids);
        let mut x = self.tokens.residual.slice_mut(..num_tokens * hidden);
        cuda::embedding(&self.device, &embed, ids, &mut x, hidden)?;
        let last = self.config.num_hidden_layers - 1;
        for index in 0..last {
            let layer = arena.layer(index);
            self.attend(&layer, kv_cache, (index, inputs))?;
            self.finish(&layer, Over::Tokens(num_tokens))?;
        }
        let layer = arena.layer(last);
        self.attend(&layer, kv_cache, (last, inputs))?;
        let num_rows = inputs.rows.len();
        if num_rows < num_tokens {
            self.take_attended(inputs)?;
            self.take_residual(inputs)?;
            self.finish(&layer, Over::Rows(num_rows))
        } else {
            self.finish(&layer, Over::Tokens(num_tokens))?;
            self.take_residual(inputs)
        }
    }

    fn take_residual(&mut self, inputs: &Inputs<'_>) -> Result<()> {
        let (rows, width) = (&inputs.rows, self.config.hidden_size);
        let from = self.tokens.residual.slice(..inputs.token_ids.len() * width);
        let mut to = self.rows.residual.slice_mut(..rows.len() * width);
        Ok(cuda::gather_rows(
            &self.device,
            &from,
            rows,
            &mut to,
            width,
        )?)
    }

    fn take_attended(&mut self, inputs: &Inputs<'_>) -> Result<()> {
        let (rows, width) = (&inputs.rows, self.config.query_size());
        let from = self.tokens.attended.slice(..inputs.token_ids.len() * width);
        let mut to = self.rows.attended.slice_mut(..rows.len() * width);
        Ok(cuda::gather_rows(
            &self.device,
            &from,
            rows,
            &mut to,
            width,
        )?)
    }

    /// Runs a small step by itself and brings the logits of its rows back. `[R, V]`
    pub fn logits_of(
        &mut self,
        arena: &Arena<A>,
        kv_cache: &mut KvCache<A>,
        step: &Step<'_>,
    ) -> Result<Vec<f32>> {
        let device = self.device.clone();
        let shape = step.shape(step.longest_table());
        let mut array = vec![0; shape.len()];
        step.fill(shape, &mut array);
        let mut array = device.upload(&array)?;
        let nothing_before = device.zeros(0)?;
        let inputs = shape.inputs(&device, &mut array, &nothing_before.as_view())?;
        self.forward(arena, kv_cache, &inputs)?;
        let logits = self.logits(arena, 0..shape.num_rows)?;
        Ok(device.download(&logits)?)
    }

    /// Logits of some of the rows of the step that ran last. `[rows, V]`
    pub fn logits(&mut self, arena: &Arena<A>, rows: Range<usize>) -> Result<CudaViewMut<'_, f32>> {
        let hidden = self.config.hidden_size;
        let num_values = rows.len() * hidden;
        let last = self
            .rows
            .residual
            .slice(rows.start * hidden..rows.end * hidden);
        let mut normed = self.normed.slice_mut(..num_values);
        let eps = self.config.rms_norm_eps as f32;
        cuda::rms_norm(&self.device, &last, &arena.norm(), &mut normed, eps)?;
        let normed = self.normed.slice(..num_values);
        let num_logits = rows.len() * self.config.vocab_size;
        let mut logits = self.logits.slice_mut(..num_logits);
        let to = (&mut logits, Sum::Overwrite);
        self.products.multiply(&normed, &arena.head(), to, hidden)?;
        Ok(self.logits.slice_mut(..num_logits))
    }

    /// `attention(norm(x))`
    fn attend(
        &mut self,
        layer: &Layer<'_, A>,
        kv_cache: &mut KvCache<A>,
        (index, inputs): (usize, &Inputs<'_>),
    ) -> Result<()> {
        let num_tokens = inputs.token_ids.len();
        let (hidden, query) = (self.config.hidden_size, self.config.query_size());
        let x = self.tokens.residual.slice(..num_tokens * hidden);
        let mut normed = self.normed.slice_mut(..num_tokens * hidden);
        let eps = self.config.rms_norm_eps as f32;
        cuda::rms_norm(&self.device, &x, &layer.input_norm, &mut normed, eps)?;
        let width = query + 2 * self.config.kv_size();
        let normed = self.normed.slice(..num_tokens * hidden);
        let mut qkv = self.qkv.slice_mut(..num_tokens * width);
        let to = (&mut qkv, Sum::Overwrite);
        self.products.multiply(&normed, &layer.qkv, to, hidden)?;
        let block_size = kv_cache.shape().block_size;
        match kv_cache.layer_mut(index) {
            KvLayer::Float { keys, values } => {
                self.attend_cached((keys, values), block_size, inputs)
            }
            KvLayer::E4m3 { keys, values } => {
                self.attend_cached((keys, values), block_size, inputs)
            }
        }
    }

    /// What a layer does after attention: `x += attended · oᵀ`, `x += mlp(norm(x))`
    fn finish(&mut self, layer: &Layer<'_, A>, over: Over) -> Result<()> {
        let (stream, num_tokens) = match over {
            Over::Tokens(count) => (&mut self.tokens, count),
            Over::Rows(count) => (&mut self.rows, count),
        };
        let (hidden, query) = (self.config.hidden_size, self.config.query_size());
        let mlp = self.config.intermediate_size;
        let attended = stream.attended.slice(..num_tokens * query);
        let mut x = stream.residual.slice_mut(..num_tokens * hidden);
        let to = (&mut x, Sum::Add);
        self.products.multiply(&attended, &layer.o, to, query)?;

        let x = stream.residual.slice(..num_tokens * hidden);
        let mut normed = self.normed.slice_mut(..num_tokens * hidden);
        let eps = self.config.rms_norm_eps as f32;
        cuda::rms_norm(&self.device, &x, &layer.post_norm, &mut normed, eps)?;
        let normed = self.normed.slice(..num_tokens * hidden);
        let mut gate_up = self.gate_up.slice_mut(..num_tokens * 2 * mlp);
        let to = (&mut gate_up, Sum::Overwrite);
        self.products
            .multiply(&normed, &layer.gate_up, to, hidden)?;
        let gate_up = self.gate_up.slice(..num_tokens * 2 * mlp);
        let mut activated = self.activated.slice_mut(..num_tokens * mlp);
        cuda::swiglu(&self.device, &gate_up, &mut activated, mlp)?;
        let activated = self.activated.slice(..num_tokens * mlp);
        let mut x = stream.residual.slice_mut(..num_tokens * hidden);
        let to = (&mut x, Sum::Add);
        self.products.multiply(&activated, &layer.down, to, mlp)
    }
}
