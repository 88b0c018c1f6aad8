// y = silu(gate) * up, of rows that hold gate and up side by side.
#include "common.cuh"

// gate_up [T, 2F], y [T, F]; F is a multiple of 8. A thread makes 8 values.
extern "C" __global__ void swiglu(const bf16 *gate_up, bf16 *y, int num_rows, int width) {
    size_t index = 8 * (size_t(blockIdx.x) * blockDim.x + threadIdx.x);
    if (index >= size_t(num_rows) * width) return;
    const bf16 *gate = gate_up + index / width * 2 * width + index % width;
    uint4 gates = *reinterpret_cast<const uint4 *>(gate);
    uint4 ups = *reinterpret_cast<const uint4 *>(gate + width);
    const uint32_t *g = &gates.x, *u = &ups.x;
    uint4 out;
    uint32_t *o = &out.x;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        float2 a = floats_from_pair(g[i]), b = floats_from_pair(u[i]);
        o[i] = bf16_pair(a.x / (1.0f + __expf(-a.x)) * b.x, a.y / (1.0f + __expf(-a.y)) * b.y);
    }
    *reinterpret_cast<uint4 *>(y + index) = out;
}
EXPORT(swiglu)
