//! The angles of every position, and the way heads turn by them.

use cuda::{Angles, CudaSlice, CudaView, CudaViewMut, Device, Heads, Turn, rope_train};
use half::bf16;
use kernels::RopeTable;

use crate::error::Result;

/// A [`RopeTable`] in the GPU's memory.
#[derive(Debug)]
pub(super) struct Rope {
    cosines: CudaSlice<f32>,
    sines: CudaSlice<f32>,
}

impl Rope {
    pub(super) fn new(device: &Device, table: &RopeTable) -> Result<Self> {
        Ok(Self {
            cosines: device.upload(table.cosines())?,
            sines: device.upload(table.sines())?,
        })
    }

    /// Turns the queries and keys of `[T, (H + 2G)·D]` by their positions, or back.
    pub(super) fn turn(
        &self,
        device: &Device,
        qkv: &mut CudaViewMut<'_, bf16>,
        (positions, heads): (&CudaView<'_, u32>, Heads),
        turn: Turn,
    ) -> Result<()> {
        let angles = Angles {
            cosines: &self.cosines.as_view(),
            sines: &self.sines.as_view(),
        };
        Ok(rope_train(device, qkv, (positions, angles), heads, turn)?)
    }
}
