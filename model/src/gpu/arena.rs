//! All weights of a model in one piece of GPU memory: matrices in bf16, norms in f32. An arena stays where
//! it is for as long as the server runs, so that graphs may hold its addresses; another checkpoint is
//! another content.

use std::ops::Range;
use std::path::Path;

use cuda::{CudaSlice, CudaView, Device};
use half::bf16;
use rayon::prelude::*;

use crate::config::LlamaConfig;
use crate::error::{ModelError, Result};
use crate::load::TensorReader;

/// Values that are converted by one task.
const CHUNK: usize = 1 << 16;

/// Weights on the GPU; empty until they are loaded.
#[derive(Debug)]
pub struct Arena {
    layout: Layout,
    matrices: CudaSlice<bf16>,
    norms: CudaSlice<f32>,
    digest: String,
}

/// The content of an arena in the host's memory.
#[derive(Debug)]
pub struct HostWeights {
    matrices: Vec<bf16>,
    norms: Vec<f32>,
    digest: String,
}

/// A tensor as it lies in an arena, and where.
enum Part<'a> {
    Matrix(usize, &'a [bf16]),
    Norm(usize, &'a [f32]),
}

/// Where in an arena each weight lies: tensors in the order of
/// [`crate::weights::tensor_specs`], so that those that
/// multiply the same input are neighbours.
#[derive(Debug, Clone)]
struct Layout {
    embed: Range<usize>,
    layers: Vec<LayerLayout>,
    norm: Range<usize>,
    /// The embedding where tied.
    head: Range<usize>,
    num_matrix_values: usize,
    num_norm_values: usize,
}

#[derive(Debug, Clone)]
struct LayerLayout {
    input_norm: Range<usize>,
    qkv: Range<usize>,
    o: Range<usize>,
    post_norm: Range<usize>,
    gate_up: Range<usize>,
    down: Range<usize>,
}

/// One layer's weights. Matrices are \[out, in\].
pub(super) struct Layer<'a> {
    /// `[C]`
    pub(super) input_norm: CudaView<'a, f32>,
    /// q over k over v: `[(H + 2 G) * D, C]`
    pub(super) qkv: CudaView<'a, bf16>,
    /// `[C, H * D]`
    pub(super) o: CudaView<'a, bf16>,
    /// `[C]`
    pub(super) post_norm: CudaView<'a, f32>,
    /// gate over up: `[2 F, C]`
    pub(super) gate_up: CudaView<'a, bf16>,
    /// `[C, F]`
    pub(super) down: CudaView<'a, bf16>,
}

impl Layout {
    fn new(config: &LlamaConfig) -> Self {
        let (hidden, mlp) = (config.hidden_size, config.intermediate_size);
        let (query, kv) = (config.query_size(), config.kv_size());
        let (mut matrices, mut norms) = (0, 0);
        let take = |end: &mut usize, len: usize| {
            *end += len;
            *end - len..*end
        };
        let embed = take(&mut matrices, config.vocab_size * hidden);
        let layers = (0..config.num_hidden_layers)
            .map(|_| LayerLayout {
                input_norm: take(&mut norms, hidden),
                qkv: take(&mut matrices, (query + 2 * kv) * hidden),
                o: take(&mut matrices, hidden * query),
                post_norm: take(&mut norms, hidden),
                gate_up: take(&mut matrices, 2 * mlp * hidden),
                down: take(&mut matrices, hidden * mlp),
            })
            .collect();
        let norm = take(&mut norms, hidden);
        let head = if config.tie_word_embeddings {
            embed.clone()
        } else {
            take(&mut matrices, config.vocab_size * hidden)
        };
        Self {
            embed,
            layers,
            norm,
            head,
            num_matrix_values: matrices,
            num_norm_values: norms,
        }
    }
}

/// Bytes of an arena for `config`.
pub fn arena_bytes(config: &LlamaConfig) -> usize {
    let layout = Layout::new(config);
    2 * layout.num_matrix_values + 4 * layout.num_norm_values
}

impl Arena {
    /// Takes the memory.
    pub fn new(device: &Device, config: &LlamaConfig) -> Result<Self> {
        let layout = Layout::new(config);
        Ok(Self {
            matrices: device.zeros(layout.num_matrix_values)?,
            norms: device.zeros(layout.num_norm_values)?,
            layout,
            digest: String::new(),
        })
    }

    /// Fills the arena with a checkpoint folder's weights, through `device`'s stream, and waits for that.
    /// After an error the content is of no use.
    pub fn load(&mut self, device: &Device, dir: &Path, config: &LlamaConfig) -> Result<()> {
        self.digest.clear();
        let digest = read(dir, config, |part| match part {
            Part::Matrix(at, values) => {
                let mut to = self.matrices.slice_mut(at..at + values.len());
                Ok(device.write(values, &mut to)?)
            }
            Part::Norm(at, values) => {
                let mut to = self.norms.slice_mut(at..at + values.len());
                Ok(device.write(values, &mut to)?)
            }
        })?;
        device.synchronize()?;
        self.digest = digest;
        Ok(())
    }

