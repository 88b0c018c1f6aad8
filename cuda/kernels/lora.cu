// What adapters beside a weight matrix need around their products: the scale between the two thin matrices,
// columns of a product that several projections share, and dropout. A thread works on two values.
//
// Llama-3.2-3B, 2048 tokens: `add_columns` beside the query projection reads 25 MB of sums, reads and
// writes 12.6 MB of bf16 each: 12 us at 4.3 TB/s.
#include "common.cuh"

__device__ __forceinline__ size_t first_value() {
    return 2 * (size_t(blockIdx.x) * blockDim.x + threadIdx.x);
}

// y [n] bf16 = factor * x [n] f32; n is even.
extern "C" __global__ void scale_round(const float *x, bf16 *y, size_t len, float factor) {
    size_t index = first_value();
    if (index >= len) return;
    float2 values = *reinterpret_cast<const float2 *>(x + index);
    *reinterpret_cast<uint32_t *>(y + index) = bf16_pair(factor * values.x, factor * values.y);
}
EXPORT(scale_round)

// y [T, stride], of which the columns from `first` on += delta [T, width]; len = T * width, all even.
extern "C" __global__ void add_columns(const float *delta, bf16 *y, size_t len, int width,
                                       int stride, int first) {
    size_t index = first_value();
    if (index >= len) return;
    float2 values = *reinterpret_cast<const float2 *>(delta + index);
    size_t at = index / width * stride + first + index % width;
    uint32_t *pair = reinterpret_cast<uint32_t *>(y + at);
    float2 sums = floats_from_pair(*pair);
    *pair = bf16_pair(sums.x + values.x, sums.y + values.y);
}
EXPORT(add_columns)

// y [T, width] = the columns of x [T, stride] from `first` on.
extern "C" __global__ void take_columns(const bf16 *x, bf16 *y, size_t len, int width, int stride,
                                        int first) {
    size_t index = first_value();
    if (index >= len) return;
    size_t at = index / width * stride + first + index % width;
    *reinterpret_cast<uint32_t *>(y + index) = *reinterpret_cast<const uint32_t *>(x + at);
}
EXPORT(take_columns)

// What value number `index` is multiplied by: 0, or 1 / (1 - odds). SplitMix64 (Steele, Lea, Flood,
// OOPSLA 2014) of a key, as the trainer's `CounterRng`; `limit`: the odds in 2^-53.
__device__ __forceinline__ float kept(size_t index, uint64_t key, uint64_t limit, float raised) {
    uint64_t z = key + (index + 1) * 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    z ^= z >> 31;
    return (z >> 11) + 1 > limit ? raised : 0.0f;
}

// y [n] bf16: some values of x [n] left out, the others raised to make up for it.
extern "C" __global__ void dropout(const bf16 *x, bf16 *y, size_t len, uint64_t key, uint64_t limit,
                                   float raised) {
    size_t index = first_value();
    if (index >= len) return;
    float2 values = floats_from_pair(*reinterpret_cast<const uint32_t *>(x + index));
    *reinterpret_cast<uint32_t *>(y + index) =
        bf16_pair(values.x * kept(index, key, limit, raised),
                  values.y * kept(index + 1, key, limit, raised));
}
EXPORT(dropout)

// The same of f32 values, in place: the gradient of dropout.
extern "C" __global__ void dropout_f32(float *x, size_t len, uint64_t key, uint64_t limit,
                                       float raised) {
    size_t index = first_value();
    if (index >= len) return;
    float2 values = *reinterpret_cast<float2 *>(x + index);
    values.x *= kept(index, key, limit, raised);
    values.y *= kept(index + 1, key, limit, raised);
    *reinterpret_cast<float2 *>(x + index) = values;
}
EXPORT(dropout_f32)
