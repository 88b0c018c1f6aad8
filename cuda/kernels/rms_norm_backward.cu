// The gradient of y = x / sqrt(mean(x^2) + eps) * w. No atomics: sums have one order.
//
// Llama-3.2-3B, 2048 tokens: the first kernel reads 25 MB of x, 13 MB of dy, reads and writes 25 MB of
// dx: 20 us at 4.3 TB/s, a block of 384 threads a row; the second reads x and dy again, mostly from the L2
// cache, 768 blocks.
#include "common.cuh"

// dx [T, C] += the gradient, inverse[t] = 1 / sqrt(mean(x^2) + eps). A block works on one row; C is a
// multiple of 4.
extern "C" __global__ void rms_norm_backward(const bf16 *dy, const float *x, const float *w, float *dx,
                                             float *inverse, int width, float eps) {
    __shared__ float scratch[33];
    size_t row = size_t(blockIdx.x) * width;
    float squares = 0.0f, product = 0.0f;
    for (int i = 4 * threadIdx.x; i < width; i += 4 * blockDim.x) {
        float4 a = *reinterpret_cast<const float4 *>(x + row + i);
        float4 b = *reinterpret_cast<const float4 *>(w + i);
        uint2 pairs = *reinterpret_cast<const uint2 *>(dy + row + i);
        float2 low = floats_from_pair(pairs.x), high = floats_from_pair(pairs.y);
        squares += a.x * a.x + a.y * a.y + a.z * a.z + a.w * a.w;
        product += low.x * b.x * a.x + low.y * b.y * a.y + high.x * b.z * a.z + high.y * b.w * a.w;
    }
    squares = block_sum(squares, scratch);
    __syncthreads();
    product = block_sum(product, scratch);
    float r = 1.0f / sqrtf(squares / width + eps);
    float along = r * r * r * product / width;
    for (int i = 4 * threadIdx.x; i < width; i += 4 * blockDim.x) {
        float4 a = *reinterpret_cast<const float4 *>(x + row + i);
        float4 b = *reinterpret_cast<const float4 *>(w + i);
        uint2 pairs = *reinterpret_cast<const uint2 *>(dy + row + i);
        float2 low = floats_from_pair(pairs.x), high = floats_from_pair(pairs.y);
        float4 sum = *reinterpret_cast<float4 *>(dx + row + i);
        sum.x += r * low.x * b.x - along * a.x;
        sum.y += r * low.y * b.y - along * a.y;
        sum.z += r * high.x * b.z - along * a.z;
        sum.w += r * high.y * b.w - along * a.w;
        *reinterpret_cast<float4 *>(dx + row + i) = sum;
    }
    if (threadIdx.x == 0) inverse[blockIdx.x] = r;
}
EXPORT(rms_norm_backward)

// parts[block y, C]: the sum of dy * x * inverse over the block's rows. A thread works on one column.
extern "C" __global__ void norm_weight_parts(const bf16 *dy, const float *x, const float *inverse,
                                             float *parts, int num_rows, int width) {
    int column = blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= width) return;
    int per_block = (num_rows + gridDim.y - 1) / gridDim.y;
    int first = blockIdx.y * per_block, end = min(first + per_block, num_rows);
    float sum = 0.0f;
    for (int row = first; row < end; row++) {
        size_t at = size_t(row) * width + column;
        sum += __bfloat162float(dy[at]) * x[at] * inverse[row];
    }
    parts[size_t(blockIdx.y) * width + column] = sum;
}
EXPORT(norm_weight_parts)

// dw [C] += the sum of parts [P, C], in the order of P.
extern "C" __global__ void norm_weight_sum(const float *parts, float *dw, int num_parts, int width) {
    int column = blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= width) return;
    float sum = 0.0f;
    for (int part = 0; part < num_parts; part++) sum += parts[size_t(part) * width + column];
    dw[column] += sum;
}
EXPORT(norm_weight_sum)
