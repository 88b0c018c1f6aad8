// Attention of the newest token (or few: at most 16 rows a sequence and group) of many sequences over their
// cached keys and values. Bound by the bandwidth of the cache. Each warp takes every fourth 16 keys of its
// block's share, with its own stages of shared memory, so that no warp waits for another until the end; 16 keys
// lie in one block of the cache. With few sequences the keys are split over several blocks, whose sums
// `paged_combine` joins; the shares follow from the context on the device, so that a graph stays valid.
//
// Llama-3.2-3B, 256 sequences of 400 tokens: 2 x 256 x 400 x 8 x 128 x 2 bytes = 419 MB a layer, 98 us at 4.3 TB/s
// (fp8: 49 us), 11.7 GB and 2.7 ms a step of 28 layers. 2048 blocks of 4 warps, 3 resident on an SM by 64 KiB of
// shared memory and 168 registers: half of the stages, 96 KiB, is under way at any time, where latency times
// bandwidth is 26 KiB an SM (4.3 TB/s x 0.8 us / 132). Expected: 80-85 % of the bandwidth, the rest being the
// start of each block (four dependent reads, about 2 us of 19) and the last of 5.2 waves. Arithmetic is no bound:
// 32 mma for 8 KiB, 1.6 M mma a layer, 12 k for an SM, about 20 us of its tensor cores.
#include "paged_attention.cuh"

template <class E, int D> struct Decode {
    static constexpr int KEYS = 16;
    using Part = Tile<E, D, KEYS, 32>;
    static constexpr int STAGE_BYTES = 2 * Part::BYTES;
    static constexpr int WARP_BYTES = 2 * STAGE_BYTES + 2 * Part::EXTRA_BYTES;

    Cached<E, D> cache;
    unsigned char *memory;

    // Every fourth tile from `first` up to, without, `end`.
    __device__ __forceinline__ void run(Rows<D> &rows, const Window &window, int first, int end,
                                        float scale) const {
        int lane = threadIdx.x % 32, count = max(0, (end - first + NUM_WARPS - 1) / NUM_WARPS);
        uint32_t blocks = 0;
        // Lanes look up the blocks of the next 32 tiles.
        auto start = [&](int i) {
            if (i % 32 == 0 && i + lane < count)
                blocks = cache.table[(first + NUM_WARPS * (i + lane)) * KEYS / cache.block_size];
            if (i < count) {
                uint32_t block = __shfl_sync(0xffffffffu, blocks, i % 32);
                cache.template begin<Part, 32>(memory + i % 2 * STAGE_BYTES, 0,
                                               KEYS * (first + NUM_WARPS * i), block, lane);
            }
            cp_async_commit();
        };
        unsigned char *extra = memory + 2 * STAGE_BYTES;
        start(0);
        for (int i = 0; i < count; i++) {
            start(i + 1);
            cp_async_wait<1>();
            __syncwarp();
            const unsigned char *stage = memory + i % 2 * STAGE_BYTES;
            const bf16 *k = Part::read(stage, extra, lane);
            const bf16 *v = Part::read(stage + Part::BYTES, extra + Part::EXTRA_BYTES, lane);
            if (Part::EXTRA_BYTES > 0) __syncwarp();
            attend<D, KEYS / 8>(rows, k, v, window, KEYS * (first + NUM_WARPS * i), scale);
            __syncwarp(); // The next copy overwrites what was read.
        }
        cp_async_wait<0>();
    }
};

