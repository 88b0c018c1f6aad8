// Rotary positions where queries and keys lie, for training, forward and back (Su et al. 2021, arXiv
// 2104.09864; element i turns with element i + D/2).
//
// Llama-3.2-3B, 2048 tokens: reads and writes 17 MB each: 8 us at 4.3 TB/s.
#include "common.cuh"

// The first `num_heads` heads of qkv [T, stride] are turned; `sign` is -1 to turn back. A thread turns two
// neighbouring pairs; D is a multiple of 4. A position that the table [P, D/2] lacks makes NaN.
extern "C" __global__ void rope_train(bf16 *qkv, const uint32_t *positions, const float *cosines,
                                      const float *sines, int num_tokens, int num_heads, int head_dim,
                                      int stride, int num_positions, float sign) {
    int half = head_dim / 2, per_token = num_heads * half / 2;
    size_t index = size_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (index >= size_t(num_tokens) * per_token) return;
    int token = index / per_token, place = index % per_token;
    int head = place / (half / 2), i = place % (half / 2) * 2;
    uint32_t position = positions[token];
    bool is_known = position < uint32_t(num_positions);
    size_t angle = is_known ? size_t(position) * half + i : 0;
    float nan = __uint_as_float(0x7fc00000u);
    float2 cosine = is_known ? *reinterpret_cast<const float2 *>(cosines + angle)
                             : make_float2(nan, nan);
    float2 sine = is_known ? *reinterpret_cast<const float2 *>(sines + angle) : make_float2(nan, nan);
    sine.x *= sign;
    sine.y *= sign;
    bf16 *at = qkv + size_t(token) * stride + head * head_dim + i;
    uint32_t *low = reinterpret_cast<uint32_t *>(at);
    uint32_t *high = reinterpret_cast<uint32_t *>(at + half);
    float2 a = floats_from_pair(*low), b = floats_from_pair(*high);
    *low = bf16_pair(a.x * cosine.x - b.x * sine.x, a.y * cosine.y - b.y * sine.y);
    *high = bf16_pair(b.x * cosine.x + a.x * sine.x, b.y * cosine.y + a.y * sine.y);
}
EXPORT(rope_train)
