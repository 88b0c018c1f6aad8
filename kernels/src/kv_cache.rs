//! Storage of keys and values, per layer, in blocks of slots. Allocated once, written in place.
//! Which sequence owns which block is not known here.
//!
//! The layout of a layer's keys (and of its values) is [N·B, G, D]: slot s holds one token, block b
//! the slots b·B..(b + 1)·B. A GPU variant becomes a second variant of [`Storage`] that owns device
//! tensors of the same layout; `write` and `paged_attention` are the two places that match on it.
#![expect(non_snake_case, reason = "tensors end in their shape")]

use candle_core::{Device, Tensor};

use crate::error::{Error, Result};
use crate::tensor::{dims3, expect_dims, expect_len, f32_view};

/// What a cache has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvShape {
    pub num_layers: usize,
    /// N, blocks of every layer.
    pub num_blocks: usize,
    /// B, slots of a block; a slot holds one token.
    pub block_size: usize,
    /// G.
    pub num_kv_heads: usize,
    /// D.
    pub head_dim: usize,
}

impl KvShape {
    /// Slots of a layer, N·B; `None` where the number does not fit.
    pub fn num_slots(&self) -> Option<usize> {
        self.num_blocks.checked_mul(self.block_size)
    }

    /// Bytes of the whole cache in f32: keys and values of all layers.
    pub fn num_bytes(&self) -> Option<usize> {
        let layer = self.num_slots()?.checked_mul(self.slot_len()?)?;
        layer
            .checked_mul(self.num_layers)?
            .checked_mul(2 * size_of::<f32>())
    }

    /// Values of one slot in one layer's keys, G·D.
    fn slot_len(&self) -> Option<usize> {
        self.num_kv_heads.checked_mul(self.head_dim)
    }
}

/// Keys and values of all layers.
#[derive(Debug)]
pub struct KvCache {
    shape: KvShape,
    layers: Vec<KvLayer>,
}

/// Keys and values of one layer.
#[derive(Debug)]
pub struct KvLayer {
    shape: KvShape,
    storage: Storage,
}

/// Where a layer's values lie.
#[derive(Debug)]
enum Storage {
    Cpu { k: Vec<f32>, v: Vec<f32> },
}

impl KvCache {
    /// A cache of zeros. All its memory is taken now.
    ///
    /// # Errors
    /// When a size is zero, when the memory is not to be had, or when the device has no kernels.
    pub fn new(shape: KvShape, device: &Device) -> Result<Self> {
        let op = "KvCache::new";
        if !device.is_cpu() {
            let found = format!("{:?}", device.location());
            return Err(Error::Device {
                op,
                argument: "the cache",
                found,
            });
        }
        for (argument, size) in [
            ("block_size", shape.block_size),
            ("num_kv_heads", shape.num_kv_heads),
            ("head_dim", shape.head_dim),
        ] {
            if size == 0 {
                let expected = "at least 1".to_owned();
                return Err(Error::Value {
                    op,
                    argument,
                    expected,
                    found: "0".to_owned(),
                });
            }
        }
        if shape.num_bytes().is_none() {
            return Err(out_of_memory(shape));
        }
        let layers = (0..shape.num_layers)
            .map(|_| KvLayer::new(shape))
            .collect::<Result<Vec<_>>>()?;
        Ok(Self { shape, layers })
    }

    /// What the cache has room for.
    pub fn shape(&self) -> KvShape {
        self.shape
    }

    /// One layer, to be read.
    ///
    /// # Panics
    /// When there is no such layer.
    pub fn layer(&self, index: usize) -> &KvLayer {
        &self.layers[index]
    }

    /// One layer, to be written.
    ///
    /// # Panics
    /// When there is no such layer.
    pub fn layer_mut(&mut self, index: usize) -> &mut KvLayer {
        &mut self.layers[index]
    }
}

impl KvLayer {
    fn new(shape: KvShape) -> Result<Self> {
        let len = shape
            .num_slots()
            .zip(shape.slot_len())
            .and_then(|(n, len)| n.checked_mul(len));
        let zeros = || {
            let len = len.ok_or_else(|| out_of_memory(shape))?;
            let mut values = Vec::new();
            values
                .try_reserve_exact(len)
                .map_err(|_| out_of_memory(shape))?;
            values.resize(len, 0.0);
            Ok::<_, Error>(values)
        };
        Ok(Self {
            shape,
            storage: Storage::Cpu {
                k: zeros()?,
                v: zeros()?,
            },
        })
    }

    /// Puts the keys and values of new tokens in their slots: row t goes to slot `slots[t]`.
    pub fn write(&mut self, k_TGD: &Tensor, v_TGD: &Tensor, slots: &[u32]) -> Result<()> {
        let op = "KvLayer::write";
        let (G, D) = (self.shape.num_kv_heads, self.shape.head_dim);
        let (T, _, _) = dims3(op, "k", k_TGD)?;
        expect_dims(op, "k", &[T, G, D], k_TGD)?;
        expect_dims(op, "v", &[T, G, D], v_TGD)?;
        expect_len(op, "slots", T, slots.len())?;
        let num_slots = self.shape.num_slots().unwrap_or(0);
        if let Some(slot) = slots.iter().find(|slot| **slot as usize >= num_slots) {
            let expected = format!("below {num_slots}");
            return Err(Error::Value {
                op,
                argument: "slots",
                expected,
                found: slot.to_string(),
            });
        }
        let new_k = f32_view(op, "k", k_TGD)?;
        let new_v = f32_view(op, "v", v_TGD)?;
        let Storage::Cpu { k, v } = &mut self.storage;
        let len = G * D;
        for (t, slot) in slots.iter().enumerate() {
            let (from, to) = (t * len, *slot as usize * len);
            k[to..to + len].copy_from_slice(&new_k[from..from + len]);
            v[to..to + len].copy_from_slice(&new_v[from..from + len]);
        }
        Ok(())
    }

    /// What the cache has room for.
    pub fn shape(&self) -> KvShape {
        self.shape
    }

    /// All slots' keys and values, [N·B, G, D] each.
    pub(crate) fn cpu(&self) -> (&[f32], &[f32]) {
        let Storage::Cpu { k, v } = &self.storage;
        (k, v)
    }
}

fn out_of_memory(shape: KvShape) -> Error {
    let found = match shape.num_bytes() {
        Some(bytes) => format!("{bytes} bytes for {shape:?}"),
        None => format!("{shape:?}"),
    };
    let expected = "a size that fits in memory".to_owned();
    Error::Value {
        op: "KvCache::new",
        argument: "the cache's size",
        expected,
        found,
    }
}

#[cfg(test)]
mod tests;
