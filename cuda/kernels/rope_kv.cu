// Rotary positions for queries and keys, and the write of keys and values into the cache, between
// the qkv product and attention. Queries are turned where they lie; keys and values go to the cache
// alone.
//
// A thread turns 8 pairs (i, i + D/2): of bf16 two 16-byte reads, two writes; a value's thread copies as
// many. All that is read was just written by the product, and lies in L2. Llama-3.2-3B (H = 24, G =
// 8, D = 128), T = 256: 320 threads a token, 320 blocks of 256; 2.6 MB read and 2.6 MB written a
// layer, about 2 us. T = 8192: 84 MB read, 84 MB written, 40 us at 4.3 TB/s. A token's cosines (512
// bytes) are read by 32 heads: L1.
#include "common.cuh"

// Into the cache: as they are, or divided by `scale`.
template <class E> __device__ __forceinline__ void keep(E *to, const float (&x)[8], float) {
    store8(to, x);
}
__device__ __forceinline__ void keep(uint8_t *to, const float (&x)[8], float scale) {
    uint32_t words[2] = {0, 0};
#pragma unroll
    for (int i = 0; i < 8; i++)
        words[i / 4] |= uint32_t(e4m3_from_float(x[i] / scale)) << (8 * (i % 4));
    *reinterpret_cast<uint2 *>(to) = make_uint2(words[0], words[1]);
}

// (first, second) turned by the angles whose cosines and sines these are, as in kernels::rope_row.
__device__ __forceinline__ void turn(float (&first)[8], float (&second)[8], const float *cosines,
                                     const float *sines) {
    float c[8], s[8];
    load8(cosines, c);
    load8(sines, s);
#pragma unroll
    for (int i = 0; i < 8; i++) {
        float a = first[i], b = second[i];
        first[i] = a * c[i] - b * s[i];
        second[i] = b * c[i] + a * s[i];
    }
}

struct RopeShape {
    int num_tokens, num_heads, num_groups, head_dim, max_positions, block_size, num_slots;
};

template <class T, class E>
__device__ __forceinline__ void rope_kv(T *qkv, const uint32_t *positions, const uint32_t *slots,
                                        const float *cosines, const float *sines, E *keys,
                                        E *values, const RopeShape &shape, float key_scale,
                                        float value_scale) {
    int half = shape.head_dim / 2, num_parts = half / 8;
    int all_heads = shape.num_heads + 2 * shape.num_groups;
    size_t index = size_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (index >= size_t(shape.num_tokens) * all_heads * num_parts) return;
    int part = index % num_parts, head = index / num_parts % all_heads;
    size_t token = index / num_parts / all_heads;
    bool is_query = head < shape.num_heads;
    uint32_t slot = slots[token];
    if (!is_query && slot >= uint32_t(shape.num_slots)) return;

    T *at = qkv + (token * all_heads + head) * shape.head_dim + 8 * part;
    float first[8], second[8];
    load8(at, first);
    load8(at + half, second);
    bool is_value = head >= shape.num_heads + shape.num_groups;
    if (!is_value) {
        // The host has checked positions; a wrong one must not read beyond the table.
        uint32_t position = min(positions[token], uint32_t(shape.max_positions - 1));
        size_t row = size_t(position) * half + 8 * part;
        turn(first, second, cosines + row, sines + row);
    }
    if (is_query) {
        store8(at, first);
        store8(at + half, second);
        return;
    }
    int group = head - shape.num_heads - (is_value ? shape.num_groups : 0);
    size_t row = size_t(slot / shape.block_size) * shape.num_groups + group;
    row = row * shape.block_size + slot % shape.block_size;
    E *to = (is_value ? values : keys) + row * shape.head_dim + 8 * part;
    float scale = is_value ? value_scale : key_scale;
    keep(to, first, scale);
    keep(to + half, second, scale);
}

// qkv [T, (H + 2G) D]; positions, slots [T]; cosines, sines [P, D/2]; keys, values
// [num_blocks, G, block_size, D]; D is a multiple of 16. A slot beyond the cache (a row of padding)
// is not written. In e4m3 keys and values are divided by their scales.
#define ROPE_KV(T, E, name)                                                                        \
    extern "C" __global__ void rope_kv_##name(                                                     \
        T *qkv, const uint32_t *positions, const uint32_t *slots, const float *cosines,            \
        const float *sines, E *keys, E *values, RopeShape shape, float key_scale,                  \
        float value_scale) {                                                                       \
        rope_kv(qkv, positions, slots, cosines, sines, keys, values, shape, key_scale,             \
                value_scale);                                                                      \
    }                                                                                              \
    EXPORT(rope_kv_##name)
ROPE_KV(bf16, bf16, bf16)
ROPE_KV(bf16, uint8_t, bf16_e4m3)
ROPE_KV(float, float, f32)
ROPE_KV(float, uint8_t, f32_e4m3)
