//! Where everything lies in the GPU's memory: f32 values, bf16 matrices, int8 matrices and gradients are
//! one array each, tensors in the order of `model::weights::tensor_specs`. Matrices that multiply the same
//! input are neighbours and are one product: q over k over v, gate over up. No memory here, only places.

use std::ops::Range;

use candle_core::DType;
use model::config::LlamaConfig;
use model::weights::{TensorSpec, tensor_specs};

use crate::config::{BaseFormat, Method, Precision};
use crate::lora::{LoraConfig, LoraTarget, adapter_names};
use crate::train::engine::ParameterSpec;
use crate::weights::Slot;

/// Matrices begin at multiples of so many values, 256 bytes in bf16: what cublasLt's kernels are chosen
/// for.
const ALIGNMENT: usize = 128;

/// A matrix `[out, in]`, or several under one another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Matrix {
    /// Of the bf16 values.
    pub(super) values: Range<usize>,
    /// Of the gradients; `None`: frozen.
    pub(super) gradient: Option<Range<usize>>,
}

/// As [`Matrix`], frozen, in whole numbers of a scale of their row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Int8Matrix {
    /// Of the int8 values.
    pub(super) values: Range<usize>,
    /// Of the f32 values, `[out]`.
    pub(super) scales: Range<usize>,
}

/// The matrix of a projection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Weight {
    Bf16(Matrix),
    Int8(Int8Matrix),
}

impl Weight {
    /// `None`: frozen.
    pub(super) fn gradient(&self) -> Option<&Range<usize>> {
        match self {
            Self::Bf16(matrix) => matrix.gradient.as_ref(),
            Self::Int8(_) => None,
        }
    }
}

/// The weights of a norm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Norm {
    /// Of the f32 values.
    pub(super) values: Range<usize>,
    pub(super) gradient: Option<Range<usize>>,
}

/// Matrices that multiply the same input, with what is learned beside them.
#[derive(Debug, Clone)]
pub(super) struct Linear {
    pub(super) weight: Weight,
    pub(super) num_inputs: usize,
    pub(super) num_outputs: usize,
    pub(super) adapters: Vec<Adapter>,
}

/// The two thin matrices beside some of the outputs of a [`Linear`].
#[derive(Debug, Clone)]
pub(super) struct Adapter {
    /// `[rank, in]`
    pub(super) a: Matrix,
    /// `[columns, rank]`
    pub(super) b: Matrix,
    /// The outputs that it adds to.
    pub(super) columns: Range<usize>,
    /// A's: dropout is drawn by it.
    pub(super) slot: Slot,
}

/// One transformer layer.
#[derive(Debug, Clone)]
pub(super) struct Layer {
    pub(super) input_norm: Norm,
    /// q over k over v.
    pub(super) qkv: Linear,
    pub(super) o: Linear,
    pub(super) post_norm: Norm,
    /// gate over up.
    pub(super) gate_up: Linear,
    pub(super) down: Linear,
}

/// Where one tensor's values lie.
#[derive(Debug, Clone, Default)]
pub(super) struct Place {
    /// Norms, and the masters of matrices that are trained with one.
    pub(super) f32: Option<Range<usize>>,
    /// Matrices, as products read them.
    pub(super) bf16: Option<Range<usize>>,
    /// Frozen matrices that products read widened to bf16.
    pub(super) int8: Option<Int8Matrix>,
    /// Of the gradients, where it is trained.
    pub(super) gradient: Option<Range<usize>>,
    /// A and B beside it.
    pub(super) adapter: Option<[Slot; 2]>,
}

/// A tensor that is trained.
#[derive(Debug, Clone)]
pub(super) struct Parameter {
    pub(super) spec: ParameterSpec,
    pub(super) place: Place,
}

/// All places, and how long the four arrays are.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) embed: Matrix,
    pub(super) layers: Vec<Layer>,
    pub(super) norm: Norm,
    /// The embedding where tied.
    pub(super) head: Matrix,
    /// In the order of `tensor_specs`.
    pub(super) tensors: Vec<Place>,
    /// In the order of slots, which is the CPU's (`crate::weights`).
    pub(super) parameters: Vec<Parameter>,
    pub(super) num_f32: usize,
    pub(super) num_bf16: usize,
    pub(super) num_int8: usize,
    pub(super) num_gradients: usize,
}

