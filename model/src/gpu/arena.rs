//! All weights of a model in one place of GPU memory: matrices in bf16 or int8, norms in f32. An arena stays
//! where it is for as long as the server runs, so that graphs may hold its addresses; another checkpoint is
//! another content.

mod layout;
mod read;

use std::ops::Range;
use std::path::Path;

use cuda::{CudaSlice, CudaView, Device, Element};
use half::bf16;

use self::layout::{Layout, Place};
pub use self::read::quantize_rows;
use self::read::{Part, read};
use crate::config::LlamaConfig;
use crate::error::{ModelError, Result};

/// What matrices are stored in; the embedding, of which rows are looked up, is always bf16.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeightElement {
    Bf16,
    /// Whole numbers from -127 to 127 of a scale of the row, rounded from what the checkpoint holds.
    Int8,
}

/// Weights on the GPU; empty until they are loaded.
#[derive(Debug)]
pub struct Arena {
    layout: Layout,
    bf16s: CudaSlice<bf16>,
    int8s: CudaSlice<i8>,
    scales: CudaSlice<f32>,
    norms: CudaSlice<f32>,
    digest: String,
}

/// The content of an arena in the host's memory.
#[derive(Debug)]
pub struct HostWeights {
    bf16s: Vec<bf16>,
    int8s: Vec<i8>,
    scales: Vec<f32>,
    norms: Vec<f32>,
    digest: String,
}

/// A matrix \[out, in\].
#[derive(Debug)]
pub(super) enum Matrix<'a> {
    Bf16(CudaView<'a, bf16>),
    Int8 {
        values: CudaView<'a, i8>,
        /// `[out]`
        scales: CudaView<'a, f32>,
    },
}

/// One layer's weights.
pub(super) struct Layer<'a> {
    /// `[C]`
    pub(super) input_norm: CudaView<'a, f32>,
    /// q over k over v: `[(H + 2 G) * D, C]`
    pub(super) qkv: Matrix<'a>,
    /// `[C, H * D]`
    pub(super) o: Matrix<'a>,
    /// `[C]`
    pub(super) post_norm: CudaView<'a, f32>,
    /// gate over up: `[2 F, C]`
    pub(super) gate_up: Matrix<'a>,
    /// `[C, F]`
    pub(super) down: Matrix<'a>,
}

/// Bytes of an arena for `config`.
pub fn arena_bytes(config: &LlamaConfig, element: WeightElement) -> usize {
    Layout::new(config, element).len.num_bytes()
}

impl Arena {
    /// Takes the memory.
    pub fn new(device: &Device, config: &LlamaConfig, element: WeightElement) -> Result<Self> {
        let layout = Layout::new(config, element);
        Ok(Self {
            bf16s: device.zeros(layout.len.bf16s)?,
            int8s: device.zeros(layout.len.int8s)?,
            scales: device.zeros(layout.len.scales)?,
            norms: device.zeros(layout.len.norms)?,
            layout,
            digest: String::new(),
        })
    }

    /// Fills the arena with a checkpoint folder's weights, through `device`'s stream, and waits for that.
    /// After an error the content is of no use.
    pub fn load(&mut self, device: &Device, dir: &Path, config: &LlamaConfig) -> Result<()> {
        self.digest.clear();
        let kind = (self.layout.element, &self.layout.head);
        let digest = read(dir, config, kind, |part| match part {
            Part::Norm(at, values) => write(device, values, (&mut self.norms, at)),
            Part::Bf16(at, values) => write(device, values, (&mut self.bf16s, at)),
            Part::Int8((at, values), (scales_at, scales)) => {
                write(device, values, (&mut self.int8s, at))?;
                write(device, scales, (&mut self.scales, scales_at))
            }
        })?;
        device.synchronize()?;
        self.digest = digest;
        Ok(())
    }

    /// Fills the arena with weights that were loaded before in its element, and waits for that.
    pub fn copy_from(&mut self, device: &Device, weights: &HostWeights) -> Result<()> {
        device.write(&weights.bf16s, &mut self.bf16s)?;
        device.write(&weights.int8s, &mut self.int8s)?;
        device.write(&weights.scales, &mut self.scales)?;
        device.write(&weights.norms, &mut self.norms)?;
        device.synchronize()?;
        self.digest.clone_from(&weights.digest);
        Ok(())
    }

