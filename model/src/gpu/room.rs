//! How large a step may be, and what memory that takes between the kernels.

use cuda::Float;

use super::arena::WeightElement;
use super::products::widened_len;
use crate::config::LlamaConfig;

/// The largest step that there is room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    pub num_tokens: usize,
    pub num_sequences: usize,
    pub num_rows: usize,
    /// Rows whose logits are held at once.
    pub logits_rows: usize,
    /// Positions are below this.
    pub max_context: usize,
    /// What weights are stored in.
    pub weights: WeightElement,
}

impl Room {
    /// Bytes that a [`super::Network`] with activations in `A` takes.
    pub fn num_bytes<A: Float>(&self, config: &LlamaConfig) -> usize {
        let size = size_of::<A>();
        let (tokens, rows) = (self.num_tokens, self.num_rows);
        let (hidden, query) = (config.hidden_size, config.query_size());
        let floats = hidden + (query + 2 * config.kv_size()) + query + 3 * config.intermediate_size;
        let for_tokens = tokens * (4 * hidden + size * floats);
        let for_rows =
            rows * (4 * hidden + size * query) + 4 * self.logits_rows * config.vocab_size;
        let rope = 4 * self.max_context * config.head_dim;
        let widened = size * widened_len::<A>(config, self.products());
        for_tokens + for_rows + rope + widened
    }

    /// Weights of what element are multiplied with how many rows at most.
    pub(super) fn products(&self) -> (WeightElement, usize) {
        (self.weights, self.num_tokens.max(self.logits_rows))
    }
}
