// y = silu(gate) * up, of rows that hold gate and up side by side.
#include "common.cuh"

// To a few units of the last place for f32; bf16 has no use for them.
__device__ __forceinline__ float exp_for(const float *, float x) { return expf(x); }
__device__ __forceinline__ float exp_for(const bf16 *, float x) { return __expf(x); }

template <class T>
__device__ __forceinline__ void swiglu(const T *gate_up, T *y, int num_rows, int width) {
    size_t index = 8 * (size_t(blockIdx.x) * blockDim.x + threadIdx.x);
    if (index >= size_t(num_rows) * width) return;
    const T *gate = gate_up + index / width * 2 * width + index % width;
    float gates[8], ups[8];
    load8(gate, gates);
    load8(gate + width, ups);
#pragma unroll
    for (int i = 0; i < 8; i++) ups[i] *= gates[i] / (1.0f + exp_for(gate, -gates[i]));
    store8(y + index, ups);
}

// gate_up [T, 2F], y [T, F]; F is a multiple of 8. A thread makes 8 values.
#define SWIGLU(T, name)                                                                            \
    extern "C" __global__ void swiglu_##name(const T *gate_up, T *y, int num_rows, int width) {    \
        swiglu(gate_up, y, num_rows, width);                                                       \
    }                                                                                              \
    EXPORT(swiglu_##name)
SWIGLU(bf16, bf16)
SWIGLU(float, f32)