impl Layout {
    pub(super) fn new(config: &LlamaConfig, method: &Method, precision: Precision) -> Self {
        let specs = tensor_specs(config);
        let mut room = Room::default();
        let mut parameters = Vec::new();
        let mut tensors: Vec<Place> = specs
            .iter()
            .map(|spec| match method {
                Method::Full => {
                    let parameter = room.trained(spec, precision);
                    parameters.push(parameter.clone());
                    parameter.place
                }
                // Embedding and head are where rounding hurts most, as in `crate::weights`.
                Method::Lora(lora) if lora.base == BaseFormat::Int8 && is_projection(spec) => {
                    room.quantized(spec)
                }
                Method::Lora(_) => room.frozen(spec),
            })
            .collect();
        if let Method::Lora(lora) = method {
            for (spec, place) in specs.iter().zip(&mut tensors) {
                if let Some(pair) = room.adapter(spec, lora) {
                    place.adapter = Some([Slot(parameters.len()), Slot(parameters.len() + 1)]);
                    parameters.extend(pair);
                }
            }
        }
        let parts = Parts {
            specs: &specs,
            tensors: &tensors,
            parameters: &parameters,
        };
        let layers = (0..config.num_hidden_layers).map(|layer| parts.layer(1 + TENSORS * layer));
        let embed = parts.matrix(0..1);
        let norm = 1 + TENSORS * config.num_hidden_layers;
        Self {
            layers: layers.collect(),
            norm: parts.norm(norm),
            head: if config.tie_word_embeddings {
                embed.clone()
            } else {
                parts.matrix(norm + 1..norm + 2)
            },
            embed,
            num_f32: room.f32,
            num_bf16: room.bf16,
            num_int8: room.int8,
            num_gradients: room.gradients,
            tensors,
            parameters,
        }
    }
}

/// Tensors of a layer.
const TENSORS: usize = 9;

/// How much of each array is taken.
#[derive(Debug, Default)]
struct Room {
    f32: usize,
    bf16: usize,
    int8: usize,
    gradients: usize,
}

fn is_projection(spec: &TensorSpec) -> bool {
    let is_target = |target: &LoraTarget| spec.name.contains(target.module());
    LoraTarget::ALL.iter().any(is_target)
}

/// `len` values behind those that are taken.
fn take(end: &mut usize, len: usize, alignment: usize) -> Range<usize> {
    let start = end.next_multiple_of(alignment);
    *end = start + len;
    start..*end
}

/// Whether a matrix follows another one without a gap, since both are one product.
fn alignment(name: &str) -> usize {
    let follows = ["k_proj", "v_proj", "up_proj"];
    if follows.iter().any(|module| name.contains(module)) {
        1
    } else {
        ALIGNMENT
    }
}

impl Room {
    fn frozen(&mut self, spec: &TensorSpec) -> Place {
        let count = spec.num_elements();
        if spec.shape.len() == 1 {
            let f32 = take(&mut self.f32, count, ALIGNMENT);
            return Place {
                f32: Some(f32),
                ..Place::default()
            };
        }
        let bf16 = take(&mut self.bf16, count, alignment(&spec.name));
        Place {
            bf16: Some(bf16),
            ..Place::default()
        }
    }

    fn quantized(&mut self, spec: &TensorSpec) -> Place {
        let alignment = alignment(&spec.name);
        Place {
            int8: Some(Int8Matrix {
                values: take(&mut self.int8, spec.num_elements(), alignment),
                scales: take(&mut self.f32, spec.shape[0], alignment),
            }),
            ..Place::default()
        }
    }

    /// A tensor whose master is f32, unless it is a matrix that is trained in bf16.
    fn trained(&mut self, spec: &TensorSpec, precision: Precision) -> Parameter {
        let mut place = self.frozen(spec);
        let count = spec.num_elements();
        let is_matrix = place.bf16.is_some();
        let dtype = match precision {
            Precision::Bf16Weights if is_matrix => DType::BF16,
            _ => DType::F32,
        };
        if is_matrix && dtype == DType::F32 {
            place.f32 = Some(take(&mut self.f32, count, ALIGNMENT));
        }
        place.gradient = Some(take(&mut self.gradients, count, alignment(&spec.name)));
        Parameter {
            spec: ParameterSpec {
                name: spec.name.clone(),
                shape: spec.shape.clone(),
                dtype,
            },
            place,
        }
    }

