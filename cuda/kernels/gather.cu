// Rows and tokens by index. All of it is copying: at a decode step of 256 tokens the embedding
// reads 1.6 MB and writes 3.1 MB (C = 3072), about 1 us; the launch is most of it. A thread moves
// 16 bytes of input.
#include "common.cuh"

template <class T>
__device__ __forceinline__ void embedding(const T *table, const uint32_t *ids, float *x,
                                          int num_rows, int width, int vocabulary) {
    size_t index = 8 * (size_t(blockIdx.x) * blockDim.x + threadIdx.x);
    if (index >= size_t(num_rows) * width) return;
    uint32_t id = ids[index / width];
    float values[8];
#pragma unroll
    for (int i = 0; i < 8; i++) values[i] = __uint_as_float(~0u);
    if (id < uint32_t(vocabulary)) load8(table + size_t(id) * width + index % width, values);
    store8(x + index, values);
}

// x[t] = table[ids[t]]: table [V, C], x f32 [T, C]; C is a multiple of 8. An id that is not in the
// table becomes a row of NaN, which sampling reports.
#define EMBEDDING(T, name)                                                                         \
    extern "C" __global__ void embedding_##name(const T *table, const uint32_t *ids, float *x,     \
                                                int num_rows, int width, int vocabulary) {         \
        embedding(table, ids, x, num_rows, width, vocabulary);                                     \
    }                                                                                              \
    EXPORT(embedding_##name)
EMBEDDING(bf16, bf16)
EMBEDDING(float, f32)

// y[r] = x[rows[r]]: x f32 [T, C], y f32 [R, C]; C is a multiple of 4. A row beyond x becomes NaN,
// as two bf16 as well: rows of bf16 come as rows of half as many floats.
extern "C" __global__ void gather_rows(const float *x, const uint32_t *rows, float *y,
                                       int num_wanted, int width, int num_rows) {
    size_t index = 4 * (size_t(blockIdx.x) * blockDim.x + threadIdx.x);
    if (index >= size_t(num_wanted) * width) return;
    uint32_t row = rows[index / width];
    float nan = __uint_as_float(~0u);
    float4 from = make_float4(nan, nan, nan, nan);
    if (row < uint32_t(num_rows))
        from = *reinterpret_cast<const float4 *>(x + size_t(row) * width + index % width);
    *reinterpret_cast<float4 *>(y + index) = from;
}
EXPORT(gather_rows)

// token_ids[t] = sampled[row] for each pair (t, row); a pair of which either is out of range is
// padding.
extern "C" __global__ void carry_tokens(const uint32_t *sampled, const uint2 *pairs,
                                        uint32_t *token_ids, int num_pairs, int num_sampled,
                                        int num_tokens) {
    int index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= num_pairs) return;
    uint2 pair = pairs[index];
    if (pair.x < uint32_t(num_tokens) && pair.y < uint32_t(num_sampled))
        token_ids[pair.x] = sampled[pair.y];
}
EXPORT(carry_tokens)
