//! Both running means of AdamW for one parameter, in the storage asked for.

use half::bf16;

use super::BLOCK;
use super::quantized::{Code, Quantized, QuantizedMut};
use super::rounding::stochastic;

/// What moments are stored in. Bytes a value: 4, 2, about 1.02.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MomentsFormat {
    F32,
    /// Rounded stochastically: to nearest, the second moment would never decay (0.999 of a bf16
    /// rounds to itself).
    Bf16,
    /// Block-wise 8 bits ([`Quantized`]).
    Int8,
}

/// Running means of a parameter's gradient (`first`) and of its square (`second`), flat.
#[derive(Debug, Clone, PartialEq)]
pub enum Moments {
    F32 { first: Vec<f32>, second: Vec<f32> },
    Bf16 { first: Vec<bf16>, second: Vec<bf16> },
    Int8 { first: Quantized, second: Quantized },
}

impl Moments {
    /// Zeros, as before the first step.
    pub fn zeros(format: MomentsFormat, len: usize) -> Self {
        match format {
            MomentsFormat::F32 => Self::F32 {
                first: vec![0.0; len],
                second: vec![0.0; len],
            },
            MomentsFormat::Bf16 => Self::Bf16 {
                first: vec![bf16::ZERO; len],
                second: vec![bf16::ZERO; len],
            },
            MomentsFormat::Int8 => Self::Int8 {
                first: Quantized::zeros(len),
                second: Quantized::zeros(len),
            },
        }
    }

    /// Values of each of the two.
    pub fn len(&self) -> usize {
        match self {
            Self::F32 { first, .. } => first.len(),
            Self::Bf16 { first, .. } => first.len(),
            Self::Int8 { first, .. } => first.codes.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of both for a parameter of `len` values.
    pub fn num_bytes(format: MomentsFormat, len: usize) -> usize {
        match format {
            MomentsFormat::F32 => 8 * len,
            MomentsFormat::Bf16 => 4 * len,
            MomentsFormat::Int8 => 2 * (len + 4 * len.div_ceil(BLOCK)),
        }
    }

    pub(super) fn as_mut(&mut self) -> MomentsMut<'_> {
        match self {
            Self::F32 { first, second } => MomentsMut::F32 { first, second },
            Self::Bf16 { first, second } => MomentsMut::Bf16 { first, second },
            Self::Int8 { first, second } => MomentsMut::Int8 {
                first: first.as_mut(),
                second: second.as_mut(),
            },
        }
    }
}

/// A part of [`Moments`], to be stepped.
pub(super) enum MomentsMut<'a> {
    F32 {
        first: &'a mut [f32],
        second: &'a mut [f32],
    },
    Bf16 {
        first: &'a mut [bf16],
        second: &'a mut [bf16],
    },
    Int8 {
        first: QuantizedMut<'a>,
        second: QuantizedMut<'a>,
    },
}

impl MomentsMut<'_> {
    /// At a multiple of [`BLOCK`], or at the end.
    pub(super) fn split_at(self, at: usize) -> (Self, Self) {
        match self {
            Self::F32 { first, second } => {
                let ((a, b), (c, d)) = (first.split_at_mut(at), second.split_at_mut(at));
                (
                    Self::F32 {
                        first: a,
                        second: c,
                    },
                    Self::F32 {
                        first: b,
                        second: d,
                    },
                )
            }
            Self::Bf16 { first, second } => {
                let ((a, b), (c, d)) = (first.split_at_mut(at), second.split_at_mut(at));
                (
                    Self::Bf16 {
                        first: a,
                        second: c,
                    },
                    Self::Bf16 {
                        first: b,
                        second: d,
                    },
                )
            }
            Self::Int8 { first, second } => {
                let ((a, b), (c, d)) = (first.split_at(at), second.split_at(at));
                (
                    Self::Int8 {
                        first: a,
                        second: c,
                    },
                    Self::Int8 {
                        first: b,
                        second: d,
                    },
                )
            }
        }
    }

    /// The values of one block.
    #[inline(always)]
    pub(super) fn widen(&self, first: &mut [f32; BLOCK], second: &mut [f32; BLOCK]) {
        match self {
            Self::F32 {
                first: stored,
                second: stored2,
            } => {
                first[..stored.len()].copy_from_slice(stored);
                second[..stored2.len()].copy_from_slice(stored2);
            }
            Self::Bf16 {
                first: stored,
                second: stored2,
            } => {
                for (wide, stored) in first.iter_mut().zip(stored.iter()) {
                    *wide = stored.to_f32();
                }
                for (wide, stored) in second.iter_mut().zip(stored2.iter()) {
                    *wide = stored.to_f32();
                }
            }
            Self::Int8 {
                first: stored,
                second: stored2,
            } => {
                stored.widen(Code::Signed, first);
                stored2.widen(Code::Unsigned, second);
            }
        }
    }

    /// Replaces one block. `bits`: 64 random ones a value, of which the low 16 are the parameter's.
    #[inline(always)]
    pub(super) fn store(&mut self, first: &[f32], second: &[f32], bits: &[u64; BLOCK]) {
        match self {
            Self::F32 {
                first: stored,
                second: stored2,
            } => {
                stored.copy_from_slice(first);
                stored2.copy_from_slice(second);
            }
            Self::Bf16 {
                first: stored,
                second: stored2,
            } => {
                for ((stored, wide), bits) in stored.iter_mut().zip(first).zip(bits) {
                    *stored = stochastic(*wide, (bits >> 16) as u16);
                }
                for ((stored, wide), bits) in stored2.iter_mut().zip(second).zip(bits) {
                    *stored = stochastic(*wide, (bits >> 32) as u16);
                }
            }
            Self::Int8 {
                first: stored,
                second: stored2,
            } => {
                stored.store(Code::Signed, first);
                stored2.store(Code::Unsigned, second);
            }
        }
    }
}
