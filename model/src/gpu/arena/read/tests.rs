//! What the host rounds against what the GPU rounds.

use cuda::Device;
use cuda_emulator::Provided;
use half::bf16;

use super::*;

/// Rows that are spread over tasks, one of zeros, ties and both ends.
#[test]
fn the_host_quantizes_as_the_gpu_does() {
    if let Provided::Nothing(why) = cuda_emulator::load() {
        eprintln!("SKIPPED, no GPU: {why}");
        return;
    }
    let device = Device::open(0).unwrap();
    let (rows, width) = (37, 8 * 300);
    let value = |at: usize| (at * 7919 % 1013) as f32 / 506.0 - 1.0;
    let mut w: Vec<bf16> = (0..rows * width)
        .map(|at| bf16::from_f32(value(at) * 0.1))
        .collect();
    w[width..2 * width].fill(bf16::ZERO);
    // The scale is 2: odd numbers are ties.
    for (at, w) in w[2 * width..3 * width].iter_mut().enumerate() {
        *w = bf16::from_f32((at % 255) as f32 - 127.0);
    }
    w[2 * width] = bf16::from_f32(-254.0);
    assert!(rows * width > CHUNK);

    let wide: Vec<f32> = w.iter().map(|w| w.to_f32()).collect();
    let mut rounded = Rounded::<bf16>::default();
    let (values, scales) = rounded.quantize(&wide, width);

    let w = device.upload(&w).unwrap();
    let mut gpu_values = device.zeros::<i8>(rows * width).unwrap();
    let mut gpu_scales = device.zeros::<f32>(rows).unwrap();
    cuda::quantize_rows(
        &device,
        &w.as_view(),
        &mut gpu_values.as_view_mut(),
        &mut gpu_scales.as_view_mut(),
    )
    .unwrap();
    assert_eq!(values, device.download(&gpu_values).unwrap());
    assert_eq!(scales, device.download(&gpu_scales).unwrap());
    assert_eq!((scales[1], scales[2], values[2 * width]), (0.0, 2.0, -127));
    assert_eq!(values[2 * width + 1..][..3], [-63, -62, -62]);
}
