//! Host memory that the GPU copies to and from by itself while the host goes on, and marks in the stream
//! to wait for.
#![expect(unsafe_code, reason = "copies go on after the call that starts them")]

use std::fmt;

use cudarc::driver::{
    CudaEvent, DevicePtr, DevicePtrMut, PinnedHostSlice, result, sys::CUevent_flags,
};

use crate::{
    Device,
    device::Element,
    error::{Error, Result, expect_room},
};

/// Page-locked memory of the host. While a copy is under way it must be left alone: whoever starts one
/// sets a [`Mark`] behind it and waits for that.
pub struct Pinned<T> {
    memory: PinnedHostSlice<T>,
}

impl<T> fmt::Debug for Pinned<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Pinned({})", self.memory.len())
    }
}

/// A place in the stream.
#[derive(Debug)]
pub struct Mark {
    event: CudaEvent,
}

impl Mark {
    /// Waits until everything before it has been computed.
    pub fn wait(&self) -> Result<()> {
        self.event.synchronize().map_err(Error::driver("wait"))
    }
}

impl<T: Element> Pinned<T> {
    pub fn as_slice(&self) -> Result<&[T]> {
        self.memory
            .as_slice()
            .map_err(Error::driver("pinned memory"))
    }

    pub fn as_mut_slice(&mut self) -> Result<&mut [T]> {
        self.memory
            .as_mut_slice()
            .map_err(Error::driver("pinned memory"))
    }
}

impl Device {
    /// Page-locked memory for `len` values.
    pub fn pinned<T: Element>(&self, len: usize) -> Result<Pinned<T>> {
        let context = self.stream().context();
        // SAFETY: filled below, before anything reads it; every `Element` may be all zero.
        let mut memory = unsafe { context.alloc_pinned_with_flags::<T>(len.max(1), 0) }
            .map_err(Error::driver("allocate pinned memory"))?;
        memory
            .as_mut_slice()
            .map_err(Error::driver("pinned memory"))?
            .fill(T::default());
        Ok(Pinned { memory })
    }

    /// Starts copying the first `len` values of `from` to the beginning of `to`.
    pub fn send<T: Element>(
        &self,
        from: &Pinned<T>,
        len: usize,
        to: &mut impl DevicePtrMut<T>,
    ) -> Result<()> {
        let values = from.as_slice()?;
        expect_room("send", len, values.len().min(to.len()))?;
        if len == 0 {
            return Ok(());
        }
        self.bind()?;
        let (address, _guard) = to.device_ptr_mut(self.stream());
        let stream = self.stream().cu_stream();
        // SAFETY: both have `len` values; the caller leaves `from` alone until a mark behind the copy.
        unsafe { result::memcpy_htod_async(address, &values[..len], stream) }
            .map_err(Error::driver("send"))
    }

    /// Starts copying all of `from` to the beginning of `to`.
    pub fn receive<T: Element>(&self, from: &impl DevicePtr<T>, to: &mut Pinned<T>) -> Result<()> {
        let len = from.len();
        let values = to.as_mut_slice()?;
        expect_room("receive", len, values.len())?;
        if len == 0 {
            return Ok(());
        }
        self.bind()?;
        let (address, _guard) = from.device_ptr(self.stream());
        let stream = self.stream().cu_stream();
        // SAFETY: both have `len` values; the caller leaves `to` alone until a mark behind the copy.
        unsafe { result::memcpy_dtoh_async(&mut values[..len], address, stream) }
            .map_err(Error::driver("receive"))
    }

    /// Marks what has been submitted so far.
    pub fn mark(&self) -> Result<Mark> {
        let flags = Some(CUevent_flags::CU_EVENT_DISABLE_TIMING);
        let event = self
            .stream()
            .record_event(flags)
            .map_err(Error::driver("mark"))?;
        Ok(Mark { event })
    }
}
