//! Where in an arena each weight lies: tensors in the order of [`crate::weights::tensor_specs`], so that those
//! that multiply the same input are neighbours.

use std::ops::Range;

use super::WeightElement;
use crate::config::LlamaConfig;

/// What is where, and how much of each kind there is.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    pub(super) element: WeightElement,
    /// Never int8: rows of it are looked up.
    pub(super) embed: Range<usize>,
    pub(super) layers: Vec<LayerLayout>,
    pub(super) norm: Range<usize>,
    /// Where tied the embedding, or a copy of it in int8.
    pub(super) head: Place,
    pub(super) len: Len,
}

#[derive(Debug, Clone)]
pub(super) struct LayerLayout {
    pub(super) input_norm: Range<usize>,
    pub(super) qkv: Place,
    pub(super) o: Place,
    pub(super) post_norm: Range<usize>,
    pub(super) gate_up: Place,
    pub(super) down: Place,
}

/// Where a matrix lies, among those of its element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) values: Range<usize>,
    /// Of int8, one for each row.
    pub(super) scales: Range<usize>,
}

/// How many there are of everything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Len {
    pub(super) floats: usize,
    pub(super) int8s: usize,
    pub(super) scales: usize,
    pub(super) norms: usize,
}

impl Layout {
    pub(super) fn new(config: &LlamaConfig, element: WeightElement) -> Self {
        let (hidden, mlp) = (config.hidden_size, config.intermediate_size);
        let (query, kv) = (config.query_size(), config.kv_size());
        let mut len = Len::default();
        let embed = take(&mut len.floats, config.vocab_size * hidden);
        let layers = (0..config.num_hidden_layers)
            .map(|_| LayerLayout {
                input_norm: take(&mut len.norms, hidden),
                qkv: len.place(element, (query + 2 * kv, hidden)),
                o: len.place(element, (hidden, query)),
                post_norm: take(&mut len.norms, hidden),
                gate_up: len.place(element, (2 * mlp, hidden)),
                down: len.place(element, (hidden, mlp)),
            })
            .collect();
        let norm = take(&mut len.norms, hidden);
        let head = if config.tie_word_embeddings && element == WeightElement::Float {
            Place {
                values: embed.clone(),
                scales: 0..0,
            }
        } else {
            len.place(element, (config.vocab_size, hidden))
        };
        Self {
            element,
            embed,
            layers,
            norm,
            head,
            len,
        }
    }

    /// Whether the head is the embedding itself.
    pub(super) fn shares_embedding(&self) -> bool {
        self.element == WeightElement::Float && self.head.values == self.embed
    }
}

impl Len {
    /// The next matrix.
    fn place(&mut self, element: WeightElement, (rows, width): (usize, usize)) -> Place {
        match element {
            WeightElement::Float => Place {
                values: take(&mut self.floats, rows * width),
                scales: 0..0,
            },
            WeightElement::Int8 => Place {
                values: take(&mut self.int8s, rows * width),
                scales: take(&mut self.scales, rows),
            },
        }
    }

    /// Where floats have `float_size` bytes.
    pub(super) fn num_bytes(&self, float_size: usize) -> usize {
        float_size * self.floats + self.int8s + 4 * (self.scales + self.norms)
    }
}

fn take(end: &mut usize, len: usize) -> Range<usize> {
    *end += len;
    *end - len..*end
}
