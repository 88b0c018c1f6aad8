//! In what numbers the model is computed: `--dtype` and `--quantize`.

use clap::ValueEnum;
use kernels::WeightFormat;

/// Element type of weights and products.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Dtype {
    #[default]
    F32,
    Bf16,
}

/// Quantization of the weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Quantization {
    Int8,
}

/// Both flags, resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    Float(Dtype),
    Quantized(Quantization),
}

impl Precision {
    pub(super) fn new(dtype: Option<Dtype>, quantize: Option<Quantization>) -> Self {
        match quantize {
            Some(quantization) => Self::Quantized(quantization),
            None => Self::Float(dtype.unwrap_or_default()),
        }
    }

    /// As `GetModelInfo` says it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Float(Dtype::F32) => "float32",
            Self::Float(Dtype::Bf16) => "bfloat16",
            Self::Quantized(Quantization::Int8) => "int8",
        }
    }

    pub(crate) fn weight_format(self) -> WeightFormat {
        match self {
            Self::Float(Dtype::F32) => WeightFormat::F32,
            Self::Float(Dtype::Bf16) => WeightFormat::Bf16,
            Self::Quantized(Quantization::Int8) => WeightFormat::Int8,
        }
    }
}

impl Default for Precision {
    fn default() -> Self {
        Self::Float(Dtype::default())
    }
}
