//! Both running means of AdamW for one parameter in the GPU's memory; formats as `kernels::Moments`.

use cuda::{AdamWFactors, AdamWMoments, AdamWParameter, CudaSlice, CudaView, Device};
use half::bf16;
use kernels::{AdamWStep, Moments, MomentsFormat, Quantized, Rounding};

use crate::error::Result;

/// On the GPU what [`Moments`] is on the host.
#[derive(Debug)]
pub(super) enum DeviceMoments {
    F32 {
        first: CudaSlice<f32>,
        second: CudaSlice<f32>,
    },
    Bf16 {
        first: CudaSlice<bf16>,
        second: CudaSlice<bf16>,
    },
    Int8 {
        first: DeviceQuantized,
        second: DeviceQuantized,
    },
}

/// Codes, and a scale for each block of them.
#[derive(Debug)]
pub(super) struct DeviceQuantized {
    pub(super) codes: CudaSlice<u8>,
    pub(super) scales: CudaSlice<f32>,
}

impl DeviceMoments {
    /// As before the first step.
    pub(super) fn zeros(device: &Device, format: MomentsFormat, len: usize) -> Result<Self> {
        Ok(match format {
            MomentsFormat::F32 => Self::F32 {
                first: device.zeros(len)?,
                second: device.zeros(len)?,
            },
            MomentsFormat::Bf16 => Self::Bf16 {
                first: device.zeros(len)?,
                second: device.zeros(len)?,
            },
            MomentsFormat::Int8 => Self::Int8 {
                first: DeviceQuantized::zeros(device, len)?,
                second: DeviceQuantized::zeros(device, len)?,
            },
        })
    }

    /// One step of AdamW for the parameter that these are of. `tables`: `kernels::moment_tables`.
    pub(super) fn step(
        &mut self,
        device: &Device,
        parameter: AdamWParameter<'_, '_>,
        gradient: &CudaView<'_, f32>,
        (step, rounding, tables): (&AdamWStep, Rounding, &CudaSlice<f32>),
    ) -> Result<()> {
        let numbers = (&factors(step), rounding.key);
        Ok(match self {
            Self::F32 { first, second } => {
                let both = [&mut first.as_view_mut(), &mut second.as_view_mut()];
                let moments = AdamWMoments::F32(both);
                cuda::adamw(device, parameter, gradient, moments, numbers)
            }
            Self::Bf16 { first, second } => {
                let both = [&mut first.as_view_mut(), &mut second.as_view_mut()];
                let moments = AdamWMoments::Bf16(both);
                cuda::adamw(device, parameter, gradient, moments, numbers)
            }
            Self::Int8 { first, second } => {
                let moments = AdamWMoments::Int8 {
                    codes: [
                        &mut first.codes.as_view_mut(),
                        &mut second.codes.as_view_mut(),
                    ],
                    scales: [
                        &mut first.scales.as_view_mut(),
                        &mut second.scales.as_view_mut(),
                    ],
                    tables: &tables.as_view(),
                };
                cuda::adamw(device, parameter, gradient, moments, numbers)
            }
        }?)
    }

    pub(super) fn download(&self, device: &Device) -> Result<Moments> {
        Ok(match self {
            Self::F32 { first, second } => Moments::F32 {
                first: device.download(first)?,
                second: device.download(second)?,
            },
            Self::Bf16 { first, second } => Moments::Bf16 {
                first: device.download(first)?,
                second: device.download(second)?,
            },
            Self::Int8 { first, second } => Moments::Int8 {
                first: first.download(device)?,
                second: second.download(device)?,
            },
        })
    }

    pub(super) fn upload(device: &Device, moments: &Moments) -> Result<Self> {
        Ok(match moments {
            Moments::F32 { first, second } => Self::F32 {
                first: device.upload(first)?,
                second: device.upload(second)?,
            },
            Moments::Bf16 { first, second } => Self::Bf16 {
                first: device.upload(first)?,
                second: device.upload(second)?,
            },
            Moments::Int8 { first, second } => Self::Int8 {
                first: DeviceQuantized::upload(device, first)?,
                second: DeviceQuantized::upload(device, second)?,
            },
        })
    }
}

impl DeviceQuantized {
    fn zeros(device: &Device, len: usize) -> Result<Self> {
        Ok(Self {
            codes: device.zeros(len)?,
            scales: device.zeros(Quantized::num_scales(len))?,
        })
    }

    fn download(&self, device: &Device) -> Result<Quantized> {
        Ok(Quantized {
            codes: device.download(&self.codes)?,
            scales: device.download(&self.scales)?,
        })
    }

    fn upload(device: &Device, stored: &Quantized) -> Result<Self> {
        Ok(Self {
            codes: device.upload(&stored.codes)?,
            scales: device.upload(&stored.scales)?,
        })
    }
}

/// The constants of a step as the kernel takes them.
fn factors(step: &AdamWStep) -> AdamWFactors {
    let of = kernels::AdamWFactors::new(step);
    AdamWFactors {
        keep: of.keep,
        beta1: of.beta1,
        beta2: of.beta2,
        one_minus_beta1: of.one_minus_beta1,
        one_minus_beta2: of.one_minus_beta2,
        rate: of.rate,
        inverse_root_correction2: of.inverse_root_correction2,
        eps: of.eps,
        grad_scale: of.grad_scale,
    }
}
