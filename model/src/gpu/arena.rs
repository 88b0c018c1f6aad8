//! All weights of a model in one place of GPU memory: matrices as activations (bf16 or f32) or in int8, norms in f32. An arena stays
//! where it is for as long as the server runs, so that graphs may hold its addresses; another checkpoint is
//! another content.

mod layout;
mod read;

use std::ops::Range;
use std::path::Path;

use cuda::{CudaSlice, CudaView, Device, Element, Float, HEAD_DIMS, Uploader};

use self::layout::{Layout, Place};
pub use self::read::quantize_rows;
use self::read::{Part, read};
use crate::config::LlamaConfig;
use crate::error::{ModelError, Result};

/// What matrices are stored in; the embedding, of which rows are looked up, always as activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeightElement {
    /// As activations.
    Float,
    /// Whole numbers from -127 to 127 of a scale of the row, rounded from what the checkpoint holds.
    Int8,
}

/// Weights on the GPU; empty until they are loaded.
#[derive(Debug)]
pub struct Arena<A> {
    layout: Layout,
    floats: CudaSlice<A>,
    int8s: CudaSlice<i8>,
    scales: CudaSlice<f32>,
    norms: CudaSlice<f32>,
    digest: String,
}

/// The content of an arena in the host's memory.
#[derive(Debug)]
pub struct HostWeights<A> {
    floats: Vec<A>,
    int8s: Vec<i8>,
    scales: Vec<f32>,
    norms: Vec<f32>,
    digest: String,
}

/// A matrix \[out, in\].
#[derive(Debug)]
pub(super) enum Matrix<'a, A> {
    Float(CudaView<'a, A>),
    Int8 {
        values: CudaView<'a, i8>,
        /// `[out]`
        scales: CudaView<'a, f32>,
    },
}

/// One layer's weights.
pub(super) struct Layer<'a, A> {
    /// `[C]`
    pub(super) input_norm: CudaView<'a, f32>,
    /// q over k over v: `[(H + 2 G) * D, C]`
    pub(super) qkv: Matrix<'a, A>,
    /// `[C, H * D]`
    pub(super) o: Matrix<'a, A>,
    /// `[C]`
    pub(super) post_norm: CudaView<'a, f32>,
    /// gate over up: `[2 F, C]`
    pub(super) gate_up: Matrix<'a, A>,
    /// `[C, F]`
    pub(super) down: Matrix<'a, A>,
}

/// Bytes of an arena for `config`.
pub fn arena_bytes<A: Float>(config: &LlamaConfig, element: WeightElement) -> usize {
    Layout::new(config, element).len.num_bytes(size_of::<A>())
}

impl<A: Float> Arena<A> {
    /// Takes the memory.
    pub fn new(device: &Device, config: &LlamaConfig, element: WeightElement) -> Result<Self> {
        let layout = Layout::new(config, element);
        Ok(Self {
            floats: device.zeros(layout.len.floats)?,
            int8s: device.zeros(layout.len.int8s)?,
            scales: device.zeros(layout.len.scales)?,
            norms: device.zeros(layout.len.norms)?,
            layout,
            digest: String::new(),
        })
    }

    /// Fills the arena with a checkpoint folder's weights, through `uploader`'s stream, and waits for that.
    /// After an error the content is of no use.
    pub fn load(
        &mut self,
        uploader: &mut Uploader,
        dir: &Path,
        config: &LlamaConfig,
    ) -> Result<()> {
        self.digest.clear();
        let kind = (self.layout.element, &self.layout.head);
        let digest = read(dir, config, kind, |part| match part {
            Part::Norm(at, values) => write(uploader, values, (&mut self.norms, at)),
            Part::Float(at, values) => write(uploader, values, (&mut self.floats, at)),
            Part::Int8((at, values), (scales_at, scales)) => {
                write(uploader, values, (&mut self.int8s, at))?;
                write(uploader, scales, (&mut self.scales, scales_at))
            }
        })?;
        uploader.device().synchronize()?;
        self.digest = digest;
        Ok(())
    }

    /// Fills the arena with weights that were loaded before in its element, and waits for that.
    pub fn copy_from(&mut self, device: &Device, weights: &HostWeights<A>) -> Result<()> {
        device.write(&weights.floats, &mut self.floats)?;
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
            size_of::<A>() * layout.embed.len()
        };
        layout.len.num_bytes(size_of::<A>()) - unread
    }

    pub(super) fn embed(&self) -> CudaView<'_, A> {
        self.floats.slice(self.layout.embed.clone())
    }

    pub(super) fn head(&self) -> Matrix<'_, A> {
        self.matrix(&self.layout.head)
    }

    pub(super) fn norm(&self) -> CudaView<'_, f32> {
        self.norms.slice(self.layout.norm.clone())
    }

    pub(super) fn layer(&self, index: usize) -> Layer<'_, A> {
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

    fn matrix(&self, place: &Place) -> Matrix<'_, A> {
        let values = place.values.clone();
        match self.layout.element {
            WeightElement::Float => Matrix::Float(self.floats.slice(values)),
            WeightElement::Int8 => Matrix::Int8 {
                values: self.int8s.slice(values),
                scales: self.scales.slice(place.scales.clone()),
            },
        }
    }
}

fn write<T: Element>(
    uploader: &mut Uploader,
    values: &[T],
    (to, at): (&mut CudaSlice<T>, usize),
) -> Result<()> {
    let mut to = to.slice_mut(at..at + values.len());
    Ok(uploader.write(values, &mut to)?)
}

impl<A: Float> HostWeights<A> {
    /// For an arena of this element.
    pub fn load(dir: &Path, config: &LlamaConfig, element: WeightElement) -> Result<Self> {
        let layout = Layout::new(config, element);
        let mut weights = Self {
            floats: vec![A::default(); layout.len.floats],
            int8s: vec![0; layout.len.int8s],
            scales: vec![0.0; layout.len.scales],
            norms: vec![0.0; layout.len.norms],
            digest: String::new(),
        };
        weights.digest = read(dir, config, (element, &layout.head), |part| {
            match part {
                Part::Norm(at, values) => copy(values, (&mut weights.norms, at)),
                Part::Float(at, values) => copy(values, (&mut weights.floats, at)),
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
        WeightElement::Float => (8, "on a GPU"),
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
    if !HEAD_DIMS.contains(&config.head_dim) {
        return wrong("head_dim", "32, 64 or 128", config.head_dim);
    }
    // What products sum over, and, in the vocabulary, what they make.
    for (key, size, unit) in [
        ("hidden_size", config.hidden_size, unit),
        ("intermediate_size", config.intermediate_size, unit),
        ("num_attention_heads * head_dim", config.query_size(), unit),
        ("vocab_size", config.vocab_size, 8),
    ] {
        if !size.is_multiple_of(unit) {
            return wrong(key, &format!("a multiple of {unit}"), size);
        }
    }
    Ok(())
}
