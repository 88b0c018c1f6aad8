//! A checkpoint folder's weights on their way into an arena: rounded to bf16 or to 8 bits, or as they are.

use std::path::Path;

use cuda::Float;
use rayon::prelude::*;

use super::WeightElement;
use super::layout::{Len, Place};
use crate::config::LlamaConfig;
use crate::error::Result;
use crate::load::TensorReader;
use crate::weights::EMBED;

/// Values that are converted by one task.
const CHUNK: usize = 1 << 16;

/// Whole numbers of a row's scale go from minus this to this.
const MOST: f32 = 127.0;

/// A tensor as it lies in an arena, and where.
pub(super) enum Part<'a, A> {
    Norm(usize, &'a [f32]),
    Float(usize, &'a [A]),
    /// Values and the scale of each row, each with its place.
    Int8((usize, &'a [i8]), (usize, &'a [f32])),
}

/// Memory for one tensor.
#[derive(Default)]
struct Rounded<A> {
    floats: Vec<A>,
    int8s: Vec<i8>,
    scales: Vec<f32>,
}

/// Hands a checkpoint folder's tensors out in the order of an arena, and returns their digest. A tied head
/// that is a copy comes with the embedding.
pub(super) fn read<A: Float>(
    dir: &Path,
    config: &LlamaConfig,
    (element, head): (WeightElement, &Place),
    mut take: impl FnMut(Part<'_, A>) -> Result<()>,
) -> Result<String> {
    config.check(Path::new("config"))?;
    let mut reader = TensorReader::open(dir, config)?;
    let mut at = Len::default();
    let mut rounded = Rounded::<A>::default();
    for tensor in reader.by_ref() {
        let (spec, values) = tensor?;
        let is_embedding = spec.name == EMBED;
        if spec.shape.len() == 1 {
            take(Part::Norm(at.norms, &values))?;
            at.norms += values.len();
            continue;
        }
        let width = spec.shape[1];
        if element == WeightElement::Float || is_embedding {
            take(Part::Float(at.floats, rounded.round(&values)))?;
            at.floats += values.len();
        }
        if element == WeightElement::Int8 && (!is_embedding || config.tie_word_embeddings) {
            let (int8s, scales) = rounded.quantize(&values, width);
            if is_embedding {
                let place = (head.values.start, head.scales.start);
                take(Part::Int8((place.0, int8s), (place.1, scales)))?;
            } else {
                take(Part::Int8((at.int8s, int8s), (at.scales, scales)))?;
                at.int8s += int8s.len();
                at.scales += scales.len();
            }
        }
    }
    Ok(reader.digest())
}

impl<A: Float> Rounded<A> {
    fn round(&mut self, values: &[f32]) -> &[A] {
        self.floats.resize(values.len(), A::default());
        let to = self.floats.par_chunks_mut(CHUNK);
        to.zip(values.par_chunks(CHUNK)).for_each(|(to, values)| {
            for (to, value) in to.iter_mut().zip(values) {
                *to = A::of(*value);
            }
        });
        &self.floats
    }

    /// Values, and a scale for each row of `width`.
    fn quantize(&mut self, values: &[f32], width: usize) -> (&[i8], &[f32]) {
        self.int8s.resize(values.len(), 0);
        self.scales.resize(values.len() / width, 0.0);
        quantize_rows(values, (&mut self.int8s, &mut self.scales));
        (&self.int8s, &self.scales)
    }
}

/// As [`cuda::quantize_rows`] does it, to the bit: `values` \[O, K\] become whole numbers \[O, K\] of the scale
/// of their row, and the scales \[O\], which say how many rows there are. Every value is finite.
pub fn quantize_rows(values: &[f32], (to, scales): (&mut [i8], &mut [f32])) {
    let width = values.len() / scales.len().max(1);
    if width == 0 {
        return;
    }
    let rows = (CHUNK / width).max(1);
    let to = to.par_chunks_mut(rows * width);
    let from = values.par_chunks(rows * width);
    let scales = scales.par_chunks_mut(rows);
    to.zip(from).zip(scales).for_each(|((to, from), scales)| {
        let rows = to.chunks_mut(width).zip(from.chunks(width));
        for ((to, from), scale) in rows.zip(scales) {
            *scale = quantize_row(from, to);
        }
    });
}

fn quantize_row(values: &[f32], to: &mut [i8]) -> f32 {
    let largest = values.iter().fold(0.0_f32, |most, v| most.max(v.abs()));
    let scale = largest / MOST;
    let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
    for (to, value) in to.iter_mut().zip(values) {
        *to = (value * inverse).round_ties_even().clamp(-MOST, MOST) as i8;
    }
    scale
}

#[cfg(test)]
mod tests;
