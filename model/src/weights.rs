//! The weights of a Llama as tensors, and the one list of their names, shapes and order that
//! loading, saving, digests and random models share.

use candle_core::{DType, Tensor};

use crate::config::LlamaConfig;
use crate::dtype::StoredDtype;
use crate::error::Result;

/// All weights, each stored `[out, in]` as in the checkpoint.
#[derive(Debug, Clone)]
pub struct Weights {
    /// `[vocab, hidden]`
    pub embed: Tensor,
    pub layers: Vec<LayerWeights>,
    /// `[hidden]`
    pub norm: Tensor,
    /// `[vocab, hidden]`; `None`: the head is [`Weights::embed`].
    pub lm_head: Option<Tensor>,
    /// Of the weights as stored where they were loaded (see [`Weights::digest`]).
    pub(crate) stored_digest: Option<String>,
}

/// One transformer layer.
#[derive(Debug, Clone)]
pub struct LayerWeights {
    /// `[hidden]`
    pub input_norm: Tensor,
    /// `[num_heads * head_dim, hidden]`
    pub q: Tensor,
    /// `[num_kv_heads * head_dim, hidden]`
    pub k: Tensor,
    /// `[num_kv_heads * head_dim, hidden]`
    pub v: Tensor,
    /// `[hidden, num_heads * head_dim]`
    pub o: Tensor,
    /// `[hidden]`
    pub post_norm: Tensor,
    /// `[intermediate, hidden]`
    pub gate: Tensor,
    /// `[intermediate, hidden]`
    pub up: Tensor,
    /// `[hidden, intermediate]`
    pub down: Tensor,
}

/// Name and shape of one tensor of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// As Hugging Face names it.
    pub name: String,
    pub shape: Vec<usize>,
}

impl TensorSpec {
    pub fn num_elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// Every tensor of `config`'s architecture, in the order everything here uses: embedding, layers
/// front to back, final norm, head (where untied).
pub fn tensor_specs(config: &LlamaConfig) -> Vec<TensorSpec> {
    let (hidden, mlp) = (config.hidden_size, config.intermediate_size);
    let (query, kv) = (config.query_size(), config.kv_size());
    let mut specs = Vec::with_capacity(9 * config.num_hidden_layers + 3);
    let mut push = |name: String, shape: &[usize]| {
        specs.push(TensorSpec {
            name,
            shape: shape.to_vec(),
        });
    };
    push(EMBED.to_owned(), &[config.vocab_size, hidden]);
    for layer in 0..config.num_hidden_layers {
        let shapes: [&[usize]; 9] = [
            &[hidden],
            &[query, hidden],
            &[kv, hidden],
            &[kv, hidden],
            &[hidden, query],
            &[hidden],
            &[mlp, hidden],
            &[mlp, hidden],
            &[hidden, mlp],
        ];
        for (part, shape) in LAYER_PARTS.iter().zip(shapes) {
            push(format!("model.layers.{layer}.{part}.weight"), shape);
        }
    }
    push("model.norm.weight".to_owned(), &[hidden]);
    if !config.tie_word_embeddings {
        push(LM_HEAD.to_owned(), &[config.vocab_size, hidden]);
    }
    specs
}

pub(crate) const EMBED: &str = "model.embed_tokens.weight";
pub(crate) const LM_HEAD: &str = "lm_head.weight";

/// In the order of [`LayerWeights`]' fields.
const LAYER_PARTS: [&str; 9] = [
    "input_layernorm",
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "post_attention_layernorm",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
];

impl LayerWeights {
    /// In [`LAYER_PARTS`]' order.
    fn parts(&self) -> [&Tensor; 9] {
        let Self {
            input_norm,
            q,
            k,
            v,
            o,
            post_norm,
            gate,
            up,
            down,
        } = self;
        [input_norm, q, k, v, o, post_norm, gate, up, down]
    }
}

impl Weights {
    /// Builds weights from one tensor per entry of [`tensor_specs`], in that order.
    ///
    /// # Panics
    /// If `tensors` ends early; shapes are the caller's duty ([`crate::load`] checks them).
    pub fn from_tensors(
        config: &LlamaConfig,
        tensors: impl IntoIterator<Item = Result<Tensor>>,
    ) -> Result<Self> {
        let mut tensors = tensors.into_iter();
        let mut next = || tensors.next().expect("one tensor per spec");
        let embed = next()?;
        let mut layers = Vec::with_capacity(config.num_hidden_layers);
        for _ in 0..config.num_hidden_layers {
            layers.push(LayerWeights {
                input_norm: next()?,
                q: next()?,
                k: next()?,
                v: next()?,
                o: next()?,
                post_norm: next()?,
                gate: next()?,
                up: next()?,
                down: next()?,
            });
        }
        let norm = next()?;
        let lm_head = if config.tie_word_embeddings {
            None
        } else {
            Some(next()?)
        };
        Ok(Self {
            embed,
            layers,
            norm,
            lm_head,
            stored_digest: None,
        })
    }

