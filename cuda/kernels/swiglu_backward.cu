// The gradient of y = silu(gate) * up, in the place of gate and up.
//
// Llama-3.2-3B, 2048 tokens: reads 101 MB, writes 67 MB: 39 us at 4.3 TB/s.
#include "common.cuh"

// gate_up [T, 2F] becomes its gradient for dy [T, F]; F is a multiple of 8. A thread makes 8 of each.
extern "C" __global__ void swiglu_backward(bf16 *gate_up, const bf16 *dy, int num_rows, int width) {
    size_t index = 8 * (size_t(blockIdx.x) * blockDim.x + threadIdx.x);
    if (index >= size_t(num_rows) * width) return;
    bf16 *gate = gate_up + index / width * 2 * width + index % width;
    uint4 gates = *reinterpret_cast<const uint4 *>(gate);
    uint4 ups = *reinterpret_cast<const uint4 *>(gate + width);
    uint4 dys = *reinterpret_cast<const uint4 *>(dy + index);
    uint32_t *g = &gates.x, *u = &ups.x, *d = &dys.x;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        float2 a = floats_from_pair(g[i]), b = floats_from_pair(u[i]), dout = floats_from_pair(d[i]);
        float sx = 1.0f / (1.0f + __expf(-a.x)), sy = 1.0f / (1.0f + __expf(-a.y));
        g[i] = bf16_pair(dout.x * b.x * sx * (1.0f + a.x * (1.0f - sx)),
                         dout.y * b.y * sy * (1.0f + a.y * (1.0f - sy)));
        u[i] = bf16_pair(dout.x * a.x * sx, dout.y * a.y * sy);
    }
    *reinterpret_cast<uint4 *>(gate) = gates;
    *reinterpret_cast<uint4 *>(gate + width) = ups;
}
EXPORT(swiglu_backward)
