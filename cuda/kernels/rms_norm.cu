// y = x / rms(x) * w, of the f32 residual stream, for the bf16 products that follow.
//
// A block a row; a thread holds 8 values, or goes through the row in steps of the block's 8-fold
// width. Llama-3.2-3B, T = 256 rows of C = 3072: 256 blocks of 384 threads read 12 KiB and write 6
// KiB each, 4.7 MB in all, of which the input lies in L2 (the product before wrote it): 1 to 2 us,
// most of it launch and one barrier's latency. T = 8192: 151 MB, 35 us at 4.3 TB/s. The second
// reading of a row longer than the block hits L1.
#include "common.cuh"

// x [T, C], w [C], y [T, C]; C is a multiple of 8. Grid T.
extern "C" __global__ void rms_norm(const float *x, const float *w, bf16 *y, int width, float eps) {
    __shared__ float scratch[33];
    const float4 *from = reinterpret_cast<const float4 *>(x + size_t(blockIdx.x) * width);
    const float4 *weights = reinterpret_cast<const float4 *>(w);
    uint4 *to = reinterpret_cast<uint4 *>(y + size_t(blockIdx.x) * width);
    float squares = 0.0f;
    float4 a, b;
    for (int i = threadIdx.x; i < width / 8; i += blockDim.x) {
        a = from[2 * i], b = from[2 * i + 1];
        squares += a.x * a.x + a.y * a.y + a.z * a.z + a.w * a.w;
        squares += b.x * b.x + b.y * b.y + b.z * b.z + b.w * b.w;
    }
    float r = 1.0f / sqrtf(block_sum(squares, scratch) / width + eps);
    for (int i = threadIdx.x; i < width / 8; i += blockDim.x) {
        // What the first loop left in a and b is this row's only part.
        if (width / 8 > blockDim.x) a = from[2 * i], b = from[2 * i + 1];
        float4 wa = weights[2 * i], wb = weights[2 * i + 1];
        uint4 out;
        out.x = bf16_pair(a.x * r * wa.x, a.y * r * wa.y);
        out.y = bf16_pair(a.z * r * wa.z, a.w * r * wa.w);
        out.z = bf16_pair(b.x * r * wb.x, b.y * r * wb.y);
        out.w = bf16_pair(b.z * r * wb.z, b.w * r * wb.w);
        to[i] = out;
    }
}
EXPORT(rms_norm)
