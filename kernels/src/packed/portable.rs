//! The tiles in plain loops.
#![expect(unsafe_code, reason = "the tiles write through pointers")]

use pulp::{Simd, WithSimd};

use super::product::{Product, Task, tiles};
use super::weight::WeightFormat;
use crate::step::portable::{Bf16, F32, Int8, MAX_ROWS};

/// # Safety
/// As [`super::product`]'s `compute`.
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
            match product.w.format() {
                WeightFormat::F32 => tiles(F32(simd), product, task, MAX_ROWS),
                WeightFormat::Bf16 => tiles(Bf16(simd), product, task, MAX_ROWS),
                WeightFormat::Int8 => tiles(Int8(simd), product, task, MAX_ROWS),
            }
        }
    }
}
