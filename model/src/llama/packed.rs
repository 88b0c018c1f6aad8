//! A Llama's weights as serving keeps them: matrices packed for `kernels`, those that multiply the
//! same input as one, norms in f32. A tensor is packed as soon as it is read, so that no weight is
//! ever held twice; the digest is that of what the files hold.

use candle_core::{Device, Tensor};
use kernels::{Weight, WeightBuilder, WeightFormat};

use crate::config::LlamaConfig;
use crate::error::Result;
use crate::weights::{Weights, tensor_specs};

/// All weights, packed.
#[derive(Debug)]
pub(super) struct PackedWeights {
    /// `[vocab, hidden]`
    pub(super) embed: Weight,
    pub(super) layers: Vec<PackedLayer>,
    /// `[hidden]`
    pub(super) norm: Vec<f32>,
    /// `[vocab, hidden]`; `None`: the head is `embed`.
    lm_head: Option<Weight>,
}

/// One transformer layer.
#[derive(Debug)]
pub(super) struct PackedLayer {
    /// `[hidden]`
    pub(super) input_norm: Vec<f32>,
    /// q over k over v: `[(H + 2 G) * D, hidden]`
    pub(super) qkv: Weight,
    /// `[hidden, H * D]`
    pub(super) o: Weight,
    /// `[hidden]`
    pub(super) post_norm: Vec<f32>,
    /// gate over up: `[2 * intermediate, hidden]`
    pub(super) gate_up: Weight,
    /// `[hidden, intermediate]`
    pub(super) down: Weight,
}

impl PackedWeights {
    /// Packs one tensor's values per entry of [`tensor_specs`], in that order, as they come.
    ///
    /// # Panics
    /// If `tensors` ends early; shapes are the caller's duty.
    pub(super) fn pack(
        config: &LlamaConfig,
        format: WeightFormat,
        tensors: impl IntoIterator<Item = Result<Vec<f32>>>,
    ) -> Result<Self> {
        let (hidden, mlp) = (config.hidden_size, config.intermediate_size);
        let (query, kv) = (config.query_size(), config.kv_size());
        let mut tensors = tensors.into_iter();
        let mut next = || tensors.next().expect("one tensor per spec");
        let matrix = |next: &mut dyn FnMut() -> Result<Vec<f32>>, parts, outputs, inputs| {
            let mut builder = WeightBuilder::new(format, outputs, inputs)?;
            for _ in 0..parts {
                builder.push_rows(&next()?)?;
            }
            Ok::<_, crate::error::ModelError>(builder.finish()?)
        };
        let embed = matrix(&mut next, 1, config.vocab_size, hidden)?;
        let mut layers = Vec::with_capacity(config.num_hidden_layers);
        for _ in 0..config.num_hidden_layers {
            layers.push(PackedLayer {
                input_norm: next()?,
                qkv: matrix(&mut next, 3, query + 2 * kv, hidden)?,
                o: matrix(&mut next, 1, hidden, query)?,
                post_norm: next()?,
                gate_up: matrix(&mut next, 2, 2 * mlp, hidden)?,
                down: matrix(&mut next, 1, hidden, mlp)?,
            });
        }
        let norm = next()?;
        let lm_head = if config.tie_word_embeddings {
            None
        } else {
            Some(matrix(&mut next, 1, config.vocab_size, hidden)?)
        };
        Ok(Self {
            embed,
            layers,
            norm,
            lm_head,
        })
    }

    /// The output head: `lm_head`, or the embedding where tied.
    pub(super) fn head(&self) -> &Weight {
        self.lm_head.as_ref().unwrap_or(&self.embed)
    }

    /// Bytes that a step reads of the weights, but for the embedding where it is not the head.
    pub(super) fn num_bytes(&self) -> usize {
        let layer = |l: &PackedLayer| {
            let matrices = [&l.qkv, &l.o, &l.gate_up, &l.down];
            matrices.into_iter().map(Weight::num_bytes).sum::<usize>()
        };
        self.layers.iter().map(layer).sum::<usize>() + self.head().num_bytes()
    }

    /// The values that products multiply with, as plain f32 tensors: a copy, for the slow twin.
    pub(super) fn unpack(&self, config: &LlamaConfig) -> Result<Weights> {
        let mut parts: Vec<Vec<f32>> = vec![rows(&self.embed, 0, config.vocab_size)];
        let (query, kv) = (config.query_size(), config.kv_size());
        let (hidden, mlp) = (config.hidden_size, config.intermediate_size);
        for layer in &self.layers {
            parts.extend([
                layer.input_norm.clone(),
                rows(&layer.qkv, 0, query),
                rows(&layer.qkv, query, kv),
                rows(&layer.qkv, query + kv, kv),
                rows(&layer.o, 0, hidden),
                layer.post_norm.clone(),
                rows(&layer.gate_up, 0, mlp),
                rows(&layer.gate_up, mlp, mlp),
                rows(&layer.down, 0, hidden),
            ]);
        }
        parts.push(self.norm.clone());
        if let Some(lm_head) = &self.lm_head {
            parts.push(rows(lm_head, 0, config.vocab_size));
        }
        let tensors = parts.into_iter().zip(tensor_specs(config));
        let tensors =
            tensors.map(|(values, spec)| Ok(Tensor::from_vec(values, spec.shape, &Device::Cpu)?));
        Weights::from_tensors(config, tensors)
    }
}

/// Some rows of a matrix, one after another.
fn rows(weight: &Weight, first: usize, count: usize) -> Vec<f32> {
    let width = weight.num_inputs();
    let mut values = vec![0.0; count * width];
    for (i, row) in values.chunks_exact_mut(width).enumerate() {
        weight.copy_row(first + i, row);
    }
    values
}
