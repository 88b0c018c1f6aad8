//! What the tests share: a seeded generator, comparison, finite differences, thread pools.

use candle_core::{Device, Tensor, Var};

/// A small counter-based generator (splitmix64), so that a test is the same on every run.
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Uniform in 0..bound.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// Roughly normal: the sum of four uniforms, variance one.
    pub(crate) fn normal(&mut self) -> f32 {
        let uniforms: f32 = (0..4)
            .map(|_| (self.next() >> 40) as f32 / 16_777_216.0 - 0.5)
            .sum();
        uniforms * 3.0_f32.sqrt()
    }

    pub(crate) fn values(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| self.normal()).collect()
    }

    pub(crate) fn tensor(&mut self, shape: &[usize]) -> Tensor {
        let values = self.values(shape.iter().product());
        Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
    }
}

pub(crate) fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// Every element within `tolerance`·(1 + |expected|).
#[track_caller]
pub(crate) fn assert_close(found: &Tensor, expected: &Tensor, tolerance: f32) {
    assert_eq!(found.dims(), expected.dims());
    assert_values_close(&values(found), &values(expected), tolerance);
}

#[track_caller]
pub(crate) fn assert_values_close(found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len());
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        assert!(
            (f - e).abs() <= tolerance * (1.0 + e.abs()),
            "element {i}: {f}, expected {e}"
        );
    }
}

/// The gradient of Σ f(x)·dy with respect to x by candle's autograd over its stock operations.
pub(crate) fn autograd(
    inputs: &[&Tensor],
    dy: &Tensor,
    f: impl Fn(&[Tensor]) -> candle_core::Result<Tensor>,
) -> Vec<Tensor> {
    let vars: Vec<Var> = inputs
        .iter()
        .map(|x| Var::from_tensor(x).unwrap())
        .collect();
    let tracked: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
    let y = f(&tracked).unwrap();
    let grads = (y * dy).unwrap().sum_all().unwrap().backward().unwrap();
    vars.iter()
        .map(|var| grads.get(var.as_tensor()).unwrap().detach())
        .collect()
}

/// The derivative of Σ f(x)·dy along one element of x, by a central difference of the f32 forward
/// pass summed in f64.
pub(crate) fn finite_difference(
    x: &Tensor,
    element: usize,
    dy: &Tensor,
    f: impl Fn(&Tensor) -> Tensor,
) -> f32 {
    let step = 1e-2_f32;
    let loss = |delta: f32| {
        let mut moved = values(x);
        moved[element] += delta;
        let moved = Tensor::from_vec(moved, x.dims(), &Device::Cpu).unwrap();
        let y = values(&f(&moved));
        y.iter()
            .zip(values(dy))
            .map(|(y, dy)| f64::from(*y) * f64::from(dy))
            .sum::<f64>()
    };
    ((loss(step) - loss(-step)) / (2.0 * f64::from(step))) as f32
}

/// Checks every element of `gradient` (of x) against finite differences.
#[track_caller]
pub(crate) fn assert_finite_differences(
    gradient: &Tensor,
    x: &Tensor,
    dy: &Tensor,
    f: impl Fn(&Tensor) -> Tensor,
) {
    for (element, found) in values(gradient).iter().enumerate() {
        let expected = finite_difference(x, element, dy, &f);
        assert!(
            (found - expected).abs() <= 5e-3 * (1.0 + expected.abs()),
            "element {element}: {found}, by finite differences {expected}"
        );
    }
}

/// What `f` gives on one thread and on two; they must be the same bits.
#[track_caller]
pub(crate) fn assert_same_on_one_and_two_threads(f: impl Fn() -> Vec<Vec<f32>> + Sync) {
    let on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        let outputs = pool.install(&f);
        outputs
            .iter()
            .map(|o| o.iter().map(|x| x.to_bits()).collect())
            .collect::<Vec<Vec<u32>>>()
    };
    assert!(on(1) == on(2), "results differ between one and two threads");
}