// Joins the 4 warps' rows; all threads take part. `memory`: 16 x (D + 2) floats for each warp.
template <int D>
__device__ __forceinline__ void join(Rows<D> &rows, float *memory, const Paged &paged,
                                     const PagedShape &shape, const Packed &packed, Partial partial) {
    constexpr int STRIDE = D + 2;
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    rows.finish();
    __syncthreads();
#pragma unroll
    for (int i = 0; i < 2; i++) {
        float *to = memory + (16 * warp + lane / 4 + 8 * i) * STRIDE;
#pragma unroll
        for (int j = 0; j < D / 8; j++)
            *reinterpret_cast<float2 *>(to + 8 * j + 2 * (lane % 4)) =
                make_float2(rows.out[j][2 * i], rows.out[j][2 * i + 1]);
        if (lane % 4 == 0) to[D] = rows.max[i], to[D + 1] = rows.sum[i];
    }
    __syncthreads();
    for (int at = threadIdx.x; at < packed.num_rows() * D; at += BLOCK_THREADS) {
        int row = at / D, column = at % D;
        const float *from = memory + row % 16 * STRIDE;
        float top = -INFINITY, sum = 0.0f, value = 0.0f;
        for (int w = 0; w < NUM_WARPS; w++) top = fmaxf(top, from[w * 16 * STRIDE + D]);
        float base = top == -INFINITY ? 0.0f : top;
        // More rows than were promised must not pass for results.
        if (row >= 16) value = NAN, base = top = 0.0f, sum = 1.0f;
        for (int w = 0; w < NUM_WARPS; w++) {
            const float *part = from + w * 16 * STRIDE;
            float factor = fast_exp2(part[D] - base);
            value += factor * part[column];
            sum += factor * part[D + 1];
        }
        size_t to = size_t(packed.token(row)) * shape.num_heads + packed.head_of(row);
        if (shape.num_splits + shape.num_prefix_splits == 1) {
            float factor = sum > 0.0f ? shape.value_scale / sum : 0.0f;
            paged.out[to * D + column] = __float2bfloat16(value * factor);
        } else {
            size_t index = partial.index(blockIdx.z, to);
            partial.sums[index * D + column] = value;
            if (column == 0) partial.weights[2 * index] = top, partial.weights[2 * index + 1] = sum;
        }
    }
}

// Who has no prefix has no keys in its shares.
__device__ __forceinline__ void leave_prefix_empty(const Packed &packed, Partial partial,
                                                   const PagedShape &shape) {
    int count = packed.num_rows() * shape.num_prefix_splits;
    for (int i = threadIdx.x; i < count; i += BLOCK_THREADS) {
        int row = i / shape.num_prefix_splits, split = i % shape.num_prefix_splits;
        size_t to = size_t(packed.token(row)) * shape.num_heads + packed.head_of(row);
        size_t index = partial.index(shape.num_splits + split, to);
        partial.weights[2 * index] = -INFINITY;
        partial.weights[2 * index + 1] = 0.0f;
    }
}

// Grid (sequences, G, splits).
template <class E, int D>
__device__ __forceinline__ void decode(const Paged &paged, const E *keys, const E *values,
                                       const uint32_t *prefix_len, Partial partial,
                                       const PagedShape &shape) {
    DYNAMIC_SHARED(memory);
    int sequence = blockIdx.x, key_head = blockIdx.y, warp = threadIdx.x / 32;
    Packed packed(paged, shape, sequence, key_head);
    if (packed.num_tokens == 0) return;
    Decode<E, D> tiles{cached<E, D>(keys, values, paged, shape, sequence),
                       memory + warp * Decode<E, D>::WARP_BYTES};
    // The first keys may be those of a prefix, which `paged_prefix` sees to.
    int num_before = shape.num_prefix_splits > 0 ? int(prefix_len[sequence]) / 16 : 0;
    if (num_before == 0 && blockIdx.z == 0) leave_prefix_empty(packed, partial, shape);
    int num_tiles = (packed.context + 15) / 16, num_own = max(0, num_tiles - num_before);
    int share = (num_own + shape.num_splits - 1) / shape.num_splits;
    int first = num_before + blockIdx.z * share, end = min(first + share, num_tiles);
    Rows<D> rows;
    Window window;
    open_rows(rows, window, paged, shape, packed, 0);
    tiles.run(rows, window, first + warp, end, shape.scale);
    join(rows, reinterpret_cast<float *>(memory), paged, shape, packed, partial);
}

