#![expect(
    unsafe_code,
    reason = "the instruction set is chosen below the safe functions"
)]

use pulp::Arch;

use super::{RUN, Sizes, fill, matmul_nt, rectangles};
use crate::testing::{Rng, assert_values_close};

/// Every instruction set that this machine can run, and plain code.
fn archs() -> Vec<Arch> {
    let mut archs = vec![Arch::Scalar, Arch::new()];
    #[cfg(target_arch = "x86_64")]
    archs.extend(pulp::x86::V3::try_new().map(Arch::V3));
    archs
}

/// [`matmul_nt`] on a chosen instruction set.
fn matmul_nt_with(x: &[f32], w: &[f32], sizes: Sizes, arch: Arch) -> Vec<f32> {
    let mut y = vec![f32::NAN; sizes.T * sizes.O];
    // SAFETY: y has the size and is ours.
    unsafe { fill(y.as_mut_ptr(), (x, w), sizes, arch) };
    y
}

/// Around the edges of lanes, tiles, runs and tasks.
const SIZES: [Sizes; 9] = [
    Sizes { T: 1, O: 1, C: 1 },
    Sizes { T: 1, O: 5, C: 17 },
    Sizes { T: 7, O: 3, C: 15 },
    Sizes { T: 6, O: 4, C: 16 },
    Sizes { T: 13, O: 9, C: 64 },
    Sizes {
        T: 2,
        O: 70,
        C: RUN,
    },
    Sizes {
        T: 5,
        O: 6,
        C: RUN + 1,
    },
    Sizes {
        T: 3,
        O: 4,
        C: 2 * RUN + 30,
    },
    Sizes {
        T: 150,
        O: 130,
        C: 96,
    },
];

/// Each instruction set gives the formula, summed in f64.
#[test]
fn product_matches_its_formula() {
    let mut rng = Rng::new(1);
    for sizes in SIZES {
        let Sizes { T: t, O: o, C: c } = sizes;
        let (x, w) = (rng.values(t * c), rng.values(o * c));
        let mut expected = Vec::new();
        for x in x.chunks(c) {
            for w in w.chunks(c) {
                let products = x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w));
                expected.push(products.sum::<f64>() as f32);
            }
        }
        for arch in archs() {
            assert_values_close(&matmul_nt_with(&x, &w, sizes, arch), &expected, 5e-5);
        }
    }
}

/// A row's result is the same bits alone and in any company, on every instruction set.
#[test]
fn rows_do_not_depend_on_the_batch() {
    let mut rng = Rng::new(2);
    for (o, c) in [(5, 17), (64, 100), (130, 1500), (1030, 600)] {
        let (x, w) = (rng.values(61 * c), rng.values(o * c));
        for arch in archs() {
            let all = matmul_nt_with(&x, &w, Sizes { T: 61, O: o, C: c }, arch);
            for (first, t) in [(0, 1), (60, 1), (7, 2), (13, 5), (1, 33)] {
                let sizes = Sizes { T: t, O: o, C: c };
                let some = matmul_nt_with(&x[first * c..(first + t) * c], &w, sizes, arch);
                let expected = &all[first * o..(first + t) * o];
                assert!(some == expected, "rows {first}..{} of {o}x{c}", first + t);
            }
        }
    }
}

/// The rectangles of any number of threads cover the output once.
#[test]
fn rectangles_tile_the_output() {
    let mut rng = Rng::new(3);
    for _ in 0..200 {
        let sizes = Sizes {
            T: rng.below(300),
            O: 1 + rng.below(300),
            C: 1 + rng.below(3000),
        };
        let mut covered = vec![0; sizes.T * sizes.O];
        for rectangle in rectangles(sizes, 1 + rng.below(64)) {
            for x_row in rectangle.x_rows {
                for w_row in rectangle.w_rows.clone() {
                    covered[x_row * sizes.O + w_row] += 1;
                }
            }
        }
        assert!(covered.iter().all(|times| *times == 1), "{sizes:?}");
    }
}

/// Empty dimensions are fine: nothing, or sums of nothing.
#[test]
fn empty_dimensions() {
    assert!(matmul_nt(&[], &[1.0; 6], Sizes { T: 0, O: 2, C: 3 }).is_empty());
    assert_eq!(matmul_nt(&[], &[], Sizes { T: 2, O: 2, C: 0 }), [0.0; 4]);
}
