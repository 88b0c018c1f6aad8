//! The flags that say what computes.

use clap::Args;
use cuda::Device;

use crate::config::DeviceKind;
use crate::error::{Result, TrainError};

#[derive(Debug, Clone, Copy, Default, Args)]
pub struct DeviceArgs {
    /// What computes. `cuda`: one NVIDIA GPU, products in bf16.
    #[arg(long, value_enum, default_value_t)]
    pub device: DeviceKind,
    /// Number of the GPU. Default: 0.
    #[arg(long, value_name = "N")]
    pub gpu: Option<usize>,
}

impl DeviceArgs {
    /// The GPU, where there is to be one.
    pub fn open(self) -> Result<Option<Device>> {
        match (self.device, self.gpu) {
            (DeviceKind::Cpu, None) => Ok(None),
            (DeviceKind::Cpu, Some(number)) => Err(TrainError::BadSetting {
                flag: "--gpu",
                found: number.to_string(),
                expected: "--device cuda with it".to_string(),
            }),
            (DeviceKind::Cuda, number) => Ok(Some(Device::open(number.unwrap_or(0))?)),
        }
    }
}
