//! The forward pass over a paged KV cache. Prefill, a chunk of it and decode are the same call. A
//! token's row is computed from its own sequence alone, and is the same to the bit whatever else is in
//! the batch and however its sequence was cut into chunks: so every operation of `kernels` used here
//! promises. The slow twin agrees to rounding.
//!
//! Shape letters: T tokens of the batch, R rows that logits are wanted for, H query heads, G key and
//! value heads, D head dimension, C hidden, V vocabulary.
#![expect(non_snake_case, reason = "tensors end in their shape")]

use candle_core::{Device, Tensor};
use kernels::{
    Activations, AttentionPlan, KvCache, KvFormat, KvRows, KvShape, Output, PagedBatch,
    PagedSequence, QueryRows, Weight, WeightFormat,
};

use crate::config::LlamaConfig;
use crate::error::{ModelError, Result};
use crate::llama::packed::PackedLayer;
use crate::llama::{Llama, PackedBatch};

impl Llama {
    /// An empty cache of `num_blocks` blocks of `block_size` tokens, for all layers.
    pub fn new_kv_cache(&self, num_blocks: usize, block_size: usize) -> Result<KvCache> {
        let shape = kv_shape(&self.config, self.format, (num_blocks, block_size));
        Ok(KvCache::new(shape, &Device::Cpu)?)
    }

    /// Runs the batch: writes its keys and values to `kv`, returns logits `[R, V]` in f32.
    pub fn forward(&self, batch: &PackedBatch, kv: &mut KvCache) -> Result<Tensor> {
        self.check_batch(batch)?;
        let mut step = Step {
            batch,
            plan: AttentionPlan::new(
                &paged_batch(batch),
                kv.shape(),
                self.config.num_attention_heads,
            )?,
            packed: Activations::new(self.format),
            wide: Vec::new(),
        };
        let C = self.config.hidden_size;
        let last = self.weights.layers.len() - 1;
        let mut x_TC = self.embed(&batch.token_ids);
        for (index, layer) in self.weights.layers.iter().enumerate() {
            let mut attended = self.attend(index, &x_TC, &mut step, kv)?;
            // What the last layer does for rows nobody asks for is needed by nobody.
            if index == last {
                x_TC = select_rows(x_TC, C, batch);
                attended = select_rows(attended, self.config.query_size(), batch);
            }
            if x_TC.is_empty() {
                break;
            }
            step.packed
                .fill_from(&attended, self.config.query_size(), &self.crew);
            self.multiply(&step.packed, &layer.o, (&mut x_TC, Output::Add))?;
            self.mlp(layer, &mut x_TC, &mut step)?;
        }
        let head = self.weights.head();
        let R = batch.logits_rows.len();
        let mut logits_RV = vec![0.0; R * head.num_outputs()];
        if R > 0 {
            self.normalize(&x_TC, &self.weights.norm, &mut step.packed);
            self.multiply(&step.packed, head, (&mut logits_RV, Output::Overwrite))?;
        }
        Ok(Tensor::from_vec(
            logits_RV,
            (R, head.num_outputs()),
            &Device::Cpu,
        )?)
    }

    /// `[T, C]`
    fn embed(&self, token_ids: &[u32]) -> Vec<f32> {
        let C = self.config.hidden_size;
        let mut x_TC = vec![0.0; token_ids.len() * C];
        self.crew.for_each_part(&mut x_TC, 4 * C, |part, x| {
            for (id, row) in token_ids[4 * part..].iter().zip(x.chunks_exact_mut(C)) {
                self.weights.embed.copy_row(*id as usize, row);
            }
        });
        x_TC
    }

    /// x's rows through RMSNorm, ready to be multiplied.
    fn normalize(&self, x_TC: &[f32], weight: &[f32], packed: &mut Activations) {
        let (C, eps) = (self.config.hidden_size, self.config.rms_norm_eps as f32);
        packed.fill((x_TC.len() / C, C), &self.crew, |t, row| {
            kernels::rms_norm_row(row, &x_TC[t * C..(t + 1) * C], weight, eps);
        });
    }

    fn multiply(&self, x: &Activations, w: &Weight, y: (&mut [f32], Output)) -> Result<()> {
        Ok(kernels::linear_packed(x, w, y, &self.crew)?)
    }

    /// `x += mlp(norm(x))`
    fn mlp(&self, layer: &PackedLayer, x_TC: &mut [f32], step: &mut Step<'_>) -> Result<()> {
        let (T, F) = (
            x_TC.len() / self.config.hidden_size,
            self.config.intermediate_size,
        );
        self.normalize(x_TC, &layer.post_norm, &mut step.packed);
        step.wide.resize(T * 2 * F, 0.0);
        self.multiply(
            &step.packed,
            &layer.gate_up,
            (&mut step.wide, Output::Overwrite),
        )?;
        let gate_up = &step.wide;
        step.packed.fill((T, F), &self.crew, |t, row| {
            let (gate, up) = gate_up[t * 2 * F..(t + 1) * 2 * F].split_at(F);
            kernels::swiglu_row(row, gate, up);
        });
        self.multiply(&step.packed, &layer.down, (x_TC, Output::Add))
    }

