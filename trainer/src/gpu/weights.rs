//! Weights and gradients in the GPU's memory, and their way to the host and back, a tensor at a time.

use std::ops::Range;

use candle_core::{DType, Tensor};
use cuda::{CudaSlice, CudaView, CudaViewMut, Device};
use half::bf16;
use half::slice::HalfFloatSliceExt;
use kernels::Matrix as HostMatrix;
use kernels::tensor::{bf16_view, f32_view};
use model::config::LlamaConfig;
use model::gpu::quantize_rows;
use model::weights::TensorSpec;

use super::layout::{Int8Matrix, Layout, Matrix, Norm, Place};
use crate::config::{Method, Precision};
use crate::error::Result;
use crate::lora::{LoraConfig, add_product};
use crate::weights::Slot;

/// All weights, trained or frozen.
#[derive(Debug)]
pub(super) struct Weights {
    pub(super) layout: Layout,
    /// Norms, masters, and the scales of what is int8.
    pub(super) f32s: CudaSlice<f32>,
    /// Matrices, as products read them: copies of their masters where they have one.
    pub(super) bf16s: CudaSlice<bf16>,
    /// The frozen projections of a base in 8 bits.
    pub(super) int8s: CudaSlice<i8>,
}

/// The sum of a step's gradients, one array for all.
#[derive(Debug)]
pub(super) struct Gradients {
    pub(super) values: CudaSlice<f32>,
}

impl Gradients {
    pub(super) fn zeros(device: &Device, layout: &Layout) -> Result<Self> {
        Ok(Self {
            values: device.zeros(layout.num_gradients)?,
        })
    }

    pub(super) fn part(&self, range: &Range<usize>) -> CudaView<'_, f32> {
        self.values.slice(range.clone())
    }

    /// `None` for what is frozen.
    pub(super) fn of(&mut self, range: Option<&Range<usize>>) -> Option<CudaViewMut<'_, f32>> {
        range.map(|range| self.values.slice_mut(range.clone()))
    }
}

impl Weights {
    /// Takes over one f32 tensor per entry of `model::weights::tensor_specs`, in that order; each is on
    /// the GPU before the next is asked for.
    ///
    /// # Panics
    /// If `tensors` ends early; shapes are the caller's duty.
    pub(super) fn new(
        device: &Device,
        config: &LlamaConfig,
        (method, precision, seed): (&Method, Precision, u64),
        tensors: impl IntoIterator<Item = Result<(TensorSpec, Tensor)>>,
    ) -> Result<Self> {
        let layout = Layout::new(config, method, precision);
        let mut weights = Self {
            f32s: device.zeros(layout.num_f32)?,
            bf16s: device.zeros(layout.num_bf16)?,
            int8s: device.zeros(layout.num_int8)?,
            layout,
        };
        let mut tensors = tensors.into_iter();
        for number in 0..weights.layout.tensors.len() {
            let (_, values) = tensors.next().expect("one tensor per spec")?;
            let place = weights.layout.tensors[number].clone();
            weights.write(device, &place, &f32_view("upload", "weight", &values)?)?;
        }
        // The reader's digest covers what is behind the last tensor, too.
        assert!(tensors.next().is_none(), "one tensor per spec");
        if let Method::Lora(lora) = method {
            weights.begin_adapters(device, lora, seed)?;
        }
        Ok(weights)
    }

    /// The first values of A; B stays zero.
    fn begin_adapters(&mut self, device: &Device, lora: &LoraConfig, seed: u64) -> Result<()> {
        let pairs: Vec<[Slot; 2]> = self
            .layout
            .tensors
            .iter()
            .filter_map(|t| t.adapter)
            .collect();
        for [a, b] in pairs {
            let [inputs, outputs] = [self.shape(a)[1], self.shape(b)[0]];
            let (values, _) = lora.initial(a.0 as u32, seed, (outputs, inputs))?;
            let place = self.layout.parameters[a.0].place.clone();
            self.write(device, &place, &f32_view("upload", "adapter", &values)?)?;
        }
        Ok(())
    }

    fn shape(&self, slot: Slot) -> &[usize] {
        &self.layout.parameters[slot.0].spec.shape
    }

