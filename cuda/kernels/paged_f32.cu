// Attention over cached keys and values with queries and results in f32, of decode and of chunks of prompts: as exact
// as a CPU's, to be compared with it. A warp has a row (a token's head) after another: a lane has one of 32 keys'
// scores, then D / 32 values of the sums, "online" as in attention.cuh.
//
// Nothing but FMAs, and keys are read for each row anew, from L1 where rows share them: a tenth of the speed of
// the kernels for bf16 or less. Weights in f32 are twice the bytes, and their products have no tensor cores.
#include "paged_attention.cuh"

__device__ __forceinline__ float value_of(float bits) { return bits; }
__device__ __forceinline__ float value_of(uint8_t bits) { return float_of_bits(bits); }

template <class E, int D>
__device__ __forceinline__ float score_of(const float *query, const E *key) {
    float sum = 0.0f;
#pragma unroll 8
    for (int i = 0; i < D; i++) sum = fmaf(query[i], value_of(key[i]), sum);
    return sum;
}

// Row `row` of `packed`; all lanes of a warp take part. `query`: D floats of shared memory.
template <class E, int D>
__device__ __forceinline__ void attend_row(float *query, const PagedOf<float> &paged, const E *keys,
                                           const E *values, const uint32_t *table, int row,
                                           const Packed &packed, const PagedShape &shape) {
    constexpr int EACH = D / 32;
    int lane = threadIdx.x % 32, num_keys = packed.num_keys(row);
    size_t token = packed.token(row), head = packed.head_of(row);
    __syncwarp();
#pragma unroll
    for (int i = 0; i < EACH; i++)
        query[lane + 32 * i] = paged.query[token * shape.query_stride + head * D + lane + 32 * i];
    __syncwarp();
    float max = -INFINITY, sum = 0.0f, out[EACH] = {};
    for (int first = 0; first < num_keys; first += 32) {
        int key = first + lane, count = min(32, num_keys - first);
        size_t at = 0;
        float score = -INFINITY;
        if (key < num_keys) {
            at = size_t(table[key / shape.block_size]) * shape.num_groups + blockIdx.y;
            at = (at * shape.block_size + key % shape.block_size) * D;
            score = score_of<E, D>(query, keys + at) * shape.scale;
        }
        float top = fmaxf(max, warp_max(score)), factor = exp2f(max - top);
        float weight = key < num_keys ? exp2f(score - top) : 0.0f;
        max = top;
        sum = sum * factor + warp_sum(weight);
#pragma unroll
        for (int i = 0; i < EACH; i++) out[i] *= factor;
        for (int j = 0; j < count; j++) {
            float own = __shfl_sync(0xffffffffu, weight, j);
            const E *value = values + __shfl_sync(0xffffffffu, at, j) + lane;
#pragma unroll
            for (int i = 0; i < EACH; i++) out[i] = fmaf(own, value_of(value[32 * i]), out[i]);
        }
    }
    float factor = num_keys > 0 ? shape.value_scale / sum : 0.0f;
    float *to = paged.out + (token * shape.num_heads + head) * D + lane;
#pragma unroll
    for (int i = 0; i < EACH; i++) to[32 * i] = out[i] * factor;
}

// Rows `first` up to, without, `end` of a sequence's group, shared by the warps.
template <class E, int D>
__device__ __forceinline__ void attend_rows(const PagedOf<float> &paged, const E *keys,
                                            const E *values, int sequence, int first, int end,
                                            const PagedShape &shape) {
    DYNAMIC_SHARED(memory);
    int warp = threadIdx.x / 32;
    float *query = reinterpret_cast<float *>(memory) + warp * D;
    Packed packed(paged, shape, sequence, blockIdx.y);
    const uint32_t *table = paged.block_tables + size_t(sequence) * shape.table_stride;
    for (int row = first + warp; row < min(end, packed.num_rows()); row += NUM_WARPS)
        attend_row<E, D>(query, paged, keys, values, table, row, packed, shape);
}

// Arguments and grids are those of the kernels for bf16: of paged_decode with one split, and of paged_prefill.
#define PAGED_F32(D, E, name)                                                                      \
    extern "C" __global__ void __launch_bounds__(BLOCK_THREADS) paged_decode_##D##_##name(        \
        const float *query, const E *keys, const E *values, const uint32_t *query_start,           \
        const uint32_t *context_len, const uint32_t *block_tables, const uint32_t *, float *out,   \
        float *, float *, int, PagedShape shape) {                                                 \
        PagedOf<float> paged{query, query_start, context_len, block_tables, out};                  \
        attend_rows<E, D>(paged, keys, values, blockIdx.x, 0, 1 << 30, shape);                     \
    }                                                                                              \
    EXPORT(paged_decode_##D##_##name)                                                              \
    extern "C" __global__ void __launch_bounds__(BLOCK_THREADS) paged_prefill_##D##_##name(       \
        const float *query, const E *keys, const E *values, const uint32_t *query_start,           \
        const uint32_t *context_len, const uint32_t *block_tables, float *out,                     \
        const uint32_t *work, PagedShape shape) {                                                  \
        PagedOf<float> paged{query, query_start, context_len, block_tables, out};                  \
        int sequence = int(work[2 * blockIdx.x]);                                                  \
        if (sequence < 0) return;                                                                  \
        int first = 16 * NUM_WARPS * int(work[2 * blockIdx.x + 1]);                                \
        attend_rows<E, D>(paged, keys, values, sequence, first, first + 16 * NUM_WARPS, shape);    \
    }                                                                                              \
    EXPORT(paged_prefill_##D##_##name)

PAGED_F32(32, float, f32)
PAGED_F32(64, float, f32)
PAGED_F32(128, float, f32)
PAGED_F32(32, uint8_t, f32_e4m3)
PAGED_F32(64, uint8_t, f32_e4m3)
PAGED_F32(128, uint8_t, f32_e4m3)
