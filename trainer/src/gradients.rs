//! One f32 gradient accumulator per parameter, and nothing else. Frozen weights have none.

use rayon::prelude::*;

use crate::weights::{Parameter, Slot};

/// Accumulators in the order of the network's parameters, flat and row-major.
#[derive(Debug, Clone)]
pub struct Gradients(Vec<Vec<f32>>);

impl Gradients {
    pub fn zeros(parameters: &[Parameter]) -> Self {
        let zeros = |parameter: &Parameter| vec![0.0; parameter.num_elements()];
        Self(parameters.iter().map(zeros).collect())
    }

    pub fn get_mut(&mut self, slot: Slot) -> &mut [f32] {
        &mut self.0[slot.0]
    }

    /// Every accumulator, in order.
    pub fn in_order(&self) -> impl Iterator<Item = &[f32]> {
        self.0.iter().map(Vec::as_slice)
    }

    /// As [`Gradients::in_order`], to write.
    pub fn in_order_mut(&mut self) -> impl Iterator<Item = &mut [f32]> {
        self.0.iter_mut().map(Vec::as_mut_slice)
    }

    pub fn clear(&mut self) {
        self.0.par_iter_mut().for_each(|values| values.fill(0.0));
    }

    /// Adds `other`, value by value.
    pub fn add(&mut self, other: &Self) {
        let pairs = self.0.par_iter_mut().zip(&other.0);
        pairs.for_each(|(own, other)| own.iter_mut().zip(other).for_each(|(a, b)| *a += b));
    }

    /// Square root of the sum of all squares, the same for any number of threads.
    pub fn global_norm(&self) -> f64 {
        self.in_order()
            .map(kernels::squared_norm)
            .sum::<f64>()
            .sqrt()
    }
}
