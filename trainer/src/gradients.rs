//! One f32 gradient accumulator per weight, and nothing else.

use model::config::LlamaConfig;
use rayon::prelude::*;

/// Accumulators in the shapes of [`model::weights::Weights`], flat and row-major.
#[derive(Debug, Clone)]
pub struct Gradients {
    pub embed: Vec<f32>,
    pub layers: Vec<LayerGradients>,
    pub norm: Vec<f32>,
    /// `None` where the head is tied: then its gradient goes into `embed` too.
    pub lm_head: Option<Vec<f32>>,
}

#[derive(Debug, Clone)]
pub struct LayerGradients {
    pub input_norm: Vec<f32>,
    pub q: Vec<f32>,
    pub k: Vec<f32>,
    pub v: Vec<f32>,
    pub o: Vec<f32>,
    pub post_norm: Vec<f32>,
    pub gate: Vec<f32>,
    pub up: Vec<f32>,
    pub down: Vec<f32>,
}

impl Gradients {
    pub fn zeros(config: &LlamaConfig) -> Self {
        let (hidden, mlp) = (config.hidden_size, config.intermediate_size);
        let (query, kv) = (config.query_size(), config.kv_size());
        let zeros = |count: usize| vec![0.0; count];
        let layer = || LayerGradients {
            input_norm: zeros(hidden),
            q: zeros(query * hidden),
            k: zeros(kv * hidden),
            v: zeros(kv * hidden),
            o: zeros(hidden * query),
            post_norm: zeros(hidden),
            gate: zeros(mlp * hidden),
            up: zeros(mlp * hidden),
            down: zeros(hidden * mlp),
        };
        Self {
            embed: zeros(config.vocab_size * hidden),
            layers: (0..config.num_hidden_layers).map(|_| layer()).collect(),
            norm: zeros(hidden),
            lm_head: (!config.tie_word_embeddings).then(|| zeros(config.vocab_size * hidden)),
        }
    }

    /// Where the gradient of the output head is added up.
    pub fn head_mut(&mut self) -> &mut [f32] {
        self.lm_head.as_mut().unwrap_or(&mut self.embed)
    }

    /// Every accumulator in the order of `model::weights::tensor_specs`.
    pub fn in_order(&self) -> Vec<&[f32]> {
        let mut all: Vec<&[f32]> = vec![&self.embed];
        for layer in &self.layers {
            let LayerGradients {
                input_norm,
                q,
                k,
                v,
                o,
                post_norm,
                gate,
                up,
                down,
            } = layer;
            all.extend([input_norm, q, k, v, o, post_norm, gate, up, down].map(Vec::as_slice));
        }
        all.push(&self.norm);
        all.extend(self.lm_head.as_deref());
        all
    }

    /// As [`Gradients::in_order`], to write.
    pub fn in_order_mut(&mut self) -> Vec<&mut [f32]> {
        let mut all: Vec<&mut [f32]> = vec![&mut self.embed];
        for layer in &mut self.layers {
            let LayerGradients {
                input_norm,
                q,
                k,
                v,
                o,
                post_norm,
                gate,
                up,
                down,
            } = layer;
            all.extend([input_norm, q, k, v, o, post_norm, gate, up, down].map(Vec::as_mut_slice));
        }
        all.push(&mut self.norm);
        all.extend(self.lm_head.as_deref_mut());
        all
    }

    pub fn clear(&mut self) {
        self.in_order_mut()
            .into_par_iter()
            .for_each(|gradient| gradient.fill(0.0));
    }

    /// Adds `other`, value by value.
    pub fn add(&mut self, other: &Self) {
        let pairs = self.in_order_mut().into_par_iter().zip(other.in_order());
        pairs.for_each(|(own, other)| own.iter_mut().zip(other).for_each(|(a, b)| *a += b));
    }

    /// Square root of the sum of all squares, the same for any number of threads.
    pub fn global_norm(&self) -> f64 {
        self.in_order()
            .into_iter()
            .map(kernels::squared_norm)
            .sum::<f64>()
            .sqrt()
    }
}
