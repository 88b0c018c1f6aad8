use super::*;
use crate::config::BaseFormat;
use crate::lora::LoraTarget;
use crate::testing::{Head, tiny_config};

fn full(config: &LlamaConfig) -> ModelFlops {
    ModelFlops::new(config, &Method::Full, config.num_parameters())
}

/// Of the tied model all weights count; of the untied one not the embedding, which only looks up.
#[test]
fn flops_follow_the_formula() {
    let (tied, untied) = (tiny_config(Head::Tied), tiny_config(Head::Untied));
    let count = |config: &LlamaConfig| full(config).of_step(1, 0) / 6.0;
    let embedding = (tied.vocab_size * tied.hidden_size) as f64;
    assert!((count(&tied) - tied.num_parameters() as f64).abs() < 1e-6);
    assert!((count(&untied) - (untied.num_parameters() as f64 - embedding)).abs() < 1e-6);
    // 2 layers of 4 heads of 4.
    let attention = full(&tied).of_step(0, 10);
    assert!((attention - 12.0 * 32.0 * 10.0).abs() < 1e-6);
}

/// The shape of Llama-3.2-3B: 5.83 TFLOP for one example of 300 tokens, by training.md's own count, and
/// about two thirds of it where the weights are frozen.
#[test]
fn flops_of_the_3b_shape() {
    let config = crate::budget::tests::llama_3b();
    let flops = ModelFlops::new(&config, &Method::Full, config.num_parameters());
    let example = flops.of_step(300, 300 * 301 / 2);
    assert!((example / 5.83e12 - 1.0).abs() < 0.01, "{example:e}");
    let lora = crate::budget::tests::lora(&LoraTarget::ALL, BaseFormat::Bf16);
    let frozen = ModelFlops::new(&config, &lora, 24_313_856).of_step(300, 300 * 301 / 2);
    assert!((0.66..0.69).contains(&(frozen / example)), "{frozen:e}");
}

/// A measured rate is a rate.
#[test]
fn cpu_rate_is_measured() {
    let tflops = measured_cpu_tflops(Compute::F32).unwrap();
    assert!(tflops > 1e-4 && tflops < 1e3, "{tflops}");
}
