//! Packing and tiles in plain loops.
#![expect(unsafe_code, reason = "the tiles write through pointers")]

use pulp::{Simd, WithSimd};

use super::pack::{LANES, Pack, bits, pairs_across, pairs_along, transpose};
use super::tiles::tiles;
use super::{Product, Task};
use crate::matrix::Compute;
use crate::step::Line;
use crate::step::portable::{Bf16, F32, MAX_ROWS};

/// # Safety
/// As [`Product::run`], for the task's part of the output.
pub(super) unsafe fn compute(product: &Product<'_>, task: &Task) {
    pulp::Arch::new().dispatch(Tiles { product, task });
}

/// A task. Whoever makes one promises what [`compute`] asks for.
struct Tiles<'a> {
    product: &'a Product<'a>,
    task: &'a Task,
}

impl WithSimd for Tiles<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { product, task } = self;
        // SAFETY: the promise of our maker; these steps ask for no instructions.
        unsafe {
            match product.compute {
                Compute::F32 => tiles::<F32<S>, MAX_ROWS>(F32(simd), product, task),
                Compute::Bf16 => tiles::<Bf16<S>, MAX_ROWS>(Bf16(simd), product, task),
            }
        }
    }
}

impl<S: Simd> Pack for F32<S> {
    const PER_WORD: usize = 1;

    #[inline(always)]
    unsafe fn along(self, values: &[f32; 2 * LANES]) -> Line {
        bits(values)
    }

    #[inline(always)]
    unsafe fn across(self, upper: &[f32; LANES], _: &[f32; LANES]) -> Line {
        bits(upper)
    }

    #[inline(always)]
    unsafe fn transpose(self, lines: &mut [Line; LANES]) {
        transpose(lines);
    }
}

impl<S: Simd> Pack for Bf16<S> {
    const PER_WORD: usize = 2;

    #[inline(always)]
    unsafe fn along(self, values: &[f32; 2 * LANES]) -> Line {
        pairs_along(values)
    }

    #[inline(always)]
    unsafe fn across(self, upper: &[f32; LANES], lower: &[f32; LANES]) -> Line {
        pairs_across(upper, lower)
    }

    #[inline(always)]
    unsafe fn transpose(self, lines: &mut [Line; LANES]) {
        transpose(lines);
    }
}
