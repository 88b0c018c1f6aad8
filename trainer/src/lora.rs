//! LoRA: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models" (arXiv 2106.09685). A frozen
//! projection W gets a product of two thin matrices beside it:
//! y = x·Wᵀ + alpha/rank · dropout(x)·Aᵀ·Bᵀ, A `[rank, in]`, B `[out, rank]`, B zero at first.
//! The arithmetic is in `forward/linear.rs`, the files in `lora/peft.rs`.

#![expect(non_snake_case, reason = "tensors end in their shape")]

pub mod merge;
pub mod peft;

use candle_core::{Device, Tensor};
use kernels::{Compute, Matrix, linear_input_grad_accumulate};
use serde::{Deserialize, Serialize};

use crate::config::{BaseFormat, require};
use crate::error::Result;
use crate::rng::{CounterRng, Stream};
use crate::weights::Weight;

/// What is learned beside which frozen weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoraConfig {
    pub rank: usize,
    pub alpha: f64,
    /// Odds that an input of an adapter is left out in a training step.
    pub dropout: f64,
    pub targets: Vec<LoraTarget>,
    /// How the frozen weights lie in memory.
    pub base: BaseFormat,
}

/// A projection that may have an adapter; named as Hugging Face names its module.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum LoraTarget {
    QProj,
    KProj,
    VProj,
    OProj,
    GateProj,
    UpProj,
    DownProj,
}

impl LoraTarget {
    pub const ALL: [Self; 7] = [
        Self::QProj,
        Self::KProj,
        Self::VProj,
        Self::OProj,
        Self::GateProj,
        Self::UpProj,
        Self::DownProj,
    ];

    /// The module's name in a checkpoint.
    pub fn module(self) -> &'static str {
        match self {
            Self::QProj => "q_proj",
            Self::KProj => "k_proj",
            Self::VProj => "v_proj",
            Self::OProj => "o_proj",
            Self::GateProj => "gate_proj",
            Self::UpProj => "up_proj",
            Self::DownProj => "down_proj",
        }
    }
}

/// The two thin matrices beside a projection.
#[derive(Debug, Clone)]
pub struct Adapter {
    /// `[rank, in]`
    pub a: Weight,
    /// `[out, rank]`
    pub b: Weight,
    /// alpha / rank.
    pub scale: f32,
    pub dropout: f32,
}

impl Adapter {
    /// values_OC += scale · B·A, in place: what the adapter does to a projection, without dropout.
    pub(crate) fn add_to(&self, values_OC: &Tensor) -> Result<()> {
        let b_OR = self.b.matrix.to_f32()?;
        add_product(&b_OR, &self.a.matrix, f64::from(self.scale), values_OC)
    }
}

/// values_OC += scale · B·A, in place.
pub(crate) fn add_product(
    b_OR: &Tensor,
    a_RC: &Matrix,
    scale: f64,
    values_OC: &Tensor,
) -> Result<()> {
    let scaled_OR = (b_OR * scale)?;
    // B·A is what the input gradient of a projection A is for B.
    Ok(linear_input_grad_accumulate(
        &scaled_OR,
        a_RC,
        Compute::F32,
        values_OC,
    )?)
}

impl LoraConfig {
    /// alpha / rank.
    pub fn scale(&self) -> f32 {
        (self.alpha / self.rank as f64) as f32
    }

    /// Checks ranges; the flag at fault is named.
    pub fn check(&self) -> Result<()> {
        require("--lora-rank", self.rank, "1 or more", |rank| rank > 0)?;
        require("--lora-alpha", self.alpha, "a number > 0", |alpha| {
            alpha.is_finite() && alpha > 0.0
        })?;
        require("--lora-dropout", self.dropout, "0 <= odds < 1", |odds| {
            (0.0..1.0).contains(&odds)
        })
    }

    /// A's and B's first values: A uniform within ±1/√in (PyTorch's default for a linear layer, which
    /// PEFT keeps), B zero, so that the model is at first what it was.
    pub(crate) fn initial(
        &self,
        number: u32,
        seed: u64,
        (outputs, inputs): (usize, usize),
    ) -> Result<(Tensor, Tensor)> {
        let rng = CounterRng::new(seed, Stream::Adapter { parameter: number });
        let bound = 1.0 / (inputs as f64).sqrt();
        let values: Vec<f32> = (0..(self.rank * inputs) as u64)
            .map(|at| (bound * (2.0 * rng.uniform(at) - 1.0)) as f32)
            .collect();
        let a = Tensor::from_vec(values, (self.rank, inputs), &Device::Cpu)?;
        let zeros = vec![0.0_f32; outputs * self.rank];
        let b = Tensor::from_vec(zeros, (outputs, self.rank), &Device::Cpu)?;
        Ok((a, b))
    }
}

/// PEFT's names of the adapter of the weight with this Hugging Face name: A's and B's.
pub(crate) fn adapter_names(weight: &str) -> [String; 2] {
    let module = weight.strip_suffix(".weight").unwrap_or(weight);
    ["A", "B"].map(|part| format!("base_model.model.{module}.lora_{part}.weight"))
}

#[cfg(test)]
mod tests;
