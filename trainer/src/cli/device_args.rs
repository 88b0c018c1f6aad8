//! The flags that say what computes.

use clap::Args;
use cuda::Device;

use crate::config::DeviceKind;
use crate::distributed::Ranks;
use crate::error::{Result, TrainError};

#[derive(Debug, Clone, Copy, Default, Args)]
pub struct DeviceArgs {
    /// What computes. `cuda`: one NVIDIA GPU a process, products in bf16.
    #[arg(long, value_enum, default_value_t)]
    pub device: DeviceKind,
    /// Number of the GPU, among those that the process sees. Default: the local rank (0 for a process
    /// alone), so that each of several processes on a machine has one of its own. Where the launcher shows
    /// each process a single GPU, such as `srun --gpus-per-task=1`: 0.
    #[arg(long, value_name = "N")]
    pub gpu: Option<usize>,
}

impl DeviceArgs {
    /// Which GPU it would be.
    pub fn gpu_number(self, ranks: Option<&Ranks>) -> usize {
        self.gpu.unwrap_or(ranks.map_or(0, Ranks::local_rank))
    }

    /// The GPU, where there is to be one.
    pub fn open(self, ranks: Option<&Ranks>) -> Result<Option<Device>> {
        match (self.device, self.gpu) {
            (DeviceKind::Cpu, None) => Ok(None),
            (DeviceKind::Cpu, Some(number)) => Err(TrainError::BadSetting {
                flag: "--gpu",
                found: number.to_string(),
                expected: "--device cuda with it".to_string(),
            }),
            (DeviceKind::Cuda, _) => Ok(Some(Device::open(self.gpu_number(ranks))?)),
        }
    }
}