    /// Loads the folder's safetensors in `dtype` (f32 on the CPU); see [`crate::load`].
    pub fn load(dir: &std::path::Path, config: &LlamaConfig, dtype: DType) -> Result<Self> {
        crate::load::load_weights(dir, config, dtype)
    }

    /// The output head: `lm_head`, or the embedding where tied. `[vocab, hidden]`
    pub fn head(&self) -> &Tensor {
        self.lm_head.as_ref().unwrap_or(&self.embed)
    }

    /// Every tensor with its Hugging Face name, in [`tensor_specs`]' order. Tensors are shared, not
    /// copied.
    pub fn named(&self) -> Vec<(String, Tensor)> {
        let mut named = vec![(EMBED.to_owned(), self.embed.clone())];
        for (index, layer) in self.layers.iter().enumerate() {
            for (part, tensor) in LAYER_PARTS.iter().zip(layer.parts()) {
                named.push((
                    format!("model.layers.{index}.{part}.weight"),
                    tensor.clone(),
                ));
            }
        }
        named.push(("model.norm.weight".to_owned(), self.norm.clone()));
        if let Some(lm_head) = &self.lm_head {
            named.push((LM_HEAD.to_owned(), lm_head.clone()));
        }
        named
    }

    /// sha256 (hex) over name, shape, element type and little-endian bytes of every tensor in
    /// [`tensor_specs`]' order. Loaded weights keep the digest of what the files hold, so the digest
    /// of a bf16 checkpoint is the same whether it is served in f32 or in bf16; weights built in
    /// memory are digested as they are.
    pub fn digest(&self) -> Result<String> {
        if let Some(digest) = &self.stored_digest {
            return Ok(digest.clone());
        }
        let mut hasher = WeightsHasher::default();
        let mut bytes = Vec::new();
        for (name, tensor) in self.named() {
            let dtype = match tensor.dtype() {
                DType::BF16 => StoredDtype::Bf16,
                DType::F16 => StoredDtype::F16,
                _ => StoredDtype::F32,
            };
            let values = tensor
                .flatten_all()?
                .to_dtype(DType::F32)?
                .to_vec1::<f32>()?;
            dtype.encode_into(&values, &mut bytes);
            hasher.start(&name, tensor.dims(), dtype);
            hasher.bytes(&bytes);
        }
        Ok(hasher.finish())
    }
}

/// The running digest of [`Weights::digest`].
#[derive(Debug, Default)]
pub(crate) struct WeightsHasher(sha2::Sha256);

impl WeightsHasher {
    pub(crate) fn start(&mut self, name: &str, shape: &[usize], dtype: StoredDtype) {
        use sha2::Digest as _;
        // Lengths first, so that no two lists of tensors write the same bytes.
        self.0.update((name.len() as u64).to_le_bytes());
        self.0.update(name);
        self.0.update((shape.len() as u64).to_le_bytes());
        for &dim in shape {
            self.0.update((dim as u64).to_le_bytes());
        }
        self.0.update(dtype.safetensors_name());
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        use sha2::Digest as _;
        self.0.update(bytes);
    }

    pub(crate) fn finish(self) -> String {
        use sha2::Digest as _;
        crate::manifest::hex(&self.0.finalize())
    }
}
