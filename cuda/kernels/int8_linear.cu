// y = x wᵀ with weights in 8 bits and a scale for each output: for decode, whose time is that of
// reading weights.
//
// A block makes 32 outputs for all rows of x (at most 64). Its 8 warps share the inputs: warp i
// takes slabs i, i + 8, .. of 64, and their sums are added in one order at the end. A weight is
// used by one warp once, so that it goes from memory to registers, 16 bytes a lane and the next
// slab's before this one's are used; there is nothing to share. A lane's 16 bytes are consecutive
// inputs of one output; which input goes to which place of a fragment is free as long as x is read
// in the same order, so that x needs no shuffling either.
//
// On paper, Llama-3.2-3B on an H200: gate_up (O = 16,384, K = 3072) is 50 MB, 12 us at 4.3 TB/s;
// 512 blocks. In flight an SM has 2 blocks x 8 warps x 2 KB = 32 KB, more than the 23 KB that 4.3
// TB/s want. Every block reads x: 512 x M x 6 KB from L2, as much as the weights at M = 16 (50 MB),
// 4 times that at M = 64, where L2 (about 6 TB/s) makes it some 35 us, and bf16 weights through
// cublasLt cost the same. So: worth it up to M = 32. Making bf16 of 8 bits is 2.5 instructions a
// weight: 37 % of what four schedulers issue.
#include "common.cuh"

static constexpr int NUM_WARPS = 8, NUM_TILES = 4, OUTPUTS = 8 * NUM_TILES, SLAB = 64;

// Four signed bytes as two pairs of bf16, exactly: a byte + 128 in the last place of 2^23 is a
// float.
__device__ __forceinline__ void widen(uint32_t bytes, uint32_t (&pairs)[2]) {
    bytes ^= 0x80808080u;
    uint32_t words[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        uint32_t word = __byte_perm(bytes, 0x4b000000u, 0x7440 | i);
        words[i] = __float_as_uint(__uint_as_float(word) - 8388736.0f);
    }
    pairs[0] = __byte_perm(words[0], words[1], 0x7632);
    pairs[1] = __byte_perm(words[2], words[3], 0x7632);
}

// This lane's weights of a slab: 16 of one output of each tile.
__device__ __forceinline__ void load_weights(uint4 (&bytes)[NUM_TILES], const int8_t *w, int first,
                                             int num_outputs, int num_inputs, int slab) {
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int tile = 0; tile < NUM_TILES; tile++) {
        int output = min(first + 8 * tile + lane / 4, num_outputs - 1);
        const int8_t *from = w + size_t(output) * num_inputs + slab * SLAB + 16 * (lane % 4);
        bytes[tile] = *reinterpret_cast<const uint4 *>(from);
    }
}

// The same 16 inputs of rows lane / 4 and 8 further of a tile of x; zeros beyond its last row.
__device__ __forceinline__ void load_inputs(uint4 (&inputs)[2][2], const bf16 *x, int row,
                                            int num_rows, int num_inputs, int slab) {
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        int at = row + 8 * half + lane / 4;
        const bf16 *from = x + size_t(at) * num_inputs + slab * SLAB + 16 * (lane % 4);
        uint4 zero = make_uint4(0, 0, 0, 0);
        inputs[half][0] = at < num_rows ? reinterpret_cast<const uint4 *>(from)[0] : zero;
        inputs[half][1] = at < num_rows ? reinterpret_cast<const uint4 *>(from)[1] : zero;
    }
}