    /// Fills the arena with weights that were loaded before, and waits for that.
    pub fn copy_from(&mut self, device: &Device, weights: &HostWeights) -> Result<()> {
        device.write(&weights.matrices, &mut self.matrices)?;
        device.write(&weights.norms, &mut self.norms)?;
        device.synchronize()?;
        self.digest.clone_from(&weights.digest);
        Ok(())
    }

    /// Of the weights as they were stored (see [`crate::weights::Weights::digest`]).
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Bytes that a step reads of the weights, but for the embedding where it is not the head.
    pub fn num_bytes_read(&self) -> usize {
        let layout = &self.layout;
        let embed = if layout.head == layout.embed {
            0
        } else {
            layout.embed.len()
        };
        2 * (layout.num_matrix_values - embed) + 4 * layout.num_norm_values
    }

    pub(super) fn embed(&self) -> CudaView<'_, bf16> {
        self.matrices.slice(self.layout.embed.clone())
    }

    pub(super) fn head(&self) -> CudaView<'_, bf16> {
        self.matrices.slice(self.layout.head.clone())
    }

    pub(super) fn norm(&self) -> CudaView<'_, f32> {
        self.norms.slice(self.layout.norm.clone())
    }

    pub(super) fn layer(&self, index: usize) -> Layer<'_> {
        let layer = &self.layout.layers[index];
        let matrix = |range: &Range<usize>| self.matrices.slice(range.clone());
        let norm = |range: &Range<usize>| self.norms.slice(range.clone());
        Layer {
            input_norm: norm(&layer.input_norm),
            qkv: matrix(&layer.qkv),
            o: matrix(&layer.o),
            post_norm: norm(&layer.post_norm),
            gate_up: matrix(&layer.gate_up),
            down: matrix(&layer.down),
        }
    }
}

impl HostWeights {
    pub fn load(dir: &Path, config: &LlamaConfig) -> Result<Self> {
        let layout = Layout::new(config);
        let mut matrices = Vec::with_capacity(layout.num_matrix_values);
        let mut norms = Vec::with_capacity(layout.num_norm_values);
        let digest = read(dir, config, |part| {
            match part {
                Part::Matrix(_, values) => matrices.extend_from_slice(values),
                Part::Norm(_, values) => norms.extend_from_slice(values),
            }
            Ok(())
        })?;
        Ok(Self {
            matrices,
            norms,
            digest,
        })
    }

    /// As [`Arena::digest`].
    pub fn digest(&self) -> &str {
        &self.digest
    }
}

/// Hands a checkpoint folder's tensors out in the order of an arena, and returns their digest.
fn read(
    dir: &Path,
    config: &LlamaConfig,
    mut take: impl FnMut(Part<'_>) -> Result<()>,
) -> Result<String> {
    config.check(Path::new("config"))?;
    let mut reader = TensorReader::open(dir, config)?;
    let (mut num_matrix_values, mut num_norm_values) = (0, 0);
    let mut rounded = Vec::new();
    for tensor in reader.by_ref() {
        let (spec, values) = tensor?;
        if spec.shape.len() == 1 {
            take(Part::Norm(num_norm_values, &values))?;
            num_norm_values += values.len();
        } else {
            rounded.resize(values.len(), bf16::ZERO);
            let to = rounded.par_chunks_mut(CHUNK).zip(values.par_chunks(CHUNK));
            to.for_each(|(to, values)| round(values, to));
            take(Part::Matrix(num_matrix_values, &rounded))?;
            num_matrix_values += values.len();
        }
    }
    Ok(reader.digest())
}

fn round(values: &[f32], to: &mut [bf16]) {
    for (to, value) in to.iter_mut().zip(values) {
        *to = bf16::from_f32(*value);
    }
}

/// What the kernels ask of a model's sizes.
pub fn check_config(config: &LlamaConfig) -> Result<()> {
    let wrong = |key: &str, expected: &str, found: usize| {
        Err(ModelError::Value {
            path: "config.json".into(),
            key: key.to_owned(),
            expected: format!("{expected} (on a GPU)"),
            found: found.to_string(),
        })
    };
    if ![64, 128].contains(&config.head_dim) {
        return wrong("head_dim", "64 or 128", config.head_dim);
    }
    for (key, size) in [
        ("hidden_size", config.hidden_size),
        ("intermediate_size", config.intermediate_size),
        ("vocab_size", config.vocab_size),
    ] {
        if !size.is_multiple_of(8) {
            return wrong(key, "a multiple of 8", size);
        }
    }
    Ok(())
}
