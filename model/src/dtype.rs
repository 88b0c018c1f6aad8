//! The element types a checkpoint file may hold, and conversion from and to `f32`.

use half::{bf16, f16};
use rayon::prelude::*;

/// Values that are converted by one task.
const CHUNK: usize = 1 << 16;

/// Element type of a stored weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StoredDtype {
    Bf16,
    F16,
    F32,
}

impl StoredDtype {
    pub const ALL: [Self; 3] = [Self::Bf16, Self::F16, Self::F32];

    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Self::Bf16 | Self::F16 => 2,
            Self::F32 => 4,
        }
    }

    /// As `config.json` writes it (PyTorch's name).
    pub fn torch_name(self) -> &'static str {
        match self {
            Self::Bf16 => "bfloat16",
            Self::F16 => "float16",
            Self::F32 => "float32",
        }
    }

    /// As a safetensors header writes it.
    pub fn safetensors_name(self) -> &'static str {
        match self {
            Self::Bf16 => "BF16",
            Self::F16 => "F16",
            Self::F32 => "F32",
        }
    }

    /// Accepts PyTorch's names, with or without `torch.`, and the short `bf16`, `f16`, `f32`.
    pub fn from_name(name: &str) -> Option<Self> {
        match name.strip_prefix("torch.").unwrap_or(name) {
            "bfloat16" | "bf16" | "BF16" => Some(Self::Bf16),
            "float16" | "half" | "f16" | "fp16" | "F16" => Some(Self::F16),
            "float32" | "float" | "f32" | "fp32" | "F32" => Some(Self::F32),
            _ => None,
        }
    }

    /// Little-endian bytes to `f32`, exactly (every bf16 and f16 is an f32). `bytes` must be a
    /// whole number of elements.
    pub fn decode(self, bytes: &[u8]) -> Vec<f32> {
        debug_assert_eq!(bytes.len() % self.size(), 0);
        let mut values = vec![0.0; bytes.len() / self.size()];
        let chunks = values.par_chunks_mut(CHUNK);
        chunks
            .zip(bytes.par_chunks(CHUNK * self.size()))
            .for_each(|(values, bytes)| self.decode_to(values, bytes));
        values
    }

    fn decode_to(self, values: &mut [f32], bytes: &[u8]) {
        for (value, b) in values.iter_mut().zip(bytes.chunks_exact(self.size())) {
            *value = match self {
                Self::Bf16 => bf16::from_le_bytes([b[0], b[1]]).to_f32(),
                Self::F16 => f16::from_le_bytes([b[0], b[1]]).to_f32(),
                Self::F32 => f32::from_le_bytes([b[0], b[1], b[2], b[3]]),
            };
        }
    }

    /// `f32` to little-endian bytes, rounding to nearest even; replaces what `bytes` held.
    pub fn encode_into(self, values: &[f32], bytes: &mut Vec<u8>) {
        bytes.clear();
        bytes.reserve(values.len() * self.size());
        match self {
            Self::Bf16 => {
                bytes.extend(values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()));
            }
            Self::F16 => bytes.extend(values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes())),
            Self::F32 => bytes.extend(values.iter().flat_map(|&v| v.to_le_bytes())),
        }
    }
}

impl std::fmt::Display for StoredDtype {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.torch_name())
    }
}
