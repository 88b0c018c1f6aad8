//! The weights of a network in training: each knows whether it is trained and how it lies in memory.
//! What is trained stands in one list of [`Parameter`]s; a [`Slot`] is a place in it, and the gradient
//! and the moments of a parameter have the same place in theirs.

use candle_core::{DType, Tensor};
use kernels::{Matrix, MatrixFormat};
use model::config::LlamaConfig;
use model::weights::TensorSpec;

use crate::config::{BaseFormat, Method, Precision};
use crate::error::Result;
use crate::lora::{Adapter, LoraConfig, LoraTarget};

/// The place of a parameter among all that are trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Slot(pub usize);

/// A tensor that is trained. Its values are shared with the network's weights: the optimizer changes
/// them in place.
#[derive(Debug, Clone)]
pub struct Parameter {
    /// Hugging Face's name, or PEFT's where it is an adapter's.
    pub name: String,
    /// f32 or bf16.
    pub values: Tensor,
    /// Weight decay is for matrices; a norm's weight near 0 would switch its channel off.
    pub decays: bool,
}

impl Parameter {
    pub fn num_elements(&self) -> usize {
        self.values.elem_count()
    }
}

/// A matrix `[out, in]`.
#[derive(Debug, Clone)]
pub struct Weight {
    pub matrix: Matrix,
    /// `None`: frozen.
    pub slot: Option<Slot>,
}

/// The weights of a norm, f32: there are few, and near 1 a bf16 is too coarse to train.
#[derive(Debug, Clone)]
pub struct Norm {
    /// `[hidden]`
    pub values: Tensor,
    /// `None`: frozen.
    pub slot: Option<Slot>,
}

/// A projection, with what is learned beside it.
#[derive(Debug, Clone)]
pub struct Linear {
    pub weight: Weight,
    pub adapter: Option<Adapter>,
}

/// One transformer layer; shapes as in `model::weights::LayerWeights`.
#[derive(Debug, Clone)]
pub struct LayerWeights {
    pub input_norm: Norm,
    pub q: Linear,
    pub k: Linear,
    pub v: Linear,
    pub o: Linear,
    pub post_norm: Norm,
    pub gate: Linear,
    pub up: Linear,
    pub down: Linear,
}

/// All weights.
#[derive(Debug, Clone)]
pub struct NetworkWeights {
    /// `[vocab, hidden]`
    pub embed: Weight,
    pub layers: Vec<LayerWeights>,
    pub norm: Norm,
    /// `None`: the head is the embedding.
    pub lm_head: Option<Weight>,
}

impl NetworkWeights {
    /// The output head: `lm_head`, or the embedding where tied. `[vocab, hidden]`
    pub fn head(&self) -> &Weight {
        self.lm_head.as_ref().unwrap_or(&self.embed)
    }
}

/// One weight of a checkpoint.
#[derive(Debug, Clone, Copy)]
pub enum AnyWeight<'a> {
    Table(&'a Weight),
    Norm(&'a Norm),
    Linear(&'a Linear),
}

impl AnyWeight<'_> {
    /// The values that a plain checkpoint has, row-major: adapters are merged.
    pub fn merged(self) -> Result<Vec<f32>> {
        let values = match self {
            Self::Norm(norm) => norm.values.clone(),
            Self::Table(weight) => weight.matrix.to_f32()?,
            Self::Linear(Linear { weight, adapter }) => {
                let values = weight.matrix.to_f32()?;
                match adapter {
                    None => values,
                    Some(adapter) => {
                        // Its own memory: the network keeps its weight.
                        let values = values.copy()?;
                        adapter.add_to(&values)?;
                        values
                    }
                }
            }
        };
        Ok(values.flatten_all()?.to_vec1()?)
    }
}

impl NetworkWeights {
    /// Every weight in the order of `model::weights::tensor_specs`.
    pub fn in_order(&self) -> Vec<AnyWeight<'_>> {
        let mut all = vec![AnyWeight::Table(&self.embed)];
        for layer in &self.layers {
            all.extend([
                AnyWeight::Norm(&layer.input_norm),
                AnyWeight::Linear(&layer.q),
                AnyWeight::Linear(&layer.k),
                AnyWeight::Linear(&layer.v),
                AnyWeight::Linear(&layer.o),
                AnyWeight::Norm(&layer.post_norm),
                AnyWeight::Linear(&layer.gate),
                AnyWeight::Linear(&layer.up),
                AnyWeight::Linear(&layer.down),
            ]);
        }
        all.push(AnyWeight::Norm(&self.norm));
        all.extend(self.lm_head.as_ref().map(AnyWeight::Table));
        all
    }
}

/// Which weights are trained, and what is made of the tensors of a checkpoint.
#[derive(Debug)]
pub(crate) struct Builder<'a> {
    method: &'a Method,
    precision: Precision,
    seed: u64,
    parameters: Vec<Parameter>,
}

impl<'a> Builder<'a> {
    pub(crate) fn new(method: &'a Method, precision: Precision, seed: u64) -> Self {
        Self {
            method,
            precision,
            seed,
            parameters: Vec::new(),
        }
    }

