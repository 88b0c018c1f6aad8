//! Lane-wise building blocks over crate `pulp`, which picks AVX-512, AVX2 or plain code when the
//! program runs. Each function has one body for all of them, so the plain path is its own twin.
//!
//! Everything here is `inline(always)`: it has to end up inside a function that was compiled for
//! the instruction set (`pulp::Arch::dispatch`).

use pulp::Simd;

/// e^x in every lane.
///
/// Method: x = n·ln 2 + r with |r| ≤ ln 2 / 2, e^x = 2^n·p(r), p of degree 7 (the coefficients of
/// Cephes' `expf`). Within 2 ulp of the true value on [-86.6, 88.3] (tested on a dense grid);
/// 0 below, infinity above (`f32::exp` goes on to 88.7), NaN stays NaN.
#[inline(always)]
pub(crate) fn exp<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    /// 1.5·2^23: adding it leaves round(x) in the low bits of the sum.
    const ROUND: f32 = 12_582_912.0;
    /// Below this, 2^n would need a subnormal.
    const LOWEST: f32 = -86.6;
    /// Above this, 2^n would need exponent 128.
    const HIGHEST: f32 = 88.37;
    const LN_2_HIGH: f32 = 0.693_359_4; // exact in 10 bits, so n·LN_2_HIGH is exact
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    const COEFFICIENTS: [f32; 6] = [
        1.987_569_1e-4,
        1.398_199_9e-3,
        8.333_452e-3,
        4.166_579_6e-2,
        1.666_666_5e-1,
        0.5,
    ];
    let rounded = simd.mul_add_e_f32s(
        x,
        simd.splat_f32s(std::f32::consts::LOG2_E),
        simd.splat_f32s(ROUND),
    );
    let n = simd.sub_f32s(rounded, simd.splat_f32s(ROUND));
    let r = simd.mul_add_e_f32s(n, simd.splat_f32s(-LN_2_HIGH), x);
    let r = simd.mul_add_e_f32s(n, simd.splat_f32s(-LN_2_LOW), r);
    let mut p = simd.splat_f32s(COEFFICIENTS[0]);
    for coefficient in &COEFFICIENTS[1..] {
        p = simd.mul_add_e_f32s(p, r, simd.splat_f32s(*coefficient));
    }
    let p = simd.mul_add_e_f32s(p, simd.mul_f32s(r, r), r);
    let p = simd.add_f32s(p, simd.splat_f32s(1.0));
    let exponent =
        simd.wrapping_dyn_shl_u32s(simd.transmute_u32s_f32s(rounded), simd.splat_u32s(23));
    let power = simd.add_u32s(exponent, simd.splat_u32s(127 << 23));
    let y = simd.mul_f32s(p, simd.transmute_f32s_u32s(power));
    let zero = simd.splat_f32s(0.0);
    let y = simd.select_f32s(simd.less_than_f32s(x, simd.splat_f32s(LOWEST)), zero, y);
    let above = simd.greater_than_f32s(x, simd.splat_f32s(HIGHEST));
    simd.select_f32s(above, simd.splat_f32s(f32::INFINITY), y)
}

/// 1 / (1 + e^-x) in every lane; 0 for large negative x, by way of e^-x = infinity.
#[inline(always)]
pub(crate) fn sigmoid<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let one = simd.splat_f32s(1.0);
    let e = exp(simd, simd.mul_f32s(x, simd.splat_f32s(-1.0)));
    simd.div_f32s(one, simd.add_f32s(one, e))
}

/// out[i] = f(a[i], b[i]). The slices have one length.
#[inline(always)]
pub(crate) fn map2<S: Simd>(
    simd: S,
    out: &mut [f32],
    (a, b): (&[f32], &[f32]),
    f: impl Fn(S::f32s, S::f32s) -> S::f32s,
) {
    let (out_lanes, out_tail) = S::as_mut_simd_f32s(out);
    let (a_lanes, a_tail) = S::as_simd_f32s(a);
    let (b_lanes, b_tail) = S::as_simd_f32s(b);
    for ((out, a), b) in out_lanes.iter_mut().zip(a_lanes).zip(b_lanes) {
        *out = f(*a, *b);
    }
    if !out_tail.is_empty() {
        let a = simd.partial_load_f32s(a_tail);
        let b = simd.partial_load_f32s(b_tail);
        simd.partial_store_f32s(out_tail, f(a, b));
    }
}

/// a[i] = f(a[i], b[i]). The slices have one length.
#[inline(always)]
pub(crate) fn update2<S: Simd>(
    simd: S,
    a: &mut [f32],
    b: &[f32],
    f: impl Fn(S::f32s, S::f32s) -> S::f32s,
) {
    let (a_lanes, a_tail) = S::as_mut_simd_f32s(a);
    let (b_lanes, b_tail) = S::as_simd_f32s(b);
    for (a, b) in a_lanes.iter_mut().zip(b_lanes) {
        *a = f(*a, *b);
    }
    if !a_tail.is_empty() {
        let value = f(
            simd.partial_load_f32s(a_tail),
            simd.partial_load_f32s(b_tail),
        );
        simd.partial_store_f32s(a_tail, value);
    }
}

