//! Several processes that train as one: sums over all of them, in one fixed order. Here are who
//! takes part ([`Ranks`]) and what they do together ([`Group`]); how bytes travel is below. Nothing
//! here knows a gradient or a tensor: values are in the host's memory or in a GPU's.

mod device;
mod error;
mod hello;
mod link;
#[cfg(feature = "nccl")]
mod nccl;
mod rendezvous;
mod tcp;

use std::time::Duration;

use cuda::{CudaSlice, Device};

pub use self::error::GroupError;
#[cfg(feature = "nccl")]
use self::nccl::NcclGroup;
use self::tcp::TcpGroup;
use crate::stop::StopFlag;

/// More processes than this are taken for a mistake. It bounds what rank 0 keeps while it waits.
pub const MAX_RANKS: usize = 1024;

/// Longest name of a run, in bytes: a hex sha256 with room.
pub const MAX_RUN_BYTES: usize = 128;

/// Longest message of [`Group::broadcast`]: settings and orders of examples, not weights.
pub const MAX_BROADCAST_BYTES: usize = 64 << 20;

/// This process among the others. Made by [`Ranks::new`], so that `rank < size` holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ranks {
    rank: usize,
    size: usize,
    local_rank: usize,
    meeting: MeetingPoint,
}

/// Where rank 0 listens while the others come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeetingPoint {
    /// Name or address. A loopback one keeps all connections on the loopback.
    pub host: String,
    pub port: u16,
}

impl Ranks {
    /// # Errors
    /// All that is wrong, at once.
    pub fn new(
        (rank, size): (usize, usize),
        local_rank: usize,
        meeting: MeetingPoint,
    ) -> Result<Self, GroupError> {
        let mut problems = Vec::new();
        if !(2..=MAX_RANKS).contains(&size) {
            problems.push(format!("a group of {size}: expected 2 to {MAX_RANKS}"));
        }
        if rank >= size {
            problems.push(format!(
                "rank {rank} in a group of {size}: ranks count from 0"
            ));
        }
        if local_rank > rank {
            problems.push(format!("local rank {local_rank} is above rank {rank}"));
        }
        if meeting.host.is_empty() || meeting.port == 0 {
            problems.push(format!("no place to meet: {meeting}"));
        }
        if problems.is_empty() {
            Ok(Self {
                rank,
                size,
                local_rank,
                meeting,
            })
        } else {
            Err(GroupError::Environment(problems))
        }
    }

    pub fn rank(&self) -> usize {
        self.rank
    }

    pub fn size(&self) -> usize {
        self.size
    }

    /// This process's number among those of its machine.
    pub fn local_rank(&self) -> usize {
        self.local_rank
    }
}

impl std::fmt::Display for MeetingPoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') {
            write!(f, "[{host}]:{port}")
        } else {
            write!(f, "{host}:{port}")
        }
    }
}

/// What the sums of `f32` travel over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// Sums on the CPU, in the order that [`Group`] promises.
    Tcp,
    /// NVIDIA's library, over NVLink or `InfiniBand` where there is one; its order is its own.
    #[cfg(feature = "nccl")]
    Nccl,
}

/// What a group needs to come together.
#[derive(Debug, Clone)]
pub struct GroupSettings {
    pub ranks: Ranks,
    /// Number of the GPU that NCCL sums on: the one that computes, where one does.
    pub gpu: usize,
    /// Names what is computed, such as a digest of the settings: only equal ones come together.
    pub run: String,
    /// For all to come, and later for each of the others to do its part of a sum. Above the longest
    /// that one rank works alone (a validation, a checkpoint).
    pub time_limit: Duration,
    pub backend: Backend,
}

/// The processes of a run. Every rank calls the same methods in the same order; all get the same
/// bits (where a value is not a number, all get one that is not, but its payload is anybody's).
///
/// Sums have one order. For a power of two of ranks it is the binary tree over neighbours,
/// `((0 + 1) + (2 + 3)) + ...`, that [`pairwise_order`] gives for parts within one process: so parts
/// summed in that order have the same bits however many ranks share them. For other numbers the
/// ranks beyond the largest power of two are first added to the first ranks.
///
/// Connections are neither encrypted nor authenticated, like those of gloo or NCCL: for networks
/// whose machines trust each other.
///
/// After an error the group is done: every later call gives the same error.
///
/// One thread's: with feature `nccl` a group is not `Send`, so it is made where it is used.
#[derive(Debug)]
pub enum Group {
    /// One process: every sum is what it was.
    Single,
    Tcp(TcpGroup),
    #[cfg(feature = "nccl")]
    Nccl(NcclGroup),
}

