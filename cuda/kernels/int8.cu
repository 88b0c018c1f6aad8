// Rows of weights into 8 bits with a scale each, and back to bf16 for products with many rows,
// which are not bound by the reading of weights. Both are copies: gate_up of Llama-3.2-3B (50
// million weights) is 101 MB of bf16 and 50 MB of int8, 35 us at 4.3 TB/s each way (`quantize_rows`
// reads a row of 6 KB a second time, from L1).
#include "common.cuh"

// w bf16 [O, K] into values [O, K] in -127 .. 127 and scales [O], the largest magnitude over 127.
// What is not finite makes the scale NaN, and with it the whole row. K is a multiple of 8. Grid O.
extern "C" __global__ void quantize_rows(const bf16 *w, int8_t *values, float *scales, int width) {
    __shared__ float scratch[33], maxima[32];
    const bf16 *from = w + size_t(blockIdx.x) * width;
    uint2 *to = reinterpret_cast<uint2 *>(values + size_t(blockIdx.x) * width);
    float x[8], largest = 0.0f, poison = 0.0f;
    for (int i = threadIdx.x; i < width / 8; i += blockDim.x) {
        load8(from + 8 * i, x);
#pragma unroll
        for (int j = 0; j < 8; j++) largest = fmaxf(largest, fabsf(x[j])), poison += x[j] * 0.0f;
    }
    largest = warp_max(largest);
    if (threadIdx.x % 32 == 0) maxima[threadIdx.x / 32] = largest;
    poison = block_sum(poison, scratch); // its barriers are those of the maxima too
    for (int warp = 0; warp < blockDim.x / 32; warp++) largest = fmaxf(largest, maxima[warp]);
    float scale = __fadd_rn(__fdiv_rn(largest, 127.0f), poison);
    float inverse = scale > 0.0f ? __fdiv_rn(1.0f, scale) : 0.0f;
    if (threadIdx.x == 0) scales[blockIdx.x] = scale;
    for (int i = threadIdx.x; i < width / 8; i += blockDim.x) {
        load8(from + 8 * i, x);
        uint32_t words[2] = {0, 0};
#pragma unroll
        for (int j = 0; j < 8; j++) {
            // Where the scale is NaN, so is the row: its values are of no matter, but not
            // undefined.
            float value = inverse > 0.0f ? rintf(x[j] * inverse) : 0.0f;
            value = fminf(fmaxf(value, -127.0f), 127.0f);
            words[j / 4] |= uint32_t(uint8_t(int(value))) << (8 * (j % 4));
        }
        to[i] = make_uint2(words[0], words[1]);
    }
}
EXPORT(quantize_rows)

template <class T>
__device__ __forceinline__ void dequantize_rows(const int8_t *values, const float *scales, T *w,
                                                int num_rows, int width) {
    size_t index = 8 * (size_t(blockIdx.x) * blockDim.x + threadIdx.x);
    if (index >= size_t(num_rows) * width) return;
    float scale = scales[index / width], x[8];
    uint2 bytes = *reinterpret_cast<const uint2 *>(values + index);
#pragma unroll
    for (int i = 0; i < 8; i++)
        x[i] = float(int8_t((i < 4 ? bytes.x : bytes.y) >> (8 * (i % 4)))) * scale;
    store8(w + index, x);
}

// w = values * scale of the row, rounded once: [O, K], K a multiple of 8. A thread makes 8.
#define DEQUANTIZE_ROWS(T, name)                                                                   \
    extern "C" __global__ void dequantize_rows_##name(const int8_t *values, const float *scales,   \
                                                      T *w, int num_rows, int width) {             \
        dequantize_rows(values, scales, w, num_rows, width);                                       \
    }                                                                                              \
    EXPORT(dequantize_rows_##name)
DEQUANTIZE_ROWS(bf16, bf16)
DEQUANTIZE_ROWS(float, f32)
