#![expect(clippy::float_cmp, reason = "these results are exact")]

use pulp::{Arch, Simd, WithSimd};

use super::{dot, exp, exp_shifted, max};

/// `exp` of every value of a slice.
struct Exp<'a>(&'a mut [f32]);

impl WithSimd for Exp<'_> {
    type Output = ();

    fn with_simd<S: Simd>(self, simd: S) {
        let (lanes, tail) = S::as_mut_simd_f32s(self.0);
        for x in lanes {
            *x = exp(simd, *x);
        }
        let x = simd.partial_load_f32s(tail);
        simd.partial_store_f32s(tail, exp(simd, x));
    }
}

struct Dot<'a>(&'a [f32], &'a [f32]);

impl WithSimd for Dot<'_> {
    type Output = f32;

    fn with_simd<S: Simd>(self, simd: S) -> f32 {
        dot(simd, self.0, self.1)
    }
}

/// Distance in units of the last place of the f32 nearest to `expected`.
fn ulps(found: f32, expected: f64) -> f64 {
    let nearest = expected as f32;
    let ulp = f64::from(f32::from_bits(nearest.to_bits() + 1)) - f64::from(nearest);
    (f64::from(found) - expected).abs() / ulp
}

fn exp_error_in_ulps(run: impl Fn(&mut [f32])) -> f64 {
    let xs: Vec<f32> = (0..1_749_000_u32)
        .map(|i| -86.6 + i as f32 * 1e-4)
        .collect();
    let mut ys = xs.clone();
    run(&mut ys);
    xs.iter()
        .zip(&ys)
        .map(|(x, y)| ulps(*y, f64::from(*x).exp()))
        .fold(0.0, f64::max)
}

/// The vector exponential is within 2 ulp of the true one, in the plain and the fast form.
#[test]
fn exp_is_within_two_ulps() {
    let plain = exp_error_in_ulps(|ys| Exp(ys).with_simd(pulp::Scalar));
    let fast = exp_error_in_ulps(|ys| Arch::new().dispatch(Exp(ys)));
    assert!(plain < 2.0, "plain: {plain} ulp");
    assert!(fast < 2.0, "fast: {fast} ulp");
}

/// What softmax and the guards rely on: e^-inf is 0, far above is infinity, NaN stays NaN.
#[test]
fn exp_at_the_edges() {
    let mut ys = [
        f32::NEG_INFINITY,
        -1e30,
        -87.0,
        0.0,
        88.5,
        1e30,
        f32::INFINITY,
        f32::NAN,
    ];
    Arch::new().dispatch(Exp(&mut ys));
    assert_eq!(ys[..4], [0.0, 0.0, 0.0, 1.0]);
    assert_eq!(ys[4..7], [f32::INFINITY; 3]);
    assert!(ys[7].is_nan());
}

/// Every length works, whole lanes or not.
#[test]
fn dot_of_every_length() {
    let a: Vec<f32> = (0..100_u8).map(f32::from).collect();
    let b: Vec<f32> = (0..100_u8).map(|i| f32::from(i % 7) - 3.0).collect();
    for len in 0..a.len() {
        let expected: f32 = a[..len].iter().zip(&b).map(|(a, b)| a * b).sum();
        assert_eq!(
            Arch::new().dispatch(Dot(&a[..len], &b[..len])),
            expected,
            "length {len}"
        );
    }
}

struct Softmax<'a>(&'a mut [f32]);

impl WithSimd for Softmax<'_> {
    type Output = (f32, f32);

    fn with_simd<S: Simd>(self, simd: S) -> (f32, f32) {
        let largest = max(simd, self.0);
        (largest, exp_shifted(simd, self.0, (1.0, largest)))
    }
}

/// Maximum, exponentials and their sum are right at every length, whole lanes or not, also where
/// all values are negative (nothing may come from beyond the tail).
#[test]
fn softmax_pieces_of_every_length() {
    for len in 1..100_usize {
        let mut a: Vec<f32> = (0..len)
            .map(|i| -5.0 - (i * 37 % 101) as f32 * 0.1)
            .collect();
        let expected_max = a.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let expected: Vec<f32> = a.iter().map(|x| (x - expected_max).exp()).collect();
        let (largest, sum) = Arch::new().dispatch(Softmax(&mut a));
        assert_eq!(largest, expected_max, "length {len}");
        let expected_sum: f32 = expected.iter().sum();
        assert!(
            (sum - expected_sum).abs() < 1e-5 * expected_sum,
            "length {len}"
        );
        for (found, expected) in a.iter().zip(&expected) {
            assert!((found - expected).abs() < 1e-6, "length {len}");
        }
    }
}