impl Group {
    /// Brings all ranks together. No settings: a process alone.
    pub fn connect(settings: Option<&GroupSettings>) -> Result<Self, GroupError> {
        let Some(settings) = settings else {
            return Ok(Self::Single);
        };
        let tcp = TcpGroup::connect(settings)?;
        match settings.backend {
            Backend::Tcp => Ok(Self::Tcp(tcp)),
            #[cfg(feature = "nccl")]
            Backend::Nccl => {
                let nccl = NcclGroup::connect(tcp, settings.gpu, settings.time_limit)?;
                Ok(Self::Nccl(nccl))
            }
        }
    }

    pub fn rank(&self) -> usize {
        self.tcp().map_or(0, TcpGroup::rank)
    }

    pub fn size(&self) -> usize {
        self.tcp().map_or(1, TcpGroup::size)
    }

    /// Replaces `values` by their sum over all ranks, which have equally many.
    pub fn all_reduce_sum(&mut self, values: &mut [f32]) -> Result<(), GroupError> {
        match self {
            Self::Single => Ok(()),
            Self::Tcp(tcp) => tcp.all_reduce_sum(values),
            #[cfg(feature = "nccl")]
            Self::Nccl(nccl) => nccl.all_reduce_sum(values),
        }
    }

    /// As [`Group::all_reduce_sum`], for values in the memory of this rank's GPU. Returns when they are
    /// there. TCP takes them through the host in pieces, and needs no memory on the GPU.
    pub fn all_reduce_device(
        &mut self,
        device: &Device,
        values: &mut CudaSlice<f32>,
    ) -> Result<(), GroupError> {
        match self {
            Self::Single => Ok(()),
            Self::Tcp(tcp) => device::sum_through_host(tcp, device, values),
            #[cfg(feature = "nccl")]
            Self::Nccl(nccl) => nccl.all_reduce_device(device, values),
        }
    }

    /// As [`Group::all_reduce_sum`], for the few numbers that are counted in f64.
    pub fn all_reduce_sum_f64(&mut self, values: &mut [f64]) -> Result<(), GroupError> {
        self.tcp_mut()
            .map_or(Ok(()), |tcp| tcp.all_reduce_sum(values))
    }

    /// Rank 0's bytes, on every rank; what the others bring is dropped.
    pub fn broadcast(&mut self, bytes: Vec<u8>) -> Result<Vec<u8>, GroupError> {
        match self.tcp_mut() {
            None => Ok(bytes),
            Some(tcp) => tcp.broadcast(bytes),
        }
    }

    /// Returns when all ranks have come here.
    pub fn barrier(&mut self) -> Result<(), GroupError> {
        self.all_reduce_sum_f64(&mut [])
    }

    /// Whether any rank is asked to stop: the same answer everywhere, so that all stop after the
    /// same step.
    pub fn any_raised(&mut self, own: &StopFlag) -> Result<bool, GroupError> {
        let mut count = [f64::from(u8::from(own.is_raised()))];
        self.all_reduce_sum_f64(&mut count)?;
        Ok(count[0] > 0.0)
    }

    fn tcp(&self) -> Option<&TcpGroup> {
        match self {
            Self::Single => None,
            Self::Tcp(tcp) => Some(tcp),
            #[cfg(feature = "nccl")]
            Self::Nccl(nccl) => Some(&nccl.tcp),
        }
    }

    fn tcp_mut(&mut self) -> Option<&mut TcpGroup> {
        match self {
            Self::Single => None,
            Self::Tcp(tcp) => Some(tcp),
            #[cfg(feature = "nccl")]
            Self::Nccl(nccl) => Some(&mut nccl.tcp),
        }
    }
}

/// The additions `(into, from)`, one after the other, that sum `count` parts into the first in the
/// order of [`Group::all_reduce_sum`] over a power of two of ranks: neighbours, then pairs of
/// neighbours, and so on.
pub fn pairwise_order(count: usize) -> Vec<(usize, usize)> {
    let strides = std::iter::successors(Some(1), |stride| Some(2 * stride));
    strides
        .take_while(|&stride| stride < count)
        .flat_map(|stride| {
            let into = (0..count - stride).step_by(2 * stride);
            into.map(move |into| (into, into + stride))
        })
        .collect()
}

#[cfg(test)]
pub(crate) mod tests;