// A warp for each token and head: its shares of the keys, weighted. Llama-3.2-3B, 8 sequences, 6 splits: 0.6 MB.
template <int D>
__device__ __forceinline__ void combine(Partial partial, bf16 *out, const PagedShape &shape) {
    constexpr int EACH = D < 64 ? 2 : D / 32;
    int lane = threadIdx.x % 32, column = lane * EACH;
    size_t row = size_t(blockIdx.x) * NUM_WARPS + threadIdx.x / 32;
    if (row >= partial.num_rows) return;
    int num_splits = shape.num_splits + shape.num_prefix_splits;
    // Lane s has split s. A share without keys has weight 0, and its sums are left alone.
    bool has = lane < num_splits;
    size_t own = 2 * partial.index(has ? lane : 0, row);
    float top = has ? partial.weights[own] : -INFINITY;
    float all = warp_max(top), base = all == -INFINITY ? 0.0f : all;
    float factor = fast_exp2(top - base);
    float sum = warp_sum(has ? factor * partial.weights[own + 1] : 0.0f);
    float value[EACH] = {};
    for (int split = 0; split < num_splits; split++) {
        float weight = __shfl_sync(0xffffffffu, factor, split);
        if (weight == 0.0f) continue;
        const float *from = partial.sums + partial.index(split, row) * D + column;
#pragma unroll
        for (int i = 0; i < EACH; i++) value[i] += column < D ? weight * from[i] : 0.0f;
    }
    if (column >= D) return;
    float scale = sum > 0.0f ? shape.value_scale / sum : 0.0f;
#pragma unroll
    for (int i = 0; i < EACH; i += 2)
        *reinterpret_cast<uint32_t *>(out + row * D + column + i) =
            bf16_pair(value[i] * scale, value[i + 1] * scale);
}

// query bf16 [T, query_stride], of which the first H D are read; keys, values [num_blocks, G, block_size, D];
// query_start [S + 1], context_len [S], prefix_len [S], block_tables [S, table_stride]; out bf16 [T, H D]; sums f32
// [splits, T, H, D] and weights f32 [splits, T, H, 2] where there are several splits.
#define PAGED_DECODE(D, E, name)                                                                   \
    extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, 3) paged_decode_##D##_##name(     \
        const bf16 *query, const E *keys, const E *values, const uint32_t *query_start,            \
        const uint32_t *context_len, const uint32_t *block_tables, const uint32_t *prefix_len,     \
        bf16 *out, float *sums, float *weights, int num_tokens, PagedShape shape) {                \
        Paged paged{query, query_start, context_len, block_tables, out};                           \
        Partial partial{sums, weights, size_t(num_tokens) * shape.num_heads};                      \
        decode<E, D>(paged, keys, values, prefix_len, partial, shape);                             \
    }                                                                                              \
    EXPORT(paged_decode_##D##_##name)
#define PAGED_COMBINE(D)                                                                           \
    extern "C" __global__ void paged_combine_##D(const float *sums, const float *weights,          \
                                                 bf16 *out, int num_rows, PagedShape shape) {      \
        Partial partial{const_cast<float *>(sums), const_cast<float *>(weights),                   \
                        size_t(num_rows)};                                                         \
        combine<D>(partial, out, shape);                                                           \
    }                                                                                              \
    EXPORT(paged_combine_##D)

PAGED_DECODE(32, bf16, bf16)
PAGED_DECODE(64, bf16, bf16)
PAGED_DECODE(128, bf16, bf16)
PAGED_DECODE(32, uint8_t, bf16_e4m3)
PAGED_DECODE(64, uint8_t, bf16_e4m3)
PAGED_DECODE(128, uint8_t, bf16_e4m3)
PAGED_COMBINE(32)
PAGED_COMBINE(64)
PAGED_COMBINE(128)
