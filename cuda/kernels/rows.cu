// Rows that are added to rows by index: gradients of the embedding and of the choice of label rows. Each
// row is summed by one block in a fixed order, without atomics. C is a multiple of 4.
#include "common.cuh"

__device__ __forceinline__ void add(float4 &sum, float4 value) {
    sum.x += value.x;
    sum.y += value.y;
    sum.z += value.z;
    sum.w += value.w;
}

// dtable[id] += the sum of dx [T, C] over the tokens of each id: those of group g are
// order[starts[g]] .. order[starts[g + 1]]. A block works on one group; ids are below V, which the host
// checks.
extern "C" __global__ void embedding_backward(const float *dx, const uint32_t *ids,
                                              const uint32_t *order, const uint32_t *starts,
                                              float *dtable, int width) {
    uint32_t first = starts[blockIdx.x], end = starts[blockIdx.x + 1];
    size_t row = size_t(ids[order[first]]) * width;
    for (int i = 4 * threadIdx.x; i < width; i += 4 * blockDim.x) {
        float4 sum = *reinterpret_cast<float4 *>(dtable + row + i);
        for (uint32_t at = first; at < end; at++)
            add(sum, *reinterpret_cast<const float4 *>(dx + size_t(order[at]) * width + i));
        *reinterpret_cast<float4 *>(dtable + row + i) = sum;
    }
}
EXPORT(embedding_backward)

// y[rows[r]] += x[r]; no row comes twice, and all are below T, which the host checks.
extern "C" __global__ void scatter_rows_add(const float *x, const uint32_t *rows, float *y, int num_rows,
                                            int width) {
    size_t index = 4 * (size_t(blockIdx.x) * blockDim.x + threadIdx.x);
    if (index >= size_t(num_rows) * width) return;
    size_t at = size_t(rows[index / width]) * width + index % width;
    float4 sum = *reinterpret_cast<float4 *>(y + at);
    add(sum, *reinterpret_cast<const float4 *>(x + index));
    *reinterpret_cast<float4 *>(y + at) = sum;
}
EXPORT(scatter_rows_add)
