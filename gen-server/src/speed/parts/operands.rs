//! What parts compute on: random values, and weights in several copies.

use std::rc::Rc;

use cuda::{CudaSlice, Device, Element, Int8View};
use half::bf16;
use model::{
    config::LlamaConfig,
    gpu::{KvElement, WeightElement},
};

use crate::ceilings::{random, sized};

/// Copies of a part's operands have this size together, five times the L2 cache of an H100 or H200; or there is one,
/// which is larger.
const BYTES_OF_COPIES: usize = 256 << 20;
const MAX_COPIES: usize = 64;
/// What the software GPU of tests gets.
const NUM_SOFTWARE_COPIES: usize = 2;

/// Random values are so many, again and again.
const NUM_RANDOM: usize = 1 << 24;
const NUM_RANDOM_SOFTWARE: usize = 1 << 14;

/// Random operands, on the GPU.
#[derive(Debug)]
pub(super) struct Operands {
    pub device: Device,
    pub model: LlamaConfig,
    pub kv_element: KvElement,
    /// In [-1, 1).
    bf16s: CudaSlice<bf16>,
    f32s: CudaSlice<f32>,
    /// Finite e4m3 below 2.
    e4m3s: CudaSlice<u8>,
    pub qkv: Rc<Matrix>,
    pub o: Rc<Matrix>,
    pub gate_up: Rc<Matrix>,
    pub down: Rc<Matrix>,
    pub head: Rc<Matrix>,
}

/// A matrix \[out, in\] of as many layers as there are copies.
#[derive(Debug)]
pub(super) struct Matrix {
    pub num_outputs: usize,
    pub num_inputs: usize,
    pub copies: Copies,
}

#[derive(Debug)]
pub(super) enum Copies {
    Bf16(Vec<CudaSlice<bf16>>),
    Int8(Vec<Int8Copy>),
}

#[derive(Debug)]
pub(super) struct Int8Copy {
    pub values: CudaSlice<i8>,
    /// `[out]`
    pub scales: CudaSlice<f32>,
}

impl Int8Copy {
    /// Makes it what `w` rounds to.
    fn round(&mut self, device: &Device, w: &CudaSlice<bf16>) -> cuda::Result<()> {
        let (values, scales) = (&mut self.values, &mut self.scales);
        let (mut values, mut scales) = (values.as_view_mut(), scales.as_view_mut());
        cuda::quantize_rows(device, &w.as_view(), &mut values, &mut scales)
    }

    /// `w` = what it stands for.
    pub(super) fn widen(&self, device: &Device, w: &mut CudaSlice<bf16>) -> cuda::Result<()> {
        let from = Int8View {
            values: &self.values.as_view(),
            scales: &self.scales.as_view(),
        };
        cuda::dequantize_rows(device, &from, &mut w.as_view_mut())
    }
}

impl Matrix {
    pub(super) fn num_copies(&self) -> usize {
        match &self.copies {
            Copies::Bf16(copies) => copies.len(),
            Copies::Int8(copies) => copies.len(),
        }
    }

    /// Of one copy.
    pub(super) fn num_bytes(&self) -> usize {
        let len = self.num_outputs * self.num_inputs;
        match &self.copies {
            Copies::Bf16(_) => 2 * len,
            Copies::Int8(_) => len + 4 * self.num_outputs,
        }
    }
}

impl Operands {
    pub(super) fn new(
        device: &Device,
        model: &LlamaConfig,
        (weights, kv_element): (WeightElement, KvElement),
    ) -> cuda::Result<Self> {
        let values = random(sized(device, NUM_RANDOM, NUM_RANDOM_SOFTWARE));
        let floats: Vec<f32> = values.iter().map(|value| value.to_f32()).collect();
        // Without the upper bit of the exponent.
        let bytes: Vec<u8> = values.iter().map(|it| it.to_bits() as u8 & 0xBF).collect();
        let bf16s = device.upload(&values)?;
        let matrix = |num_outputs: usize, num_inputs: usize| {
            let shape = (num_outputs, num_inputs);
            Matrix::new(device, &bf16s, (weights, shape)).map(Rc::new)
        };
        let (hidden, mlp) = (model.hidden_size, model.intermediate_size);
        let (query, kv) = (model.query_size(), model.kv_size());
        Ok(Self {
            qkv: matrix(query + 2 * kv, hidden)?,
            o: matrix(hidden, query)?,
            gate_up: matrix(2 * mlp, hidden)?,
            down: matrix(hidden, mlp)?,
            head: matrix(model.vocab_size, hidden)?,
            f32s: device.upload(&floats)?,
            e4m3s: device.upload(&bytes)?,
            bf16s,
            device: device.clone(),
            model: model.clone(),
            kv_element,
        })
    }

    pub(super) fn bf16s(&self, len: usize) -> cuda::Result<CudaSlice<bf16>> {
        repeated(&self.device, &self.bf16s, len)
    }

    pub(super) fn f32s(&self, len: usize) -> cuda::Result<CudaSlice<f32>> {
        repeated(&self.device, &self.f32s, len)
    }

    pub(super) fn e4m3s(&self, len: usize) -> cuda::Result<CudaSlice<u8>> {
        repeated(&self.device, &self.e4m3s, len)
    }
}

impl Matrix {
    fn new(
        device: &Device,
        values: &CudaSlice<bf16>,
        (element, (num_outputs, num_inputs)): (WeightElement, (usize, usize)),
    ) -> cuda::Result<Self> {
        let len = num_outputs * num_inputs;
        let copies = match element {
            WeightElement::Float => {
                let copies = 0..num_copies(device, 2 * len);
                let copies = copies.map(|_| repeated(device, values, len));
                Copies::Bf16(copies.collect::<cuda::Result<_>>()?)
            }
            WeightElement::Int8 => {
                let w = repeated(device, values, len)?;
                let copies = (0..num_copies(device, len)).map(|_| {
                    let mut copy = Int8Copy {
                        values: device.zeros(len)?,
                        scales: device.zeros(num_outputs)?,
                    };
                    copy.round(device, &w)?;
                    Ok(copy)
                });
                Copies::Int8(copies.collect::<cuda::Result<_>>()?)
            }
        };
        Ok(Self {
            num_outputs,
            num_inputs,
            copies,
        })
    }
}

/// How many copies there are of operands of this size.
pub(super) fn num_copies(device: &Device, num_bytes: usize) -> usize {
    let enough = BYTES_OF_COPIES
        .div_ceil(num_bytes.max(1))
        .clamp(1, MAX_COPIES);
    sized(device, enough, NUM_SOFTWARE_COPIES)
}

fn repeated<T: Element>(
    device: &Device,
    values: &CudaSlice<T>,
    len: usize,
) -> cuda::Result<CudaSlice<T>> {
    let mut filled = device.zeros(len)?;
    for start in (0..len).step_by(values.len()) {
        let end = len.min(start + values.len());
        let part = values.slice(..end - start);
        device.copy(&part, &mut filled.slice_mut(start..end))?;
    }
    Ok(filled)
}