    /// A and B beside a projection that is a target.
    fn adapter(&mut self, spec: &TensorSpec, lora: &LoraConfig) -> Option<[Parameter; 2]> {
        let is_beside = |target: &LoraTarget| spec.name.contains(target.module());
        if spec.shape.len() != 2 || !lora.targets.iter().any(is_beside) {
            return None;
        }
        let [name_a, name_b] = adapter_names(&spec.name);
        let [outputs, inputs] = [spec.shape[0], spec.shape[1]];
        let mut part = |name: String, shape: [usize; 2]| {
            let count = shape[0] * shape[1];
            Parameter {
                place: Place {
                    f32: Some(take(&mut self.f32, count, ALIGNMENT)),
                    bf16: Some(take(&mut self.bf16, count, ALIGNMENT)),
                    gradient: Some(take(&mut self.gradients, count, ALIGNMENT)),
                    ..Place::default()
                },
                spec: ParameterSpec {
                    name,
                    shape: shape.to_vec(),
                    dtype: DType::F32,
                },
            }
        };
        Some([
            part(name_a, [lora.rank, inputs]),
            part(name_b, [outputs, lora.rank]),
        ])
    }
}

/// What the places of single tensors are put together from.
struct Parts<'a> {
    specs: &'a [TensorSpec],
    tensors: &'a [Place],
    parameters: &'a [Parameter],
}

impl Parts<'_> {
    fn layer(&self, first: usize) -> Layer {
        Layer {
            input_norm: self.norm(first),
            qkv: self.linear(first + 1..first + 4),
            o: self.linear(first + 4..first + 5),
            post_norm: self.norm(first + 5),
            gate_up: self.linear(first + 6..first + 8),
            down: self.linear(first + 8..first + 9),
        }
    }

    fn norm(&self, number: usize) -> Norm {
        let place = &self.tensors[number];
        Norm {
            values: place.f32.clone().expect("norms are f32"),
            gradient: place.gradient.clone(),
        }
    }

    /// Of tensors that lie behind one another.
    fn matrix(&self, numbers: Range<usize>) -> Matrix {
        let places = &self.tensors[numbers];
        Matrix {
            values: joined(places, |place| place.bf16.as_ref())
                .expect("matrices are there in bf16"),
            gradient: joined(places, |place| place.gradient.as_ref()),
        }
    }

    /// As [`Self::matrix`], in whatever it is stored in.
    fn weight(&self, numbers: Range<usize>) -> Weight {
        let places = &self.tensors[numbers.clone()];
        let values = joined(places, |place| Some(&place.int8.as_ref()?.values));
        let scales = joined(places, |place| Some(&place.int8.as_ref()?.scales));
        match (values, scales) {
            (Some(values), Some(scales)) => Weight::Int8(Int8Matrix { values, scales }),
            _ => Weight::Bf16(self.matrix(numbers)),
        }
    }

    fn linear(&self, numbers: Range<usize>) -> Linear {
        let specs = &self.specs[numbers.clone()];
        let mut num_outputs = 0;
        let mut adapters = Vec::new();
        for (spec, place) in specs.iter().zip(&self.tensors[numbers.clone()]) {
            let columns = num_outputs..num_outputs + spec.shape[0];
            num_outputs = columns.end;
            if let Some([a, b]) = place.adapter {
                adapters.push(Adapter {
                    a: trained_matrix(&self.parameters[a.0]),
                    b: trained_matrix(&self.parameters[b.0]),
                    columns,
                    slot: a,
                });
            }
        }
        Linear {
            weight: self.weight(numbers),
            num_inputs: specs[0].shape[1],
            num_outputs,
            adapters,
        }
    }
}

/// The ranges of neighbours as one; `None` where there is none.
fn joined(places: &[Place], range: fn(&Place) -> Option<&Range<usize>>) -> Option<Range<usize>> {
    let ranges: Vec<_> = places.iter().map(range).collect::<Option<_>>()?;
    let follow = ranges.windows(2).all(|pair| pair[0].end == pair[1].start);
    assert!(follow, "neighbours have no gap between them");
    Some(ranges.first()?.start..ranges.last()?.end)
}

fn trained_matrix(parameter: &Parameter) -> Matrix {
    let place = &parameter.place;
    Matrix {
        values: place.bf16.clone().expect("adapters are there in bf16"),
        gradient: place.gradient.clone(),
    }
}
