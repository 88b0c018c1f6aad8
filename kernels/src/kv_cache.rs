//! Storage of keys and values, per layer, in blocks of slots. Allocated once, written in place.
//! Which sequence owns which block is not known here.
//!
//! Slot s of block b holds one token. A block holds, head by head, what attention reads of it in one
//! go, in lines of sixteen words (see [`crate::step`]):
//! - **keys** with the tokens side by side: for each sixteen slots, word by word along D, one line
//!   with the sixteen tokens' words. A block of fewer slots, or of a number that sixteen does not
//!   divide, has empty lanes.
//! - **values** token by token: a slot's D values in as many lines as they need; in bf16 a line has
//!   32, the first sixteen in the lower halves of its words.
//!
//! A GPU variant becomes a second variant of [`Storage`] that owns device tensors; `write` and
//! `paged_attention` are the two places that match on it.
#![expect(
    non_snake_case,
    reason = "dimensions have the names of the shape letters"
)]
#![expect(unsafe_code, reason = "heads are written by several threads at once")]

use candle_core::Device;

use crate::crew::{Crew, Shareable};
use crate::error::{Error, Result};
use crate::step::{Line, bf16_pair};
use crate::tensor::expect_len;

/// Rows below which a write stays on its thread.
const MIN_PARALLEL_ROWS: usize = 32;

/// Element type of a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KvFormat {
    F32,
    /// Two bytes a value. Queries are rounded too; sums and softmax are f32.
    Bf16,
}

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
    pub format: KvFormat,
}

/// Lines of a block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BlockLines {
    /// Lines of sixteen keys: the words of a head.
    pub(crate) key: usize,
    /// Lines of a head's keys in a block.
    pub(crate) keys: usize,
    /// Lines of a value.
    pub(crate) value: usize,
    /// Lines of a head's values in a block.
    pub(crate) values: usize,
}

impl KvShape {
    /// Slots of a layer, N·B; `None` where the number does not fit.
    pub fn num_slots(&self) -> Option<usize> {
        self.num_blocks.checked_mul(self.block_size)
    }

    /// Bytes of the whole cache: keys and values of all layers.
    pub fn num_bytes(&self) -> Option<usize> {
        let (keys, values) = self.layer_lines()?;
        keys.checked_add(values)?
            .checked_mul(self.num_layers)?
            .checked_mul(size_of::<Line>())
    }

    /// Lines of a layer's keys and of its values.
    fn layer_lines(&self) -> Option<(usize, usize)> {
        let heads = self.num_blocks.checked_mul(self.num_kv_heads)?;
        let words = self.words_per_head();
        let keys = self.block_size.div_ceil(16).checked_mul(words)?;
        let values = self.block_size.checked_mul(self.lines_per_value())?;
        Some((heads.checked_mul(keys)?, heads.checked_mul(values)?))
    }

    /// Words of a head's key (or query).
    pub(crate) fn words_per_head(&self) -> usize {
        match self.format {
            KvFormat::F32 => self.head_dim,
            KvFormat::Bf16 => self.head_dim.div_ceil(2),
        }
    }

    fn lines_per_value(&self) -> usize {
        match self.format {
            KvFormat::F32 => self.head_dim.div_ceil(16),
            KvFormat::Bf16 => self.head_dim.div_ceil(32),
        }
    }

