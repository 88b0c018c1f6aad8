//! AdamW beside `kernels::adamw_step`, bit for bit.

use candle_core::Tensor;
use cuda::{AdamWFactors, AdamWMoments, AdamWParameter, CudaSlice, Device};
use half::bf16;
use kernels::{AdamWStep, Moments, MomentsFormat, Rounding};

use crate::support::{Random, SEEDS, device};

/// Moments on the GPU, as the launcher takes them.
enum OnGpu {
    F32([CudaSlice<f32>; 2]),
    Bf16([CudaSlice<bf16>; 2]),
    Int8([CudaSlice<u8>; 2], [CudaSlice<f32>; 2]),
}

fn upload(device: &Device, moments: &Moments) -> OnGpu {
    match moments {
        Moments::F32 { first, second } => {
            OnGpu::F32([first, second].map(|values| device.upload(values).expect("the GPU works")))
        }
        Moments::Bf16 { first, second } => {
            OnGpu::Bf16([first, second].map(|values| device.upload(values).expect("the GPU works")))
        }
        Moments::Int8 { first, second } => OnGpu::Int8(
            [first, second].map(|of| device.upload(&of.codes).expect("the GPU works")),
            [first, second].map(|of| device.upload(&of.scales).expect("the GPU works")),
        ),
    }
}

fn download(device: &Device, moments: &OnGpu) -> Moments {
    let quantized = |codes, scales| kernels::Quantized {
        codes: device.download(codes).expect("the GPU works"),
        scales: device.download(scales).expect("the GPU works"),
    };
    match moments {
        OnGpu::F32([first, second]) => Moments::F32 {
            first: device.download(first).expect("the GPU works"),
            second: device.download(second).expect("the GPU works"),
        },
        OnGpu::Bf16([first, second]) => Moments::Bf16 {
            first: device.download(first).expect("the GPU works"),
            second: device.download(second).expect("the GPU works"),
        },
        OnGpu::Int8(codes, scales) => Moments::Int8 {
            first: quantized(&codes[0], &scales[0]),
            second: quantized(&codes[1], &scales[1]),
        },
    }
}

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

fn run(
    device: &Device,
    parameter: AdamWParameter<'_, '_>,
    gradient: &[f32],
    moments: &mut OnGpu,
    step: (&AdamWStep, u64),
) {
    let tables = device
        .upload(&kernels::moment_tables())
        .expect("the GPU works");
    let tables = tables.as_view();
    let gradient = device.upload(gradient).expect("the GPU works");
    let numbers = (&factors(step.0), step.1);
    let gradient = gradient.as_view();
    match moments {
        OnGpu::F32([first, second]) => {
            let both = [&mut first.as_view_mut(), &mut second.as_view_mut()];
            let moments = AdamWMoments::F32(both);
            cuda::adamw(device, parameter, &gradient, moments, numbers)
        }
        OnGpu::Bf16([first, second]) => {
            let both = [&mut first.as_view_mut(), &mut second.as_view_mut()];
            let moments = AdamWMoments::Bf16(both);
            cuda::adamw(device, parameter, &gradient, moments, numbers)
        }
        OnGpu::Int8([first, second], [first_scales, second_scales]) => {
            let moments = AdamWMoments::Int8 {
                codes: [&mut first.as_view_mut(), &mut second.as_view_mut()],
                scales: [
                    &mut first_scales.as_view_mut(),
                    &mut second_scales.as_view_mut(),
                ],
                tables: &tables,
            };
            cuda::adamw(device, parameter, &gradient, moments, numbers)
        }
    }
    .expect("the GPU works");
}

/// Three steps in every format of weights and moments, lengths that are no multiple of a block included.
#[test]
fn a_step_has_the_cpus_bits() {
    let Some(device) = device() else { return };
    for (seed, format) in
        SEEDS
            .into_iter()
            .zip([MomentsFormat::F32, MomentsFormat::Bf16, MomentsFormat::Int8])
    {
        let mut random = Random::new(seed);
        let len = random.below(200, 900);
        let start = random.floats(len);
        let narrow: Vec<bf16> = start.iter().map(|x| bf16::from_f32(*x)).collect();
        let host = candle_core::Device::Cpu;
        let wide_twin = Tensor::from_vec(start.clone(), len, &host).unwrap();
        let narrow_twin = Tensor::from_vec(narrow.clone(), len, &host).unwrap();
        let mut twins = [(); 2].map(|()| Moments::zeros(format, len));
        let mut found = twins.each_ref().map(|moments| upload(&device, moments));
        let mut wide = device.upload(&start).unwrap();
        let mut copy = device.zeros::<bf16>(len).unwrap();
        let mut rounded = device.upload(&narrow).unwrap();
        for number in 1..=3 {
            let mut gradient = random.floats(len);
            // A block of zeros, which has no scale.
            gradient[..100].fill(0.0);
            let step = AdamWStep {
                lr: 1e-2,
                beta1: 0.9,
                beta2: 0.99,
                eps: 1e-8,
                weight_decay: 0.1,
                step: number,
                grad_scale: 0.7,
            };
            let rounding = Rounding { key: random.bits() };
            let [first, second] = &mut twins;
            kernels::adamw_step(&wide_twin, &gradient, first, &step, rounding).unwrap();
            kernels::adamw_step(&narrow_twin, &gradient, second, &step, rounding).unwrap();
            let numbers = (&step, rounding.key);
            let mut views = (
                wide.as_view_mut(),
                copy.as_view_mut(),
                rounded.as_view_mut(),
            );
            let both = AdamWParameter::F32WithCopy(&mut views.0, &mut views.1);
            run(&device, both, &gradient, &mut found[0], numbers);
            run(
                &device,
                AdamWParameter::Bf16(&mut views.2),
                &gradient,
                &mut found[1],
                numbers,
            );
        }
        let expected = wide_twin.to_vec1::<f32>().unwrap();
        assert_eq!(device.download(&wide).unwrap(), expected, "{format:?}");
        let expected: Vec<bf16> = expected.into_iter().map(bf16::from_f32).collect();
        assert_eq!(device.download(&copy).unwrap(), expected, "{format:?}");
        let expected = narrow_twin.to_vec1::<bf16>().unwrap();
        assert_eq!(device.download(&rounded).unwrap(), expected, "{format:?}");
        for (found, twin) in found.iter().zip(&twins) {
            assert_eq!(&download(&device, found), twin, "{format:?}");
        }
    }
}
