//! Large copies to the GPU through page-locked memory, piece by piece. From other memory the driver would stage them
//! itself, more slowly, and who launches kernels meanwhile might wait for it.
#![expect(unsafe_code, reason = "values are copied as bytes")]

use std::{fmt, ptr};

use cudarc::driver::CudaViewMut;

use crate::{
    Device, Mark, Pinned,
    device::Element,
    error::{Error, Result, expect_room},
};

/// At 25 GB/s, which PCIe 4 gives, 0.7 ms: long beside what a copy takes to start.
const PIECE_BYTES: usize = 16 << 20;

/// Two pieces of page-locked memory: one is filled while the other is copied.
pub struct Uploader {
    device: Device,
    pieces: [Piece; 2],
    next: usize,
}

struct Piece {
    memory: Pinned<u8>,
    /// Behind its last copy.
    copied: Option<Mark>,
}

impl fmt::Debug for Uploader {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Uploader({:?})", self.device)
    }
}

impl Uploader {
    /// Takes 32 MiB of page-locked memory. Copies go through the stream of `device`.
    pub fn new(device: &Device) -> Result<Self> {
        let piece = || {
            Ok::<_, Error>(Piece {
                memory: device.pinned(PIECE_BYTES)?,
                copied: None,
            })
        };
        Ok(Self {
            device: device.clone(),
            pieces: [piece()?, piece()?],
            next: 0,
        })
    }

    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Starts to write `values` to the beginning of `to`. They may be changed when this returns.
    pub fn write<T: Element>(&mut self, values: &[T], to: &mut CudaViewMut<'_, T>) -> Result<()> {
        expect_room("upload", values.len(), to.len())?;
        let mut at = 0;
        for part in values.chunks(PIECE_BYTES / size_of::<T>()) {
            let piece = &mut self.pieces[self.next];
            self.next = 1 - self.next;
            if let Some(copied) = piece.copied.take() {
                copied.wait()?;
            }
            let num_bytes = size_of_val(part);
            let memory = piece.memory.as_mut_slice()?[..num_bytes].as_mut_ptr();
            // SAFETY: both have so many bytes, and no copy from the piece is under way.
            unsafe { ptr::copy_nonoverlapping(part.as_ptr().cast(), memory, num_bytes) };
            let mut place = to.slice_mut(at..at + part.len());
            // SAFETY: any bytes of an `Element` may be copied as bytes.
            let place = unsafe { place.transmute_mut::<u8>(num_bytes) };
            let mut place = place.ok_or_else(|| Error::argument("upload", "to", "room", "none"))?;
            self.device.send(&piece.memory, num_bytes, &mut place)?;
            piece.copied = Some(self.device.mark()?);
            at += part.len();
        }
        Ok(())
    }
}

impl Drop for Uploader {
    /// Copies may be under way.
    fn drop(&mut self) {
        for piece in &self.pieces {
            if let Some(copied) = &piece.copied {
                // A device that has failed copies nothing any more.
                let _ = copied.wait();
            }
        }
    }
}
