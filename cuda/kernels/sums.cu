// Sums over whole arrays, of values or of their squares, in f64 and in one order: a number of blocks that
// follows from the length leaves a part each, one block adds the parts up.
//
// The gradient of a 3B model: 12.9 GB, 3 ms at 4.3 TB/s, once a step.
#include "common.cuh"

__device__ double block_sum_f64(double value) {
    __shared__ double parts[256];
    parts[threadIdx.x] = value;
    __syncthreads();
    for (int stride = 128; stride > 0; stride /= 2) {
        if (threadIdx.x < stride) parts[threadIdx.x] += parts[threadIdx.x + stride];
        __syncthreads();
    }
    return parts[0];
}

// parts[block] = the sum over the block's values, of 256 threads.
extern "C" __global__ void sum_parts(const float *x, double *parts, size_t len, int squared) {
    double sum = 0.0;
    for (size_t i = size_t(blockIdx.x) * 256 + threadIdx.x; i < len; i += size_t(gridDim.x) * 256) {
        double value = x[i];
        sum += squared ? value * value : value;
    }
    sum = block_sum_f64(sum);
    if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}
EXPORT(sum_parts)

// total[0] += the sum of the parts.
extern "C" __global__ void sum_of_parts(const double *parts, double *total, int num_parts) {
    double sum = 0.0;
    for (int i = threadIdx.x; i < num_parts; i += 256) sum += parts[i];
    sum = block_sum_f64(sum);
    if (threadIdx.x == 0) total[0] += sum;
}
EXPORT(sum_of_parts)