    pub(super) fn matrix(&self, matrix: &Matrix) -> CudaView<'_, bf16> {
        self.bf16s.slice(matrix.values.clone())
    }

    pub(super) fn norm(&self, norm: &Norm) -> CudaView<'_, f32> {
        self.f32s.slice(norm.values.clone())
    }

    pub(super) fn int8(&self, matrix: &Int8Matrix) -> (CudaView<'_, i8>, CudaView<'_, f32>) {
        (
            self.int8s.slice(matrix.values.clone()),
            self.f32s.slice(matrix.scales.clone()),
        )
    }

    /// Writes a tensor wherever it has a place, rounded to nearest.
    fn write(&mut self, device: &Device, place: &Place, values: &[f32]) -> Result<()> {
        if let Some(range) = &place.f32 {
            device.write(values, &mut self.f32s.slice_mut(range.clone()))?;
        }
        if let Some(range) = &place.bf16 {
            let mut rounded = vec![bf16::ZERO; values.len()];
            rounded.convert_from_f32_slice(values);
            device.write(&rounded, &mut self.bf16s.slice_mut(range.clone()))?;
        }
        if let Some(matrix) = &place.int8 {
            let mut rounded = vec![0; values.len()];
            let mut scales = vec![0.0; matrix.scales.len()];
            quantize_rows(values, (&mut rounded, &mut scales));
            let mut to = self.int8s.slice_mut(matrix.values.clone());
            device.write(&rounded, &mut to)?;
            device.write(&scales, &mut self.f32s.slice_mut(matrix.scales.clone()))?;
        }
        Ok(())
    }

    /// The most exact values that there are of a tensor; of int8, those that products see.
    fn read(&self, device: &Device, place: &Place) -> Result<Vec<f32>> {
        if let Some(range) = &place.f32 {
            return Ok(device.download(&self.f32s.slice(range.clone()))?);
        }
        if let Some(matrix) = &place.int8 {
            let (values, scales) = self.int8(matrix);
            let (values, scales) = (device.download(&values)?, device.download(&scales)?);
            let width = values.len() / scales.len();
            let rows = values.chunks(width).zip(&scales);
            // As `cuda::dequantize_rows` rounds, to the bit.
            let widen =
                |value: &i8, scale: &f32| bf16::from_f32(f32::from(*value) * scale).to_f32();
            let rows = rows.flat_map(|(row, scale)| row.iter().map(move |it| widen(it, scale)));
            return Ok(rows.collect());
        }
        let range = place.bf16.clone().expect("every tensor has a place");
        let stored = device.download(&self.bf16s.slice(range))?;
        Ok(stored.to_f32_vec())
    }

    /// A parameter's values as they are trained.
    pub(super) fn values(&self, device: &Device, slot: Slot) -> Result<Tensor> {
        let parameter = &self.layout.parameters[slot.0];
        let shape = parameter.spec.shape.as_slice();
        let values = self.read(device, &parameter.place)?;
        let values = Tensor::from_vec(values, shape, &candle_core::Device::Cpu)?;
        // Exact: where it is bf16, the values were.
        Ok(values.to_dtype(parameter.spec.dtype)?)
    }

    pub(super) fn set_values(
        &mut self,
        device: &Device,
        slot: Slot,
        values: &Tensor,
    ) -> Result<()> {
        let place = self.layout.parameters[slot.0].place.clone();
        if values.dtype() == DType::BF16 {
            let wide = bf16_view("set_values", "values", values)?.to_f32_vec();
            return self.write(device, &place, &wide);
        }
        self.write(device, &place, &f32_view("set_values", "values", values)?)
    }

    /// Weight `number` as a plain checkpoint has it: with its adapter, where there is one.
    pub(super) fn merged(
        &self,
        device: &Device,
        number: usize,
        method: &Method,
    ) -> Result<Vec<f32>> {
        let place = &self.layout.tensors[number];
        let values = self.read(device, place)?;
        let (Some([a, b]), Method::Lora(lora)) = (place.adapter, method) else {
            return Ok(values);
        };
        let (a, b) = (self.values(device, a)?, self.values(device, b)?);
        let shape = (b.dim(0)?, a.dim(1)?);
        let values = Tensor::from_vec(values, shape, &candle_core::Device::Cpu)?;
        let scale = f64::from(lora.scale());
        add_product(&b, &HostMatrix::F32(a), scale, &values)?;
        Ok(f32_view("merge", "weight", &values)?.to_vec())
    }
}