    pub(crate) fn block_lines(&self) -> BlockLines {
        let (key, value) = (self.words_per_head(), self.lines_per_value());
        BlockLines {
            key,
            keys: self.block_size.div_ceil(16) * key,
            value,
            values: self.block_size * value,
        }
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
    Cpu { k: Vec<Line>, v: Vec<Line> },
}

/// Rows with the new tokens' keys and values in them, G·D each.
#[derive(Clone, Copy, Debug)]
pub struct KvRows<'a> {
    pub values: &'a [f32],
    /// From one row to the next.
    pub row_len: usize,
    /// Where the keys begin in a row.
    pub k: usize,
    /// Where the values begin in a row.
    pub v: usize,
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
        let (keys, values) = shape.layer_lines().ok_or_else(|| out_of_memory(shape))?;
        let zeros = |len: usize| {
            let mut lines = Vec::new();
            lines
                .try_reserve_exact(len)
                .map_err(|_| out_of_memory(shape))?;
            lines.resize(len, Line([0; 16]));
            Ok::<_, Error>(lines)
        };
        Ok(Self {
            shape,
            storage: Storage::Cpu {
                k: zeros(keys)?,
                v: zeros(values)?,
            },
        })
    }

    /// Puts the keys and values of new tokens in their slots: row t goes to slot `slots[t]`.
    pub fn write(&mut self, rows: &KvRows<'_>, slots: &[u32], crew: &Crew) -> Result<()> {
        let op = "KvLayer::write";
        let (G, D) = (self.shape.num_kv_heads, self.shape.head_dim);
        expect_len(op, "rows", slots.len() * rows.row_len, rows.values.len())?;
        let end = rows.k.max(rows.v) + G * D;
        if end > rows.row_len {
            return Err(Error::Value {
                op,
                argument: "row_len",
                expected: format!("at least {end}"),
                found: rows.row_len.to_string(),
            });
        }
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
        let shape = self.shape;
        let Storage::Cpu { k, v } = &mut self.storage;
        let writer = Writer {
            shape,
            lines: shape.block_lines(),
            k: Shareable(k.as_mut_ptr()),
            v: Shareable(v.as_mut_ptr()),
        };
        // A task for each head, so that no two write to the same lines, whatever the slots say.
        // SAFETY: head is below G and the slots were checked; other tasks have other heads.
        let write = |head: usize| unsafe { writer.head(rows, slots, head) };
        if slots.len() < MIN_PARALLEL_ROWS {
            (0..G).for_each(write);
        } else {
            crew.for_each(G, write);
        }
        Ok(())
    }

    /// What the cache has room for.
    pub fn shape(&self) -> KvShape {
        self.shape
    }

    /// All keys and all values.
    pub(crate) fn cpu(&self) -> (&[Line], &[Line]) {
        let Storage::Cpu { k, v } = &self.storage;
        (k, v)
    }
}

/// A layer that is being written.
struct Writer {
    shape: KvShape,
    lines: BlockLines,
    k: Shareable<Line>,
    v: Shareable<Line>,
}

impl Writer {
    /// One head of all rows.
    ///
    /// # Safety
    /// Head and slots must exist, and nobody else may access the head's lines during the call.
    unsafe fn head(&self, rows: &KvRows<'_>, slots: &[u32], head: usize) {
        let (D, B) = (self.shape.head_dim, self.shape.block_size);
        for (row, slot) in rows.values.chunks_exact(rows.row_len).zip(slots) {
            let (block, slot) = (*slot as usize / B, *slot as usize % B);
            let tile = block * self.shape.num_kv_heads + head;
            let keys = tile * self.lines.keys + slot / 16 * self.lines.key;
            let values = tile * self.lines.values + slot * self.lines.value;
            // SAFETY: the lines of a slot of the caller's head.
            let (keys, values) = unsafe {
                let keys = self.k.get().add(keys);
                let values = self.v.get().add(values);
                (
                    std::slice::from_raw_parts_mut(keys, self.lines.key),
                    std::slice::from_raw_parts_mut(values, self.lines.value),
                )
            };
            let (k, v) = (
                &row[rows.k + head * D..][..D],
                &row[rows.v + head * D..][..D],
            );
            match self.shape.format {
                KvFormat::F32 => write_f32((keys, values), (k, v), slot % 16),
                KvFormat::Bf16 => write_bf16((keys, values), (k, v), slot % 16),
            }
        }
    }
}

fn write_f32((keys, values): (&mut [Line], &mut [Line]), (k, v): (&[f32], &[f32]), lane: usize) {
    for (line, value) in keys.iter_mut().zip(k) {
        line.0[lane] = value.to_bits();
    }
    for (line, values) in values.iter_mut().zip(v.chunks(16)) {
        for (word, value) in line.0.iter_mut().zip(values) {
            *word = value.to_bits();
        }
    }
}

fn write_bf16((keys, values): (&mut [Line], &mut [Line]), (k, v): (&[f32], &[f32]), lane: usize) {
    for (line, pair) in keys.iter_mut().zip(k.chunks(2)) {
        line.0[lane] = bf16_pair(pair[0], pair.get(1).copied().unwrap_or(0.0));
    }
    for (line, values) in values.iter_mut().zip(v.chunks(32)) {
        let value = |i: usize| values.get(i).copied().unwrap_or(0.0);
        for (i, word) in line.0.iter_mut().enumerate() {
            *word = bf16_pair(value(i), value(16 + i));
        }
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
