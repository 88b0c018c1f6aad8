//! Sums of f32 by NCCL, NVIDIA's collectives, loaded when the program runs (`libnccl.so`,
//! `libcuda.so`; a package that has only `libnccl.so.2` needs a link). Everything else goes over the
//! TCP group, which also carries NCCL's id. Values in a GPU's memory are summed where they are; those on
//! the host are copied to the GPU, summed there, copied back. The order of a sum is NCCL's own.
//!
//! This file has been compiled only: it has never run on a machine with GPUs.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cuda::Device;
use cudarc::driver::{CudaContext, CudaSlice, CudaStream, DevicePtrMut, DriverError};
use cudarc::nccl::result::NcclError;
use cudarc::nccl::{Comm, Id, ReduceOp};

use super::error::GroupError;
use super::tcp::TcpGroup;

/// Between two looks whether the device is done.
const POLL: Duration = Duration::from_micros(50);

/// Ranks with a GPU each.
#[derive(Debug)]
pub struct NcclGroup {
    pub(super) tcp: TcpGroup,
    comm: Comm,
    stream: Arc<CudaStream>,
    /// Kept between calls; as long as the longest call so far.
    values: Option<CudaSlice<f32>>,
    time_limit: Duration,
    /// A collective that was given up leaves the device in no known state.
    failure: Option<GroupError>,
}

impl NcclGroup {
    /// On the GPU of this number.
    pub(super) fn connect(
        mut tcp: TcpGroup,
        gpu: usize,
        time_limit: Duration,
    ) -> Result<Self, GroupError> {
        let opened = loaded("libcuda", || CudaContext::new(gpu));
        let own_id = loaded("libnccl", Id::new);
        // Everybody hears of a failure here, before anybody waits inside NCCL.
        let mut failures = [f64::from(u8::from(opened.is_err() || own_id.is_err()))];
        tcp.all_reduce_sum(&mut failures)?;
        let context = opened?.map_err(device)?;
        let own_id = own_id?.map_err(nccl)?;
        if failures[0] > 0.0 {
            let what = format!("{} other ranks cannot use NCCL", failures[0]);
            return Err(GroupError::Device(what));
        }
        let bytes = own_id
            .internal()
            .iter()
            .map(|&it| it.cast_unsigned())
            .collect();
        let bytes = tcp.broadcast(bytes)?;
        let mut internal = [0; 128];
        for (to, from) in internal.iter_mut().zip(bytes) {
            *to = from.cast_signed();
        }
        let stream = context.default_stream();
        let (rank, size) = (tcp.rank(), tcp.size());
        let comm = Comm::from_rank(stream.clone(), rank, size, Id::uninit(internal));
        Ok(Self {
            tcp,
            comm: comm.map_err(nccl)?,
            stream,
            values: None,
            time_limit,
            failure: None,
        })
    }

    pub(super) fn all_reduce_sum(&mut self, host: &mut [f32]) -> Result<(), GroupError> {
        self.guarded(|group| group.sum_of_host(host))
    }

    /// `values` are of the GPU that the group is on.
    pub(super) fn all_reduce_device(
        &mut self,
        gpu: &Device,
        values: &mut CudaSlice<f32>,
    ) -> Result<(), GroupError> {
        self.guarded(|group| {
            // The group's stream is another one than that which computes them.
            gpu.synchronize()?;
            group.sum_in_place(values)
        })
    }

    /// Meets the others, sums, and keeps the first failure.
    fn guarded(
        &mut self,
        sum: impl FnOnce(&mut Self) -> Result<(), GroupError>,
    ) -> Result<(), GroupError> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        // NCCL waits for ever for a rank that is gone; this meeting does not.
        self.tcp.all_reduce_sum::<f64>(&mut [])?;
        sum(self).inspect_err(|error| self.failure = Some(error.clone()))
    }

    fn sum_of_host(&mut self, host: &mut [f32]) -> Result<(), GroupError> {
        if host.is_empty() {
            return Ok(());
        }
        let mut values = match self.values.take() {
            Some(values) if values.len() >= host.len() => values,
            _ => self.stream.alloc_zeros(host.len()).map_err(device)?,
        };
        self.stream.memcpy_htod(host, &mut values).map_err(device)?;
        let mut used = values.slice_mut(..host.len());
        self.sum_in_place(&mut used)?;
        self.stream.memcpy_dtoh(&used, host).map_err(device)?;
        self.stream.synchronize().map_err(device)?;
        self.values = Some(values);
        Ok(())
    }

    fn sum_in_place(&self, values: &mut impl DevicePtrMut<f32>) -> Result<(), GroupError> {
        let summed = self.comm.all_reduce_in_place(values, &ReduceOp::Sum);
        summed.map_err(nccl)?;
        self.wait()
    }

    /// Until all that was asked of the device is done, or the time limit.
    fn wait(&self) -> Result<(), GroupError> {
        let event = self.stream.record_event(None).map_err(device)?;
        let deadline = Instant::now() + self.time_limit;
        while !event.is_complete() {
            if Instant::now() >= deadline {
                let limit = self.time_limit.as_secs_f64();
                let what = format!("NCCL's sum is not done after {limit} s, the time limit");
                return Err(GroupError::Device(what));
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }
}

/// cudarc panics where a library is not on the machine; here that is an error.
fn loaded<T, E>(
    library: &str,
    call: impl FnOnce() -> Result<T, E>,
) -> Result<Result<T, E>, GroupError> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|_| {
        GroupError::Device(format!(
            "{library}.so cannot be loaded; is its folder in LD_LIBRARY_PATH?"
        ))
    })
}

fn device(error: DriverError) -> GroupError {
    GroupError::Device(format!("CUDA: {error:?}"))
}

fn nccl(NcclError(code): NcclError) -> GroupError {
    GroupError::Device(format!("NCCL: {code:?}"))
}
