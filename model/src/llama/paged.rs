//! The forward pass over a paged KV cache. Prefill, a chunk of it and decode are the same call. A
//! token's row is computed from its own sequence alone, and is the same to the bit whatever else is in
//! the batch and however its sequence was cut into chunks: so every operation of `kernels` used here
//! promises. The slow twin agrees to rounding.
//!
//! Shape letters: T tokens of the batch, R rows that logits are wanted for, H query heads, G key and
//! value heads, D head dimension, C hidden, V vocabulary.
#![expect(non_snake_case, reason = "tensors end in their shape")]

use candle_core::{DType, Device, Tensor};
use kernels::tensor::{f32_update, f32_view};
use kernels::{KvCache, KvShape, PagedBatch, PagedSequence};

use crate::error::{ModelError, Result};
use crate::llama::{Llama, PackedBatch};

impl Llama {
    /// An empty cache of `num_blocks` blocks of `block_size` tokens, for all layers.
    pub fn new_kv_cache(&self, num_blocks: usize, block_size: usize) -> Result<KvCache> {
        let shape = KvShape {
            num_layers: self.config.num_hidden_layers,
            num_blocks,
            block_size,
            num_kv_heads: self.config.num_key_value_heads,
            head_dim: self.config.head_dim,
        };
        Ok(KvCache::new(shape, &Device::Cpu)?)
    }

    /// Runs the batch: writes its keys and values to `kv`, returns logits `[R, V]` in f32.
    pub fn forward(&self, batch: &PackedBatch, kv: &mut KvCache) -> Result<Tensor> {
        self.check_batch(batch)?;
        let step = Step {
            batch,
            paged: paged_batch(batch),
        };
        let eps = self.config.rms_norm_eps as f32;
        let last = self.weights.layers.len() - 1;
        let mut x_TC = kernels::embedding(&batch.token_ids, &self.weights.embed)?;
        for (index, layer) in self.weights.layers.iter().enumerate() {
            let attended = self.attend(index, &x_TC, &step, kv)?;
            // What the last layer does for rows nobody asks for is needed by nobody.
            let (x, attended) = if index == last {
                if batch.logits_rows.is_empty() {
                    let shape = (0, self.config.vocab_size);
                    return Ok(Tensor::zeros(shape, DType::F32, &Device::Cpu)?);
                }
                (select_rows(&x_TC, batch)?, select_rows(&attended, batch)?)
            } else {
                (x_TC, attended)
            };
            add(&x, &kernels::linear(&attended, &layer.o)?)?;
            let h = kernels::rms_norm(&x, &layer.post_norm, eps)?;
            let (gate, up) = (
                kernels::linear(&h, &layer.gate)?,
                kernels::linear(&h, &layer.up)?,
            );
            let mlp = kernels::swiglu(&gate, &up)?;
            add(&x, &kernels::linear(&mlp, &layer.down)?)?;
            x_TC = x;
        }
        let h_RC = kernels::rms_norm(&x_TC, &self.weights.norm, eps)?;
        Ok(kernels::linear(&h_RC, self.weights.head())?)
    }

    /// The attention of one layer up to, not including, its output projection. `[T, H * D]`
    fn attend(
        &self,
        index: usize,
        x_TC: &Tensor,
        step: &Step<'_>,
        kv: &mut KvCache,
    ) -> Result<Tensor> {
        let (config, layer, batch) = (&self.config, &self.weights.layers[index], step.batch);
        let num_tokens = batch.token_ids.len();
        let h_TC = kernels::rms_norm(x_TC, &layer.input_norm, config.rms_norm_eps as f32)?;
        let heads = |weight: &Tensor, num_heads: usize| -> Result<Tensor> {
            let projected = kernels::linear(&h_TC, weight)?;
            Ok(projected.reshape((num_tokens, num_heads, config.head_dim))?)
        };
        let q_THD = heads(&layer.q, config.num_attention_heads)?;
        let k_TGD = heads(&layer.k, config.num_key_value_heads)?;
        let v_TGD = heads(&layer.v, config.num_key_value_heads)?;
        let q_THD = kernels::rope(&q_THD, &batch.positions, &self.rope)?;
        let k_TGD = kernels::rope(&k_TGD, &batch.positions, &self.rope)?;
        kv.layer_mut(index)
            .write(&k_TGD, &v_TGD, &batch.slot_mapping)?;
        let out_THD = kernels::paged_attention(&q_THD, kv.layer(index), &step.paged)?;
        Ok(out_THD.reshape((num_tokens, config.query_size()))?)
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

/// A batch and the form of it attention takes, made once for all layers.
struct Step<'a> {
    batch: &'a PackedBatch,
    paged: PagedBatch,
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

/// `x += y` in place: nothing but this pass holds `x`. Not candle's `+`, whose threads wait for each
/// other spinning: on a busy machine that cost a fifth of a decode step.
fn add(x: &Tensor, y: &Tensor) -> Result<()> {
    let y = f32_view("residual", "y", y)?;
    Ok(f32_update("residual", "x", x, |x| {
        x.iter_mut().zip(y.iter()).for_each(|(x, y)| *x += y);
    })?)
}

fn select_rows(x: &Tensor, batch: &PackedBatch) -> Result<Tensor> {
    let rows = &batch.logits_rows;
    let all = rows.len() == batch.token_ids.len() && (0..).zip(rows).all(|(i, &row)| i == row);
    if all {
        return Ok(x.clone());
    }
    Ok(kernels::embedding(rows, x)?)
}
