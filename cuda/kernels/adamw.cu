// AdamW in one pass over a parameter, its gradient and both moments (Loshchilov, Hutter, arXiv 1711.05101),
// with the arithmetic of `kernels::adamw_step`: the same operations in the same order, none of them
// fused, so that both have the same bits. A block of 256 threads works on 256 values, which is also how
// many 8-bit moments share a scale.
//
// A 3B model with f32 weights and moments and a bf16 copy moves 30 bytes a weight: 97 GB, 22 ms at 4.3 TB/s.
#include "common.cuh"

struct Factors {
    float keep, beta1, beta2, one_minus_beta1, one_minus_beta2, rate, inverse_root_correction2, eps;
    float grad_scale;
};

// SplitMix64 of (key, index) (Steele, Lea, Flood, OOPSLA 2014).
__device__ __forceinline__ uint64_t random_bits(uint64_t key, size_t index) {
    uint64_t z = key + (index + 1) * 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

// The bf16 below or above in magnitude, with the odds that make the expected value right.
__device__ __forceinline__ uint16_t stochastic(float value, uint16_t bits) {
    return (__float_as_uint(value) + bits) >> 16;
}
__device__ __forceinline__ float widen(uint16_t bits) { return __uint_as_float(uint32_t(bits) << 16); }

__device__ __forceinline__ float updated(float p, float g, float &m, float &v, const Factors &f) {
    g = __fmul_rn(g, f.grad_scale);
    m = __fadd_rn(__fmul_rn(f.beta1, m), __fmul_rn(f.one_minus_beta1, g));
    v = __fadd_rn(__fmul_rn(f.beta2, v), __fmul_rn(__fmul_rn(f.one_minus_beta2, g), g));
    float denominator = __fadd_rn(__fmul_rn(__fsqrt_rn(v), f.inverse_root_correction2), f.eps);
    return __fadd_rn(__fmul_rn(p, f.keep), -__fdiv_rn(__fmul_rn(f.rate, m), denominator));
}

__device__ __forceinline__ float block_max_256(float value, float *scratch) {
    value = warp_max(value);
    if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = value;
    __syncthreads();
    float largest = scratch[0];
    for (int warp = 1; warp < 8; warp++) largest = fmaxf(largest, scratch[warp]);
    __syncthreads();
    return largest;
}

// The code whose value is nearest, by halving the borders between them.
__device__ __forceinline__ uint8_t nearest(const float *borders, float value) {
    int code = 0;
    for (int half = 128; half > 0; half /= 2)
        if (value > borders[code + half - 1]) code += half;
    return code;
}

// Moments as they are stored; `Int8` has scales, and a table of 256 values and their 256 borders each.
struct Moments {
    void *first, *second;
    float *first_scales, *second_scales;
    const float *tables;
};

enum Format { F32, BF16, INT8 };

template <Format format>
__device__ __forceinline__ void load(const Moments &moments, size_t index, float &m, float &v) {
    if (format == F32) {
        m = static_cast<const float *>(moments.first)[index];
        v = static_cast<const float *>(moments.second)[index];
    } else if (format == BF16) {
        m = widen(static_cast<const uint16_t *>(moments.first)[index]);
        v = widen(static_cast<const uint16_t *>(moments.second)[index]);
    } else {
        int code = static_cast<const uint8_t *>(moments.first)[index];
        m = __fmul_rn(moments.first_scales[blockIdx.x], moments.tables[code]);
        code = static_cast<const uint8_t *>(moments.second)[index];
        v = __fmul_rn(moments.second_scales[blockIdx.x], moments.tables[512 + code]);
    }
}

// One of the two in 8 bits. All threads of the block come here; those beyond the end bring 0.
__device__ void store_int8(uint8_t *codes, float *scale, const float *borders, float value, bool is_in) {
    __shared__ float scratch[8];
    float largest = block_max_256(fabsf(value), scratch);
    if (threadIdx.x == 0) *scale = largest;
    float inverse = __fdiv_rn(1.0f, largest);
    if (!isfinite(inverse)) inverse = 0.0f;
    if (is_in) *codes = nearest(borders, __fmul_rn(value, inverse));
}

template <Format format>
__device__ __forceinline__ void store(const Moments &moments, size_t index, float m, float v,
                                      uint64_t bits, bool is_in) {
    if (format == INT8) {
        store_int8(static_cast<uint8_t *>(moments.first) + index, moments.first_scales + blockIdx.x,
                   moments.tables + 256, m, is_in);
        store_int8(static_cast<uint8_t *>(moments.second) + index, moments.second_scales + blockIdx.x,
                   moments.tables + 768, v, is_in);
    } else if (is_in && format == F32) {
        static_cast<float *>(moments.first)[index] = m;
        static_cast<float *>(moments.second)[index] = v;
    } else if (is_in) {
        static_cast<uint16_t *>(moments.first)[index] = stochastic(m, bits >> 16);
        static_cast<uint16_t *>(moments.second)[index] = stochastic(v, bits >> 32);
    }
}

// `wide`: f32 values, or null where the bf16 `narrow` ones are trained; else those are a copy, or null.
template <Format format>
__device__ void step(float *wide, uint16_t *narrow, const float *gradient, const Moments &moments,
                     size_t len, const Factors &factors, uint64_t key) {
    size_t index = size_t(blockIdx.x) * 256 + threadIdx.x;
    bool is_in = index < len;
    float m = 0.0f, v = 0.0f;
    uint64_t bits = 0;
    if (is_in) {
        bits = random_bits(key, index);
        load<format>(moments, index, m, v);
        float p = wide ? wide[index] : widen(narrow[index]);
        p = updated(p, gradient[index], m, v, factors);
        if (wide) wide[index] = p;
        if (!wide) {
            narrow[index] = stochastic(p, bits);
        } else if (narrow) {
            narrow[index] = bf16_pair(p, 0.0f) & 0xffff;
        }
    }
    store<format>(moments, index, m, v, bits, is_in);
}

#define ADAMW(name, format)                                                                        \
    extern "C" __global__ void __launch_bounds__(256)                                              \
        name(float *wide, uint16_t *narrow, const float *gradient, Moments moments, size_t len,    \
             Factors factors, uint64_t key) {                                                      \
        step<format>(wide, narrow, gradient, moments, len, factors, key);                          \
    }                                                                                              \
    EXPORT(name)
ADAMW(adamw_f32, F32)
ADAMW(adamw_bf16, BF16)
ADAMW(adamw_int8, INT8)