/// (out1[i], out2[i]) = f(a[i], b[i], c[i]). The slices have one length.
#[inline(always)]
pub(crate) fn map3_pair<S: Simd>(
    simd: S,
    (out1, out2): (&mut [f32], &mut [f32]),
    (a, b, c): (&[f32], &[f32], &[f32]),
    f: impl Fn(S::f32s, S::f32s, S::f32s) -> (S::f32s, S::f32s),
) {
    let (out1_lanes, out1_tail) = S::as_mut_simd_f32s(out1);
    let (out2_lanes, out2_tail) = S::as_mut_simd_f32s(out2);
    let (a_lanes, a_tail) = S::as_simd_f32s(a);
    let (b_lanes, b_tail) = S::as_simd_f32s(b);
    let (c_lanes, c_tail) = S::as_simd_f32s(c);
    let outs = out1_lanes.iter_mut().zip(out2_lanes);
    for (((out, a), b), c) in outs.zip(a_lanes).zip(b_lanes).zip(c_lanes) {
        (*out.0, *out.1) = f(*a, *b, *c);
    }
    if !out1_tail.is_empty() {
        let a = simd.partial_load_f32s(a_tail);
        let b = simd.partial_load_f32s(b_tail);
        let c = simd.partial_load_f32s(c_tail);
        let (value1, value2) = f(a, b, c);
        simd.partial_store_f32s(out1_tail, value1);
        simd.partial_store_f32s(out2_tail, value2);
    }
}

/// Σ a[i]·b[i]: four lane-wise sums, so the order of the additions is fixed by the length alone.
#[inline(always)]
pub(crate) fn dot<S: Simd>(simd: S, a: &[f32], b: &[f32]) -> f32 {
    fold2(
        simd,
        (a, b),
        #[inline(always)]
        |sum, a, b| simd.mul_add_e_f32s(a, b, sum),
    )
}

/// Σ step(·, a[i], b[i]) over lanes, from zero. `step` of two zeros must add nothing.
#[inline(always)]
pub(crate) fn fold2<S: Simd>(
    simd: S,
    (a, b): (&[f32], &[f32]),
    step: impl Fn(S::f32s, S::f32s, S::f32s) -> S::f32s,
) -> f32 {
    let (a_lanes, a_tail) = S::as_simd_f32s(a);
    let (b_lanes, b_tail) = S::as_simd_f32s(b);
    let mut sums = [simd.splat_f32s(0.0); 4];
    let (a_quads, a_rest) = a_lanes.as_chunks::<4>();
    let (b_quads, b_rest) = b_lanes.as_chunks::<4>();
    for (a, b) in a_quads.iter().zip(b_quads) {
        for lane in 0..4 {
            sums[lane] = step(sums[lane], a[lane], b[lane]);
        }
    }
    for (a, b) in a_rest.iter().zip(b_rest) {
        sums[0] = step(sums[0], *a, *b);
    }
    if !a_tail.is_empty() {
        let a = simd.partial_load_f32s(a_tail);
        let b = simd.partial_load_f32s(b_tail);
        sums[1] = step(sums[1], a, b);
    }
    let low = simd.add_f32s(sums[0], sums[1]);
    let high = simd.add_f32s(sums[2], sums[3]);
    simd.reduce_sum_f32s(simd.add_f32s(low, high))
}

/// The largest value; -infinity for none. NaN may be lost: what follows must meet it again.
#[inline(always)]
pub(crate) fn max<S: Simd>(simd: S, a: &[f32]) -> f32 {
    let (lanes, tail) = S::as_simd_f32s(a);
    if lanes.is_empty() {
        return tail.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    }
    let mut largest = [lanes[0]; 4];
    let (quads, rest) = lanes.as_chunks::<4>();
    for quad in quads {
        for lane in 0..4 {
            largest[lane] = simd.max_f32s(largest[lane], quad[lane]);
        }
    }
    for value in rest {
        largest[0] = simd.max_f32s(largest[0], *value);
    }
    if !tail.is_empty() {
        // The last whole vector again, ending at the end: a maximum may count values twice.
        let end = S::as_rsimd_f32s(a).1;
        largest[1] = simd.max_f32s(largest[1], end[end.len() - 1]);
    }
    let low = simd.max_f32s(largest[0], largest[1]);
    let high = simd.max_f32s(largest[2], largest[3]);
    simd.reduce_max_f32s(simd.max_f32s(low, high))
}

/// a[i] = e^(scale·a[i] - shift); returns their sum.
#[inline(always)]
pub(crate) fn exp_shifted<S: Simd>(simd: S, a: &mut [f32], (scale, shift): (f32, f32)) -> f32 {
    let (scale, minus_shift) = (simd.splat_f32s(scale), simd.splat_f32s(-shift));
    let (lanes, tail) = S::as_mut_simd_f32s(a);
    let mut sums = [simd.splat_f32s(0.0); 2];
    let (pairs, rest) = lanes.as_chunks_mut::<2>();
    for pair in pairs {
        for lane in 0..2 {
            pair[lane] = exp(simd, simd.mul_add_e_f32s(pair[lane], scale, minus_shift));
            sums[lane] = simd.add_f32s(sums[lane], pair[lane]);
        }
    }
    for value in rest {
        *value = exp(simd, simd.mul_add_e_f32s(*value, scale, minus_shift));
        sums[0] = simd.add_f32s(sums[0], *value);
    }
    if !tail.is_empty() {
        let value = simd.mul_add_e_f32s(simd.partial_load_f32s(tail), scale, minus_shift);
        simd.partial_store_f32s(tail, exp(simd, value));
        // Loaded again, so that the lanes beyond the tail count as zero.
        sums[1] = simd.add_f32s(sums[1], simd.partial_load_f32s(tail));
    }
    simd.reduce_sum_f32s(simd.add_f32s(sums[0], sums[1]))
}

#[cfg(test)]
mod tests;
