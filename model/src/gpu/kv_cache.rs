//! Keys and values of all layers in GPU memory, in blocks of slots: \[blocks, G, slots of a block, D\] for each
//! layer, so that a head's part of a block is one piece. Taken once, at the start.

use cuda::{CudaSlice, Device, Float};

use crate::config::LlamaConfig;
use crate::error::Result;

/// What keys and values are stored in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KvElement {
    /// As activations.
    Float,
    /// One byte: 4 bits of exponent, 3 of mantissa.
    E4m3,
}

impl KvElement {
    /// Bytes of one value, beside activations in `A`.
    pub fn size<A: Float>(self) -> usize {
        match self {
            Self::Float => size_of::<A>(),
            Self::E4m3 => 1,
        }
    }
}

/// What a cache has room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvShape {
    pub num_blocks: usize,
    /// Slots of a block; a slot holds one token.
    pub block_size: usize,
    pub element: KvElement,
}

/// Keys and values of all layers.
#[derive(Debug)]
pub struct KvCache<A: Float> {
    shape: KvShape,
    layers: Vec<KvLayer<A>>,
}

/// Keys and values of one layer.
#[derive(Debug)]
pub(super) enum KvLayer<A: Float> {
    Float {
        keys: CudaSlice<A>,
        values: CudaSlice<A>,
    },
    E4m3 {
        keys: CudaSlice<A::Byte>,
        values: CudaSlice<A::Byte>,
    },
}

/// Bytes of one block of all layers.
pub fn kv_block_bytes<A: Float>(
    config: &LlamaConfig,
    block_size: usize,
    element: KvElement,
) -> usize {
    2 * config.num_hidden_layers * config.kv_size() * block_size * element.size::<A>()
}

impl<A: Float> KvCache<A> {
    /// Takes the memory.
    pub fn new(device: &Device, config: &LlamaConfig, shape: KvShape) -> Result<Self> {
        let len = shape.num_blocks * shape.block_size * config.kv_size();
        let layer = |_| {
            Ok(match shape.element {
                KvElement::Float => KvLayer::Float {
                    keys: device.zeros(len)?,
                    values: device.zeros(len)?,
                },
                KvElement::E4m3 => KvLayer::E4m3 {
                    keys: device.zeros(len)?,
                    values: device.zeros(len)?,
                },
            })
        };
        let layers = (0..config.num_hidden_layers).map(layer);
        Ok(Self {
            shape,
            layers: layers.collect::<Result<_>>()?,
        })
    }

    pub fn shape(&self) -> KvShape {
        self.shape
    }

    pub(super) fn layer_mut(&mut self, index: usize) -> &mut KvLayer<A> {
        &mut self.layers[index]
    }
}
