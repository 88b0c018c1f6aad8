//! Products against three loops.

use cuda::Sum;
use half::bf16;

use crate::support::{Random, SEEDS, assert_close, device, to_f32};

/// `d[m, n] = Σ_k a(i, k) b(k, j)`
fn twin(
    (m, n, k): (usize, usize, usize),
    a: impl Fn(usize, usize) -> f32,
    b: impl Fn(usize, usize) -> f32,
) -> Vec<f32> {
    let sum = |i: usize, j: usize| (0..k).map(|l| a(i, l) * b(l, j)).sum::<f32>();
    (0..m)
        .flat_map(|i| (0..n).map(move |j| (i, j)))
        .map(|(i, j)| sum(i, j))
        .collect()
}

/// All three products of a linear layer, f32 and bf16 results, overwritten and added to.
#[test]
fn products_are_their_twins() {
    let Some(device) = device() else { return };
    for seed in SEEDS {
        let mut random = Random::new(seed);
        // cublasLt's fast kernels want rows of 16 bytes.
        let (t, o, k) = (
            random.below(1, 20),
            8 * random.below(1, 5),
            8 * random.below(1, 5),
        );
        let (x, w, dy) = (
            random.bf16s(t * k),
            random.bf16s(o * k),
            random.bf16s(t * o),
        );
        let (fx, fw, fdy) = (to_f32(&x), to_f32(&w), to_f32(&dy));
        let x = device.upload(&x).unwrap();
        let w = device.upload(&w).unwrap();
        let dy = device.upload(&dy).unwrap();

        let mut y = device.upload(&vec![1.0_f32; t * o]).unwrap();
        let to = (&mut y.as_view_mut(), Sum::Add);
        device.linear(&x.as_view(), &w.as_view(), to, k).unwrap();
        let expected = twin((t, o, k), |i, l| fx[i * k + l], |l, j| fw[j * k + l]);
        let added: Vec<f32> = expected.iter().map(|value| value + 1.0).collect();
        assert_close(&device.download(&y).unwrap(), &added, 1e-5);

        let mut y = device.zeros::<bf16>(t * o).unwrap();
        let to = (&mut y.as_view_mut(), Sum::Overwrite);
        device.linear(&x.as_view(), &w.as_view(), to, k).unwrap();
        assert_close(
            &to_f32(&device.download(&y).unwrap()),
            &expected,
            1.0 / 256.0,
        );

        let mut dx = device.zeros::<f32>(t * k).unwrap();
        let to = (&mut dx.as_view_mut(), Sum::Overwrite);
        device
            .linear_input_grad(&dy.as_view(), &w.as_view(), to, k)
            .unwrap();
        let expected = twin((t, k, o), |i, l| fdy[i * o + l], |l, j| fw[l * k + j]);
        assert_close(&device.download(&dx).unwrap(), &expected, 1e-5);

        let mut dw = device.zeros::<f32>(o * k).unwrap();
        let to = (&mut dw.as_view_mut(), Sum::Add);
        device
            .linear_weight_grad(&dy.as_view(), &x.as_view(), to, k)
            .unwrap();
        let expected = twin((o, k, t), |i, l| fdy[l * o + i], |l, j| fx[l * k + j]);
        assert_close(&device.download(&dw).unwrap(), &expected, 1e-5);
    }
}

/// Factors in f32 are not rounded on the way.
#[test]
fn products_of_f32_are_their_twins() {
    let Some(device) = device() else { return };
    for seed in SEEDS {
        let mut random = Random::new(seed);
        let (t, o, k) = (
            random.below(1, 20),
            8 * random.below(1, 5),
            8 * random.below(1, 5),
        );
        let (fx, fw) = (random.floats(t * k), random.floats(o * k));
        let (x, w) = (device.upload(&fx).unwrap(), device.upload(&fw).unwrap());
        let expected = twin((t, o, k), |i, l| fx[i * k + l], |l, j| fw[j * k + l]);
        for (sum, before) in [(Sum::Add, 1.0), (Sum::Overwrite, 0.0)] {
            let mut y = device.upload(&vec![1.0_f32; t * o]).unwrap();
            let to = (&mut y.as_view_mut(), sum);
            device.linear(&x.as_view(), &w.as_view(), to, k).unwrap();
            let expected: Vec<f32> = expected.iter().map(|value| value + before).collect();
            assert_close(&device.download(&y).unwrap(), &expected, 1e-6);
        }
    }
}

/// Whatever kernel cublasLt suggests computes the product, and none is taken for another shape.
#[test]
fn all_suggested_kernels_compute_the_product() {
    let Some(device) = device() else { return };
    for seed in SEEDS {
        let mut random = Random::new(seed);
        let (t, o, k) = (random.below(1, 20), 8 * random.below(1, 5), 64);
        let (x, w) = (random.bf16s(t * k), random.bf16s(o * k));
        let (fx, fw) = (to_f32(&x), to_f32(&w));
        let expected = twin((t, o, k), |i, l| fx[i * k + l], |l, j| fw[j * k + l]);
        let x = device.upload(&x).unwrap();
        let w = device.upload(&w).unwrap();
        let factors = (&x.as_view(), &w.as_view());
        let mut y = device.zeros::<f32>(t * o).unwrap();
        let to = (&mut y.as_view_mut(), Sum::Overwrite);
        let kernels = device.linear_kernels(factors, to, k, 16).unwrap();
        assert!((1..=16).contains(&kernels.len()));
        for kernel in &kernels {
            device.set_zero(&mut y).unwrap();
            let to = (&mut y.as_view_mut(), Sum::Overwrite);
            device.linear_by(kernel, factors, to, k).unwrap();
            assert_close(&device.download(&y).unwrap(), &expected, 1e-5);
        }
        let to = (&mut y.as_view_mut(), Sum::Add);
        let refused = device.linear_by(&kernels[0], factors, to, k).unwrap_err();
        assert!(
            refused.to_string().starts_with("linear_by: kernel: "),
            "{refused}"
        );
    }
}

/// Whatever is taken, products are what they were.
#[test]
fn a_tuned_product_is_its_twin() {
    let Some(device) = device() else { return };
    let mut random = Random::new(7);
    let (t, o, k) = (5, 24, 64);
    let (x, w) = (random.bf16s(t * k), random.bf16s(3 * o * k));
    let (fx, fw) = (to_f32(&x), to_f32(&w[o * k..2 * o * k]));
    let (x, w) = (device.upload(&x).unwrap(), device.upload(&w).unwrap());
    let weights: Vec<_> = (0..3)
        .map(|at| w.slice(at * o * k..(at + 1) * o * k))
        .collect();
    let mut y = device.zeros::<f32>(t * o).unwrap();
    let to = (&mut y.as_view_mut(), Sum::Overwrite);
    let trial = device
        .tune_linear(&x.as_view(), &weights, to, (k, 16))
        .unwrap();
    assert!(trial.taken < 16 && 0.0 < trial.taken_s && trial.taken_s <= trial.first_s);
    let to = (&mut y.as_view_mut(), Sum::Overwrite);
    device.linear(&x.as_view(), &weights[1], to, k).unwrap();
    let expected = twin((t, o, k), |i, l| fx[i * k + l], |l, j| fw[j * k + l]);
    assert_close(&device.download(&y).unwrap(), &expected, 1e-5);
}