    /// Takes over one f32 tensor per entry of `model::weights::tensor_specs`, in that order; each is
    /// in its final form before the next is asked for.
    ///
    /// # Panics
    /// If `tensors` ends early; shapes are the caller's duty.
    pub(crate) fn build(
        mut self,
        config: &LlamaConfig,
        tensors: impl IntoIterator<Item = Result<(TensorSpec, Tensor)>>,
    ) -> Result<(NetworkWeights, Vec<Parameter>)> {
        let mut tensors = tensors.into_iter();
        let mut next = || tensors.next().expect("one tensor per spec");
        let embed = self.table(next()?)?;
        let mut layers = Vec::with_capacity(config.num_hidden_layers);
        for _ in 0..config.num_hidden_layers {
            layers.push(LayerWeights {
                input_norm: self.norm(next()?),
                q: self.linear(next()?, LoraTarget::QProj)?,
                k: self.linear(next()?, LoraTarget::KProj)?,
                v: self.linear(next()?, LoraTarget::VProj)?,
                o: self.linear(next()?, LoraTarget::OProj)?,
                post_norm: self.norm(next()?),
                gate: self.linear(next()?, LoraTarget::GateProj)?,
                up: self.linear(next()?, LoraTarget::UpProj)?,
                down: self.linear(next()?, LoraTarget::DownProj)?,
            });
        }
        let norm = self.norm(next()?);
        let lm_head = if config.tie_word_embeddings {
            None
        } else {
            Some(self.table(next()?)?)
        };
        let weights = NetworkWeights {
            embed,
            layers,
            norm,
            lm_head,
        };
        Ok((weights, self.parameters))
    }

    fn train(&mut self, name: String, values: &Tensor) -> Slot {
        self.parameters.push(Parameter {
            name,
            values: values.clone(),
            decays: values.rank() >= 2,
        });
        Slot(self.parameters.len() - 1)
    }

    fn lora(&self) -> Option<&'a LoraConfig> {
        match self.method {
            Method::Full => None,
            Method::Lora(lora) => Some(lora),
        }
    }

    fn norm(&mut self, (spec, values): (TensorSpec, Tensor)) -> Norm {
        let slot = match self.lora() {
            Some(_) => None,
            None => Some(self.train(spec.name, &values)),
        };
        Norm { values, slot }
    }

    /// A trained matrix, or one frozen in this format.
    fn weight(&mut self, name: String, values: Tensor, frozen: MatrixFormat) -> Result<Weight> {
        if self.lora().is_some() {
            let matrix = Matrix::new(values, frozen)?;
            return Ok(Weight { matrix, slot: None });
        }
        let (format, dtype) = match self.precision {
            Precision::F32 | Precision::Bf16 => (MatrixFormat::F32, DType::F32),
            Precision::Bf16Weights => (MatrixFormat::Bf16, DType::BF16),
        };
        // The same storage under two names.
        let values = values.to_dtype(dtype)?;
        let slot = self.train(name, &values);
        let matrix = match format {
            MatrixFormat::Bf16 => Matrix::Bf16(values),
            _ => Matrix::F32(values),
        };
        Ok(Weight {
            matrix,
            slot: Some(slot),
        })
    }

    /// Embedding or head. A frozen one is never in 8 bits: it is where rounding hurts most and, in
    /// large models, a small part (QLoRA, arXiv 2305.14314, leaves both alone, too).
    fn table(&mut self, (spec, values): (TensorSpec, Tensor)) -> Result<Weight> {
        let frozen = match self.lora().map(|lora| lora.base) {
            Some(BaseFormat::F32) | None => MatrixFormat::F32,
            Some(BaseFormat::Bf16 | BaseFormat::Int8) => MatrixFormat::Bf16,
        };
        self.weight(spec.name, values, frozen)
    }

    fn linear(
        &mut self,
        (spec, values): (TensorSpec, Tensor),
        target: LoraTarget,
    ) -> Result<Linear> {
        let lora = self.lora();
        let frozen = match lora.map(|lora| lora.base) {
            Some(BaseFormat::F32) | None => MatrixFormat::F32,
            Some(BaseFormat::Bf16) => MatrixFormat::Bf16,
            Some(BaseFormat::Int8) => MatrixFormat::Int8,
        };
        let (name, dims) = (spec.name.clone(), (spec.shape[0], spec.shape[1]));
        let weight = self.weight(spec.name, values, frozen)?;
        let adapter = match lora {
            Some(lora) if lora.targets.contains(&target) => Some(self.adapter(lora, &name, dims)?),
            _ => None,
        };
        Ok(Linear { weight, adapter })
    }

    fn adapter(
        &mut self,
        lora: &LoraConfig,
        name: &str,
        (outputs, inputs): (usize, usize),
    ) -> Result<Adapter> {
        let number = self.parameters.len() as u32;
        let (a, b) = lora.initial(number, self.seed, (outputs, inputs))?;
        let [name_a, name_b] = crate::lora::adapter_names(name);
        let slot_a = self.train(name_a, &a);
        let slot_b = self.train(name_b, &b);
        Ok(Adapter {
            a: Weight {
                matrix: Matrix::F32(a),
                slot: Some(slot_a),
            },
            b: Weight {
                matrix: Matrix::F32(b),
                slot: Some(slot_b),
            },
            scale: lora.scale(),
            dropout: lora.dropout as f32,
        })
    }
}