    /// Of the weights as they were stored (see [`crate::weights::Weights::digest`]).
    pub fn digest(&self) -> &str {
        &self.digest
    }

    pub fn element(&self) -> WeightElement {
        self.layout.element
    }

    /// Bytes that a decode step reads of the weights, but for the embedding where it is not the head.
    pub fn num_bytes_read(&self) -> usize {
        let layout = &self.layout;
        let unread = if layout.shares_embedding() {
            0
        } else {
            2 * layout.embed.len()
        };
        layout.len.num_bytes() - unread
    }

    pub(super) fn embed(&self) -> CudaView<'_, bf16> {
        self.bf16s.slice(self.layout.embed.clone())
    }

    pub(super) fn head(&self) -> Matrix<'_> {
        self.matrix(&self.layout.head)
    }

    pub(super) fn norm(&self) -> CudaView<'_, f32> {
        self.norms.slice(self.layout.norm.clone())
    }

    pub(super) fn layer(&self, index: usize) -> Layer<'_> {
        let layer = &self.layout.layers[index];
        let norm = |range: &Range<usize>| self.norms.slice(range.clone());
        Layer {
            input_norm: norm(&layer.input_norm),
            qkv: self.matrix(&layer.qkv),
            o: self.matrix(&layer.o),
            post_norm: norm(&layer.post_norm),
            gate_up: self.matrix(&layer.gate_up),
            down: self.matrix(&layer.down),
        }
    }

    fn matrix(&self, place: &Place) -> Matrix<'_> {
        let values = place.values.clone();
        match self.layout.element {
            WeightElement::Bf16 => Matrix::Bf16(self.bf16s.slice(values)),
            WeightElement::Int8 => Matrix::Int8 {
                values: self.int8s.slice(values),
                scales: self.scales.slice(place.scales.clone()),
            },
        }
    }
}

fn write<T: Element>(
    device: &Device,
    values: &[T],
    (to, at): (&mut CudaSlice<T>, usize),
) -> Result<()> {
    let mut to = to.slice_mut(at..at + values.len());
    Ok(device.write(values, &mut to)?)
}

impl HostWeights {
    /// For an arena of this element.
    pub fn load(dir: &Path, config: &LlamaConfig, element: WeightElement) -> Result<Self> {
        let layout = Layout::new(config, element);
        let mut weights = Self {
            bf16s: vec![bf16::ZERO; layout.len.bf16s],
            int8s: vec![0; layout.len.int8s],
            scales: vec![0.0; layout.len.scales],
            norms: vec![0.0; layout.len.norms],
            digest: String::new(),
        };
        weights.digest = read(dir, config, (element, &layout.head), |part| {
            match part {
                Part::Norm(at, values) => copy(values, (&mut weights.norms, at)),
                Part::Bf16(at, values) => copy(values, (&mut weights.bf16s, at)),
                Part::Int8((at, values), (scales_at, scales)) => {
                    copy(values, (&mut weights.int8s, at));
                    copy(scales, (&mut weights.scales, scales_at));
                }
            }
            Ok(())
        })?;
        Ok(weights)
    }

    /// As [`Arena::digest`].
    pub fn digest(&self) -> &str {
        &self.digest
    }
}

fn copy<T: Copy>(values: &[T], (to, at): (&mut [T], usize)) {
    to[at..at + values.len()].copy_from_slice(values);
}

/// What the kernels ask of a model's sizes.
pub fn check_config(config: &LlamaConfig, element: WeightElement) -> Result<()> {
    let (unit, place) = match element {
        WeightElement::Bf16 => (8, "on a GPU"),
        WeightElement::Int8 => (64, "on a GPU in int8"),
    };
    let wrong = |key: &str, expected: &str, found: usize| {
        Err(ModelError::Value {
            path: "config.json".into(),
            key: key.to_owned(),
            expected: format!("{expected} ({place})"),
            found: found.to_string(),
        })
    };
    if ![64, 128].contains(&config.head_dim) {
        return wrong("head_dim", "64 or 128", config.head_dim);
    }
    // What products sum over, and, in the vocabulary, what they make.
    for (key, size, unit) in [
        ("hidden_size", config.hidden_size, unit),
        ("intermediate_size", config.intermediate_size, unit),
        ("vocab_size", config.vocab_size, 8),
    ] {
        if !size.is_multiple_of(unit) {
            return wrong(key, &format!("a multiple of {unit}"), size);
        }
    }
    Ok(())
}
