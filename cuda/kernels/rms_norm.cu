// y = x / rms(x) * w, of the f32 residual stream, for the products that follow: in bf16, or f32.
//
// A block a row; a thread holds 8 values, or goes through the row in steps of the block's 8-fold
// width. Llama-3.2-3B, T = 256 rows of C = 3072: 256 blocks of 384 threads read 12 KiB and write 6
// KiB each, 4.7 MB in all, of which the input lies in L2 (the product before wrote it): 1 to 2 us,
// most of it launch and one barrier's latency. T = 8192: 151 MB, 35 us at 4.3 TB/s. The second
// reading of a row longer than the block hits L1.
#include "common.cuh"

template <class T>
__device__ __forceinline__ void rms_norm(const float *x, const float *w, T *y, int width,
                                         float eps) {
    __shared__ float scratch[33];
    x += size_t(blockIdx.x) * width;
    y += size_t(blockIdx.x) * width;
    float squares = 0.0f, values[8], weights[8];
    for (int i = threadIdx.x; i < width / 8; i += blockDim.x) {
        load8(x + 8 * i, values);
#pragma unroll
        for (int j = 0; j < 8; j++) squares += values[j] * values[j];
    }
    float r = 1.0f / sqrtf(block_sum(squares, scratch) / width + eps);
    for (int i = threadIdx.x; i < width / 8; i += blockDim.x) {
        // What the first loop left is this row's only part.
        if (width / 8 > blockDim.x) load8(x + 8 * i, values);
        load8(w + 8 * i, weights);
#pragma unroll
        for (int j = 0; j < 8; j++) values[j] = values[j] * r * weights[j];
        store8(y + 8 * i, values);
    }
}

// x [T, C], w [C], y [T, C]; C is a multiple of 8. Grid T.
#define RMS_NORM(T, name)                                                                          \
    extern "C" __global__ void rms_norm_##name(const float *x, const float *w, T *y, int width,    \
                                               float eps) {                                        \
        rms_norm(x, w, y, width, eps);                                                             \
    }                                                                                              \
    EXPORT(rms_norm_##name)
RMS_NORM(bf16, bf16)
RMS_NORM(float, f32)
