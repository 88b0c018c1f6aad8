//! The flags about what is measured and logged.

use clap::Args;
use cuda::Device;
use kernels::Compute;

use crate::config::require;
use crate::error::Result;
use crate::gpu::peak_tflops;
use crate::throughput::measured_cpu_tflops;

#[derive(Debug, Clone, Copy, Args)]
pub struct LogArgs {
    /// What the machine can do at most, in TFLOP/s: the MFU in the logs is the model's rate divided
    /// by this. Default: the rate of our own product in the run's precision, measured for 0.2 s at the
    /// start; on a GPU its maker's bf16 peak, or that of a product where the card is not known, times the
    /// number of ranks that have one.
    #[arg(long, value_name = "TFLOPS")]
    pub peak_tflops: Option<f64>,
}

impl LogArgs {
    /// As given, or that of the GPUs (one a rank, all like this rank's), or measured with products of this
    /// kind.
    pub fn peak_tflops(
        &self,
        compute: Compute,
        (gpu, num_ranks): (Option<&Device>, usize),
    ) -> Result<f64> {
        let Some(given) = self.peak_tflops else {
            return match gpu {
                Some(gpu) => Ok(num_ranks as f64 * peak_tflops(gpu)?),
                None => measured_cpu_tflops(compute),
            };
        };
        require("--peak-tflops", given, "a number > 0", |x| {
            x.is_finite() && x > 0.0
        })?;
        Ok(given)
    }
}
