//! Rotary frequencies from a config, Llama 3's scaling included.

use kernels::RopeTable;

use crate::config::{Llama3RopeScaling, LlamaConfig};

/// Cosines and sines for positions below `max_positions`. `[max_positions, D/2]`
pub fn rope_table(config: &LlamaConfig, max_positions: usize) -> RopeTable {
    RopeTable::new(&inverse_frequencies(config), max_positions)
}

/// `theta^(-2i/D)` for i < D/2, scaled where the config says so; in f32 throughout, as transformers
/// computes them: the angle of a late position multiplies any difference.
pub fn inverse_frequencies(config: &LlamaConfig) -> Vec<f32> {
    let (theta, dim) = (config.rope_theta as f32, config.head_dim as f32);
    (0..config.head_dim / 2)
        .map(|i| 1.0 / theta.powf(2.0 * i as f32 / dim))
        .map(|frequency| match &config.rope_scaling {
            None => frequency,
            Some(scaling) => scale_llama3(frequency, scaling),
        })
        .collect()
}

/// `_compute_llama3_parameters` of transformers' `modeling_rope_utils.py`.
fn scale_llama3(frequency: f32, scaling: &Llama3RopeScaling) -> f32 {
    let original = scaling.original_max_position_embeddings as f32;
    let (factor, low, high) = (
        scaling.factor as f32,
        scaling.low_freq_factor as f32,
        scaling.high_freq_factor as f32,
    );
    let wave_length = 2.0 * std::f32::consts::PI / frequency;
    if wave_length > original / low {
        frequency / factor
    } else if wave_length < original / high {
        frequency
    } else {
        let smooth = (original / wave_length - low) / (high - low);
        (1.0 - smooth) * frequency / factor + smooth * frequency
    }
}