// sums += the products of one slab: four steps of 16 inputs, of which a lane holds 4 consecutive
// ones each.
template <int M_TILES>
__device__ __forceinline__ void multiply(float (&sums)[M_TILES][NUM_TILES][4],
                                         const uint4 (&bytes)[NUM_TILES], const bf16 *x,
                                         int num_rows, int num_inputs, int slab) {
    uint32_t b[NUM_TILES][4][2];
#pragma unroll
    for (int tile = 0; tile < NUM_TILES; tile++) {
        const uint4 &w = bytes[tile];
        widen(w.x, b[tile][0]), widen(w.y, b[tile][1]);
        widen(w.z, b[tile][2]), widen(w.w, b[tile][3]);
    }
#pragma unroll
    for (int m = 0; m < M_TILES; m++) {
        uint4 inputs[2][2];
        load_inputs(inputs, x, 16 * m, num_rows, num_inputs, slab);
#pragma unroll
        for (int step = 0; step < 4; step++) {
            const uint4 &low = inputs[0][step / 2], &high = inputs[1][step / 2];
            bool is_odd = step % 2;
            uint32_t a[4] = {is_odd ? low.z : low.x, is_odd ? high.z : high.x,
                             is_odd ? low.w : low.y, is_odd ? high.w : high.y};
#pragma unroll
            for (int tile = 0; tile < NUM_TILES; tile++)
                mma_bf16_16816(sums[m][tile], a, b[tile][step]);
        }
    }
}

__device__ __forceinline__ void put(float *to, float value, int adds) {
    *to = adds ? *to + value : value;
}
__device__ __forceinline__ void put(bf16 *to, float value, int) {
    *to = __float2bfloat16_rn(value);
}

struct Int8Shape {
    int num_rows, num_outputs, num_inputs, adds;
};

template <int M_TILES, class Y>
__device__ __forceinline__ void int8_linear(const bf16 *x, const int8_t *w, const float *scales,
                                            Y *y, Int8Shape shape) {
    __shared__ float partial[NUM_WARPS][16][OUTPUTS + 1];
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, first = blockIdx.x * OUTPUTS;
    float sums[M_TILES][NUM_TILES][4] = {};
    int num_slabs = shape.num_inputs / SLAB;
    uint4 now[NUM_TILES], next[NUM_TILES] = {};
    if (warp < num_slabs)
        load_weights(next, w, first, shape.num_outputs, shape.num_inputs, warp);
    for (int slab = warp; slab < num_slabs; slab += NUM_WARPS) {
#pragma unroll
        for (int tile = 0; tile < NUM_TILES; tile++) now[tile] = next[tile];
        if (slab + NUM_WARPS < num_slabs)
            load_weights(next, w, first, shape.num_outputs, shape.num_inputs, slab + NUM_WARPS);
        multiply<M_TILES>(sums, now, x, shape.num_rows, shape.num_inputs, slab);
    }
#pragma unroll
    for (int m = 0; m < M_TILES; m++) {
        __syncthreads();
#pragma unroll
        for (int tile = 0; tile < NUM_TILES; tile++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                partial[warp][lane / 4 + i / 2 * 8][8 * tile + 2 * (lane % 4) + i % 2] =
                    sums[m][tile][i];
        __syncthreads();
        for (int i = threadIdx.x; i < 16 * OUTPUTS; i += blockDim.x) {
            int row = 16 * m + i / OUTPUTS, output = first + i % OUTPUTS;
            if (row >= shape.num_rows || output >= shape.num_outputs) continue;
            float sum = 0.0f;
#pragma unroll
            for (int part = 0; part < NUM_WARPS; part++)
                sum += partial[part][i / OUTPUTS][i % OUTPUTS];
            put(y + size_t(row) * shape.num_outputs + output, sum * scales[output], shape.adds);
        }
    }
}

// x bf16 [M, K], w [O, K], scales [O], y [M, O]; K is a multiple of 64, M at most 16 M_TILES. Grid
// O / 32, rounded up; 256 threads.
#define KERNEL(name, M_TILES, Y)                                                                  \
    extern "C" __global__ void __launch_bounds__(32 * NUM_WARPS)                                  \
        name(const bf16 *x, const int8_t *w, const float *scales, Y *y, Int8Shape shape) {        \
        int8_linear<M_TILES>(x, w, scales, y, shape);                                             \
    }                                                                                             \
    EXPORT(name)
KERNEL(int8_linear_16_f32, 1, float)
KERNEL(int8_linear_32_f32, 2, float)
KERNEL(int8_linear_64_f32, 4, float)
KERNEL(int8_linear_16_bf16, 1, bf16)
KERNEL(int8_linear_32_bf16, 2, bf16)
KERNEL(int8_linear_64_bf16, 4, bf16)
