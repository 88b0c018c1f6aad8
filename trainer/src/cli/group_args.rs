//! Flags of a run that several processes share. Who takes part is told by the launcher
//! (`cli/ranks`), not by flags.

use clap::{Args, ValueEnum};

use crate::distributed::Backend;

/// What gradients are summed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum BackendChoice {
    /// On the CPU, in an order that makes 1, 2 and 4 processes that compute there give the same bits;
    /// gradients of a GPU go through the host in pieces.
    #[default]
    Tcp,
    /// NVIDIA's library, from GPU to GPU. For programs built with feature `nccl`; never run yet.
    #[cfg(feature = "nccl")]
    Nccl,
}

/// Several processes that train as one (data parallel), started by srun or torchrun: each computes a
/// part of every step's micro-batches, rank 0 writes the results.
#[derive(Debug, Clone, Args)]
pub struct GroupArgs {
    /// How long a process waits for the others, in seconds, beyond the limits for servers and their
    /// accuracy, which rank 0 may use up while the others wait: enough to load and to save.
    #[arg(long = "group-time-limit-s", default_value_t = 1800,
          value_parser = clap::value_parser!(u64).range(1..=604_800))]
    pub time_limit_s: u64,
    #[arg(long = "group-backend", value_enum, default_value_t)]
    pub backend: BackendChoice,
}

impl GroupArgs {
    pub fn backend(&self) -> Backend {
        match self.backend {
            BackendChoice::Tcp => Backend::Tcp,
            #[cfg(feature = "nccl")]
            BackendChoice::Nccl => Backend::Nccl,
        }
    }
}