    /// The attention of one layer up to, not including, its output projection. `[T, H * D]`
    fn attend(
        &self,
        index: usize,
        x_TC: &[f32],
        step: &mut Step<'_>,
        kv: &mut KvCache,
    ) -> Result<Vec<f32>> {
        let (config, layer, batch) = (&self.config, &self.weights.layers[index], step.batch);
        let T = batch.token_ids.len();
        let (H, G, D) = (
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim,
        );
        let width = (H + 2 * G) * D;
        self.normalize(x_TC, &layer.input_norm, &mut step.packed);
        step.wide.resize(T * width, 0.0);
        self.multiply(
            &step.packed,
            &layer.qkv,
            (&mut step.wide, Output::Overwrite),
        )?;
        let task = ROPE_ROWS * width;
        self.crew.for_each_part(&mut step.wide, task, |part, rows| {
            let positions = &batch.positions[part * ROPE_ROWS..];
            for (row, position) in rows.chunks_exact_mut(width).zip(positions) {
                kernels::rope_row(&mut row[..(H + G) * D], *position, &self.rope);
            }
        });
        let new = KvRows {
            values: &step.wide,
            row_len: width,
            k: H * D,
            v: (H + G) * D,
        };
        kv.layer_mut(index)
            .write(&new, &batch.slot_mapping, &self.crew)?;
        let q = QueryRows {
            values: &step.wide,
            row_len: width,
        };
        let mut attended = vec![0.0; T * H * D];
        let call = (kv.layer(index), &step.plan);
        kernels::paged_attention(&q, &mut attended, call, &self.crew)?;
        Ok(attended)
    }

    /// Block tables and slots are checked where they are used, in `kernels`.
    fn check_batch(&self, batch: &PackedBatch) -> Result<()> {
        let num_tokens = batch.token_ids.len();
        let wrong = |field, expected: String, found: String| {
            Err(ModelError::Batch {
                field,
                expected,
                found,
            })
        };
        if num_tokens == 0 {
            return wrong("token_ids", "at least one".into(), "none".into());
        }
        for (field, len) in [
            ("positions", batch.positions.len()),
            ("slot_mapping", batch.slot_mapping.len()),
        ] {
            if len != num_tokens {
                return wrong(
                    field,
                    format!("{num_tokens}, one per token"),
                    len.to_string(),
                );
            }
        }
        let below = |values: &[u32], limit: usize| {
            values
                .iter()
                .copied()
                .find(|&value| value as usize >= limit)
        };
        for (field, values, limit) in [
            ("token_ids", &batch.token_ids, self.config.vocab_size),
            (
                "positions",
                &batch.positions,
                self.config.max_position_embeddings,
            ),
            ("logits_rows", &batch.logits_rows, num_tokens),
        ] {
            if let Some(value) = below(values, limit) {
                return wrong(field, format!("values below {limit}"), value.to_string());
            }
        }
        let queries: usize = batch.sequences.iter().map(|s| s.query_len as usize).sum();
        if queries != num_tokens {
            return wrong(
                "sequences",
                format!("query_lens that add up to {num_tokens}"),
                queries.to_string(),
            );
        }
        Ok(())
    }
}

/// Rows whose heads are turned by one task.
const ROPE_ROWS: usize = 16;

/// What a cache for `config` in `format` takes: with weights in fewer bits than f32, bf16.
pub fn kv_shape(
    config: &LlamaConfig,
    format: WeightFormat,
    (num_blocks, block_size): (usize, usize),
) -> KvShape {
    KvShape {
        num_layers: config.num_hidden_layers,
        num_blocks,
        block_size,
        num_kv_heads: config.num_key_value_heads,
        head_dim: config.head_dim,
        format: match format {
            WeightFormat::F32 => KvFormat::F32,
            WeightFormat::Bf16 | WeightFormat::Int8 => KvFormat::Bf16,
        },
    }
}

/// A batch and the form of it attention takes, made once for all layers, and scratch memory.
struct Step<'a> {
    batch: &'a PackedBatch,
    plan: AttentionPlan,
    /// The input of the product at hand.
    packed: Activations,
    /// q, k and v of the layer at hand, then gate and up.
    wide: Vec<f32>,
}

fn paged_batch(batch: &PackedBatch) -> PagedBatch {
    let sequences = batch.sequences.iter().map(|sequence| PagedSequence {
        query_len: sequence.query_len as usize,
        context_len: sequence.context_len as usize,
        block_table: sequence.block_table.clone(),
    });
    PagedBatch {
        sequences: sequences.collect(),
    }
}

/// The rows, `width` long, that logits are wanted for.
fn select_rows(x: Vec<f32>, width: usize, batch: &PackedBatch) -> Vec<f32> {
    let rows = &batch.logits_rows;
    let all = rows.len() == batch.token_ids.len() && (0..).zip(rows).all(|(i, &row)| i == row);
    if all {
        return x;
    }
    let starts = rows.iter().map(|&row| row as usize * width);
    starts
        .flat_map(|start| &x[start..start + width])
        .copied()
        .collect()
}
