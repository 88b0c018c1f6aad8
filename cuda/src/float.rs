//! What is computed in, and what keys and values are kept in.

use half::bf16;

use crate::{device::Element, product::Output};

/// An element type of activations and weights: bf16, or f32 for results that are to be a CPU's.
pub trait Float: Output + CacheElement<Self> + Send + Sync {
    /// Keys and values of one byte each (e4m3, as its bits).
    type Byte: CacheElement<Self>;
    /// Rows for which [`int8_linear`](crate::int8_linear) has a kernel; more are faster through
    /// [`dequantize_rows`](crate::dequantize_rows).
    const MAX_INT8_ROWS: usize;
    /// Rounded to nearest, ties to even.
    fn of(value: f32) -> Self;
    /// Whether [`paged_decode_shared`](crate::paged_decode_shared) has kernels.
    const SHARES_PREFIXES: bool = <Self as CacheElement<Self>>::PAGED_PREFIX.is_some();
    /// Shares that [`paged_decode`](crate::paged_decode) may cut a sequence's keys into.
    #[doc(hidden)]
    const MAX_SPLITS: usize;
    #[doc(hidden)]
    const RMS_NORM: &'static str;
    #[doc(hidden)]
    const SWIGLU: &'static str;
    #[doc(hidden)]
    const EMBEDDING: &'static str;
    #[doc(hidden)]
    const DEQUANTIZE_ROWS: &'static str;
}
impl Float for bf16 {
    type Byte = u8;
    const MAX_INT8_ROWS: usize = 64;
    /// With the 8 of a prefix 32: a lane of `paged_combine` weighs each.
    const MAX_SPLITS: usize = 24;
    const RMS_NORM: &'static str = "rms_norm_bf16";
    const SWIGLU: &'static str = "swiglu_bf16";
    const EMBEDDING: &'static str = "embedding_bf16";
    const DEQUANTIZE_ROWS: &'static str = "dequantize_rows_bf16";
    fn of(value: f32) -> Self {
        Self::from_f32(value)
    }
}
impl Float for f32 {
    type Byte = u8;
    const MAX_INT8_ROWS: usize = 0;
    const MAX_SPLITS: usize = 1;
    const RMS_NORM: &'static str = "rms_norm_f32";
    const SWIGLU: &'static str = "swiglu_f32";
    const EMBEDDING: &'static str = "embedding_f32";
    const DEQUANTIZE_ROWS: &'static str = "dequantize_rows_f32";
    fn of(value: f32) -> Self {
        value
    }
}

/// An element type of the KV cache beside activations in `A`: these, or e4m3 as its bits.
pub trait CacheElement<A>: Element {
    #[doc(hidden)]
    const ROPE_KV: &'static str;
    /// For D = 32, 64 and 128, as all lists of three.
    #[doc(hidden)]
    const PAGED_DECODE: [&'static str; 3];
    #[doc(hidden)]
    const PAGED_PREFILL: [&'static str; 3];
    /// `None`: [`paged_decode_shared`](crate::paged_decode_shared) has no kernels.
    #[doc(hidden)]
    const PAGED_PREFIX: Option<[&'static str; 3]>;
}
impl CacheElement<bf16> for bf16 {
    const ROPE_KV: &'static str = "rope_kv_bf16";
    const PAGED_DECODE: [&'static str; 3] = [
        "paged_decode_32_bf16",
        "paged_decode_64_bf16",
        "paged_decode_128_bf16",
    ];
    const PAGED_PREFILL: [&'static str; 3] = [
        "paged_prefill_32_bf16",
        "paged_prefill_64_bf16",
        "paged_prefill_128_bf16",
    ];
    const PAGED_PREFIX: Option<[&'static str; 3]> = Some([
        "paged_prefix_32_bf16",
        "paged_prefix_64_bf16",
        "paged_prefix_128_bf16",
    ]);
}
impl CacheElement<bf16> for u8 {
    const ROPE_KV: &'static str = "rope_kv_bf16_e4m3";
    const PAGED_DECODE: [&'static str; 3] = [
        "paged_decode_32_bf16_e4m3",
        "paged_decode_64_bf16_e4m3",
        "paged_decode_128_bf16_e4m3",
    ];
    const PAGED_PREFILL: [&'static str; 3] = [
        "paged_prefill_32_bf16_e4m3",
        "paged_prefill_64_bf16_e4m3",
        "paged_prefill_128_bf16_e4m3",
    ];
    const PAGED_PREFIX: Option<[&'static str; 3]> = Some([
        "paged_prefix_32_bf16_e4m3",
        "paged_prefix_64_bf16_e4m3",
        "paged_prefix_128_bf16_e4m3",
    ]);
}
impl CacheElement<f32> for f32 {
    const ROPE_KV: &'static str = "rope_kv_f32";
    const PAGED_DECODE: [&'static str; 3] = [
        "paged_decode_32_f32",
        "paged_decode_64_f32",
        "paged_decode_128_f32",
    ];
    const PAGED_PREFILL: [&'static str; 3] = [
        "paged_prefill_32_f32",
        "paged_prefill_64_f32",
        "paged_prefill_128_f32",
    ];
    const PAGED_PREFIX: Option<[&'static str; 3]> = None;
}
impl CacheElement<f32> for u8 {
    const ROPE_KV: &'static str = "rope_kv_f32_e4m3";
    const PAGED_DECODE: [&'static str; 3] = [
        "paged_decode_32_f32_e4m3",
        "paged_decode_64_f32_e4m3",
        "paged_decode_128_f32_e4m3",
    ];
    const PAGED_PREFILL: [&'static str; 3] = [
        "paged_prefill_32_f32_e4m3",
        "paged_prefill_64_f32_e4m3",
        "paged_prefill_128_f32_e4m3",
    ];
    const PAGED_PREFIX: Option<[&'static str; 3]> = None;
}
