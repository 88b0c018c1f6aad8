//! Named shapes of random models.

use crate::config::{Llama3RopeScaling, LlamaConfig};
use crate::dtype::StoredDtype;

/// The names [`preset`] knows, with what each is.
pub const PRESETS: [(&str, &str); 6] = [
    ("tiny", "5 M parameters, vocabulary 4,096, f32"),
    (
        "tiny-704",
        "tiny with an inner width of 704, which int8 on a GPU can sum over",
    ),
    ("small", "109 M parameters, vocabulary 4,096, f32"),
    ("1b", "1 B parameters, vocabulary 4,096, bf16"),
    (
        "3b",
        "the shape of Llama-3.2-3B: 3.2 B parameters, vocabulary 128,256, bf16",
    ),
    (
        "llama3-vocab-tiny",
        "8 M parameters, vocabulary 128,256, llama3 rope scaling, bf16",
    ),
];

/// The config of one of [`PRESETS`].
pub fn preset(name: &str) -> Option<LlamaConfig> {
    match name {
        "tiny" => Some(tiny()),
        "tiny-704" => Some(tiny_704()),
        "small" => Some(small()),
        "1b" => Some(one_b()),
        "3b" => Some(three_b()),
        "llama3-vocab-tiny" => Some(llama3_vocab_tiny()),
        _ => None,
    }
}

fn tiny() -> LlamaConfig {
    LlamaConfig {
        vocab_size: 4096,
        hidden_size: 256,
        intermediate_size: 688,
        num_hidden_layers: 6,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 64,
        rms_norm_eps: 1e-5,
        rope_theta: 10_000.0,
        rope_scaling: None,
        tie_word_embeddings: true,
        max_position_embeddings: 2048,
        dtype: StoredDtype::F32,
        bos_token_id: Some(0),
        eos_token_ids: vec![1],
        pad_token_id: Some(3),
    }
}

fn tiny_704() -> LlamaConfig {
    LlamaConfig {
        intermediate_size: 704,
        ..tiny()
    }
}

fn small() -> LlamaConfig {
    LlamaConfig {
        hidden_size: 576,
        intermediate_size: 1536,
        num_hidden_layers: 30,
        num_attention_heads: 9,
        num_key_value_heads: 3,
        ..tiny()
    }
}

fn one_b() -> LlamaConfig {
    LlamaConfig {
        hidden_size: 2048,
        intermediate_size: 8192,
        num_hidden_layers: 16,
        num_attention_heads: 32,
        num_key_value_heads: 8,
        rope_theta: 500_000.0,
        max_position_embeddings: 4096,
        dtype: StoredDtype::Bf16,
        ..tiny()
    }
}

/// The published config of Llama-3.2-3B.
fn three_b() -> LlamaConfig {
    LlamaConfig {
        vocab_size: 128_256,
        hidden_size: 3072,
        intermediate_size: 8192,
        num_hidden_layers: 28,
        num_attention_heads: 24,
        num_key_value_heads: 8,
        head_dim: 128,
        rms_norm_eps: 1e-5,
        rope_theta: 500_000.0,
        rope_scaling: Some(Llama3RopeScaling {
            factor: 32.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 8192,
        }),
        tie_word_embeddings: true,
        max_position_embeddings: 131_072,
        dtype: StoredDtype::Bf16,
        bos_token_id: Some(128_000),
        eos_token_ids: vec![128_001, 128_008, 128_009],
        pad_token_id: Some(128_004),
    }
}

fn llama3_vocab_tiny() -> LlamaConfig {
    LlamaConfig {
        hidden_size: 64,
        intermediate_size: 192,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 16,
        max_position_embeddings: 16_384,
        ..three_b()
    }
}
