//! The slow twin of [`Llama::forward`]: one sequence, no cache, every step written with candle's
//! plain operations on unpacked weights, and none of `kernels`' fast paths.

use candle_core::{D, DType, Device, Tensor};

use crate::error::{ModelError, Result};
use crate::llama::{Llama, rope};
use crate::weights::LayerWeights;

impl Llama {
    /// Logits `[T, V]` of every position of one sequence.
    pub fn forward_dense(&self, token_ids: &[u32]) -> Result<Tensor> {
        if token_ids.is_empty() || token_ids.len() > self.config.max_position_embeddings {
            return Err(ModelError::Batch {
                field: "token_ids",
                expected: format!("1 to {} tokens", self.config.max_position_embeddings),
                found: token_ids.len().to_string(),
            });
        }
        let weights = self.weights.unpack(&self.config)?;
        let ids = Tensor::new(token_ids, &Device::Cpu)?;
        let mut x = weights.embed.index_select(&ids, 0)?;
        for layer in &weights.layers {
            let h = self.norm_dense(&x, &layer.input_norm)?;
            x = (x + self.attend_dense(layer, &h)?)?;
            let h = self.norm_dense(&x, &layer.post_norm)?;
            let gate = h.matmul(&layer.gate.t()?)?;
            let up = h.matmul(&layer.up.t()?)?;
            x = (x + (gate.silu()? * up)?.matmul(&layer.down.t()?)?)?;
        }
        let h = self.norm_dense(&x, &weights.norm)?;
        Ok(h.matmul(&weights.head().t()?)?)
    }

    fn norm_dense(&self, x: &Tensor, weight: &Tensor) -> Result<Tensor> {
        let mean_square = x.sqr()?.mean_keepdim(D::Minus1)?;
        let root = (mean_square + self.config.rms_norm_eps)?.sqrt()?;
        Ok(x.broadcast_div(&root)?.broadcast_mul(weight)?)
    }

    /// `[T, C]`, the output projection included.
    fn attend_dense(&self, layer: &LayerWeights, h: &Tensor) -> Result<Tensor> {
        let config = &self.config;
        let (num_tokens, num_heads) = (h.dim(0)?, config.num_attention_heads);
        // [heads, T, D]
        let heads = |weight: &Tensor, count: usize| -> Result<Tensor> {
            let y = h
                .matmul(&weight.t()?)?
                .reshape((num_tokens, count, config.head_dim))?;
            Ok(y.transpose(0, 1)?.contiguous()?)
        };
        let q = self.rotate_dense(&heads(&layer.q, num_heads)?)?;
        let k = self.rotate_dense(&heads(&layer.k, config.num_key_value_heads)?)?;
        let v = heads(&layer.v, config.num_key_value_heads)?;
        // Query head i reads key head i / group.
        let group = num_heads / config.num_key_value_heads;
        let kv_head: Vec<u32> = (0..num_heads).map(|head| (head / group) as u32).collect();
        let kv_head = Tensor::new(kv_head.as_slice(), &Device::Cpu)?;
        let (k, v) = (k.index_select(&kv_head, 0)?, v.index_select(&kv_head, 0)?);
        let scores = (q.matmul(&k.transpose(1, 2)?)? / (config.head_dim as f64).sqrt())?;
        let mask: Vec<f32> = (0..num_tokens * num_tokens)
            .map(|i| {
                if i % num_tokens > i / num_tokens {
                    f32::NEG_INFINITY
                } else {
                    0.0
                }
            })
            .collect();
        let mask = Tensor::from_vec(mask, (1, num_tokens, num_tokens), &Device::Cpu)?;
        let scores = scores.broadcast_add(&mask)?;
        let weights = scores
            .broadcast_sub(&scores.max_keepdim(D::Minus1)?)?
            .exp()?;
        let weights = weights.broadcast_div(&weights.sum_keepdim(D::Minus1)?)?;
        let out = weights
            .matmul(&v)?
            .transpose(0, 1)?
            .reshape((num_tokens, config.query_size()))?;
        Ok(out.matmul(&layer.o.t()?)?)
    }

    /// Element i of a head turns with element i + D/2. `[heads, T, D]`
    fn rotate_dense(&self, x: &Tensor) -> Result<Tensor> {
        let (_, num_tokens, dim) = x.dims3()?;
        let frequencies = rope::inverse_frequencies(&self.config);
        let angles: Vec<f32> = (0..num_tokens)
            .flat_map(|position| frequencies.iter().map(move |f| position as f32 * f))
            .collect();
        let angles = Tensor::from_vec(angles, (1, num_tokens, dim / 2), &Device::Cpu)?;
        let (cos, sin) = (angles.cos()?, angles.sin()?);
        let (a, b) = (x.narrow(2, 0, dim / 2)?, x.narrow(2, dim / 2, dim / 2)?);
        let first = (a.broadcast_mul(&cos)? - b.broadcast_mul(&sin)?)?;
        let second = (b.broadcast_mul(&cos)? + a.broadcast_mul(&sin)?)?;
        debug_assert_eq!(first.dtype(), DType::F32);
        Ok(Tensor::cat(&[first, second], 2)?)
    }
}
