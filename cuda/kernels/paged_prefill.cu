// Attention of chunks of prompts (any number of new tokens a sequence) over cached keys and values, the new
// ones among them. 64 packed rows of one group a block, 16 a warp; keys and values, 64 at a time, are shared
// by the warps. Packing the heads of a group rather than a head's tokens reads keys a third as often, and leaves
// fewer rows of a short chunk empty.
//
// 4 D FLOPs a row and key: 2048 new tokens of Llama-3.2-3B, 24 x 2048^2 / 2 x 512 = 26 GFLOP a layer, 65 us at 400
// TFLOP/s, about what mma.sync reaches in attention on an H100. 64 rows x 64 keys read 32 KiB of L2 for 2.1
// MFLOP: 6 TB/s at that rate, about all that L2 gives, so that 40-60 % of it (250 TFLOP/s) is expected. Prompts
// of 300 tokens: 1 % of the products' time.
#include "paged_attention.cuh"

template <class E, int D> struct Prefill {
    static constexpr int KEYS = 64;
    using Part = Tile<E, D, KEYS, BLOCK_THREADS>;
    static constexpr int STAGE_BYTES = 2 * Part::BYTES;

    Cached<E, D> cache;
    unsigned char *memory;

    __device__ __forceinline__ void begin(int tile, int stage) const {
#pragma unroll
        for (int part = 0; part < KEYS / 16; part++) {
            // Beyond the context the table has no entry, and block 0 stands for none.
            int first = KEYS * tile + 16 * part;
            uint32_t block = first < cache.context ? cache.table[first / cache.block_size] : 0;
            cache.template begin<Part, BLOCK_THREADS>(memory + stage * STAGE_BYTES, 16 * part, first,
                                                      block, threadIdx.x);
        }
    }

    // Tiles `first` up to, without, `end`; the warp's rows see no keys from `warp_end` on.
    __device__ __forceinline__ void run(Rows<D> &rows, const Window &window, int first, int end,
                                        int warp_end, float scale) const {
        unsigned char *extra = memory + 2 * STAGE_BYTES;
        if (first < end) begin(first, first % 2);
        cp_async_commit();
        for (int tile = first; tile < end; tile++) {
            if (tile + 1 < end) begin(tile + 1, (tile + 1) % 2);
            cp_async_commit();
            cp_async_wait<1>();
            __syncthreads();
            const unsigned char *stage = memory + tile % 2 * STAGE_BYTES;
            const bf16 *k = Part::read(stage, extra, threadIdx.x);
            const bf16 *v = Part::read(stage + Part::BYTES, extra + Part::EXTRA_BYTES, threadIdx.x);
            if (Part::EXTRA_BYTES > 0) __syncthreads();
            if (KEYS * tile < warp_end)
                attend<D, KEYS / 8>(rows, k, v, window, KEYS * tile, scale);
            __syncthreads();
        }
        cp_async_wait<0>();
    }
};

// Grid (entries of the work list, G). `work`: pairs of a sequence and a tile of 64 of its rows; sequence
// 2^32 - 1 for an entry of padding.
template <class E, int D>
__device__ __forceinline__ void prefill(const Paged &paged, const E *keys, const E *values,
                                        const uint32_t *work, const PagedShape &shape) {
    DYNAMIC_SHARED(memory);
    int sequence = int(work[2 * blockIdx.x]), key_head = blockIdx.y, warp = threadIdx.x / 32;
    if (sequence < 0) return;
    Packed packed(paged, shape, sequence, key_head);
    int first_row = 16 * NUM_WARPS * int(work[2 * blockIdx.x + 1]);
    int last_row = min(first_row + 16 * NUM_WARPS, packed.num_rows()) - 1;
    if (last_row < first_row) return;
    int own_first = first_row + 16 * warp, own_last = min(own_first + 15, last_row);
    Prefill<E, D> tiles{cached<E, D>(keys, values, paged, shape, sequence), memory};
    Rows<D> rows;
    Window window;
    open_rows(rows, window, paged, shape, packed, own_first);
    int num_tiles = (packed.num_keys(last_row) + 63) / 64;
    tiles.run(rows, window, 0, num_tiles,
              own_first <= own_last ? packed.num_keys(own_last) : 0, shape.scale);
    rows.finish();
#pragma unroll
    for (int i = 0; i < 2; i++) {
        int row = own_first + threadIdx.x % 32 / 4 + 8 * i;
        if (row > last_row) continue;
        size_t to = size_t(packed.token(row)) * shape.num_heads + packed.head_of(row);
        float factor = rows.sum[i] > 0.0f ? shape.value_scale / rows.sum[i] : 0.0f;
        store_row<D>(paged.out + to * D, rows.out, i, factor);
    }
}

// What tokens of several sequences see of the prefix that these have in common, which is read once for 64 rows:
// 21 sequences of Llama-3.2-3B, whose keys decode would read 21 times. 256 sequences, 1000 tokens in common, 200 of
// their own: 210 MB a layer and 13 x 4 MB of prefix from L2, where decode alone reads 1.26 GB.
//
// Grid (entries, G, prefix splits). `work`, of each entry: where its tokens begin in `members`, their number (at
// most 64 rows), a sequence whose table has the prefix, its length; number 0 for an entry of padding.
template <class E, int D>
__device__ __forceinline__ void prefix(const Paged &paged, const E *keys, const E *values,
                                       const uint32_t *work, const uint32_t *members,
                                       Partial partial, const PagedShape &shape) {
    DYNAMIC_SHARED(memory);
    const uint32_t *entry = work + 4 * blockIdx.x;
    int group = shape.num_heads / shape.num_groups, num_rows = int(entry[1]) * group;
    if (num_rows == 0) return;
    members += entry[0];
    int length = int(entry[3]), num_tiles = (length + 63) / 64;
    Prefill<E, D> tiles{cached<E, D>(keys, values, paged, shape, int(entry[2])), memory};
    tiles.cache.context = length;
    int own = 16 * (threadIdx.x / 32) + threadIdx.x % 32 / 4;
    size_t to[2];
    const bf16 *query[2];
    Window window;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        int row = own + 8 * i;
        bool valid = row < num_rows;
        size_t token = valid ? members[row / group] : 0;
        size_t head = blockIdx.y * group + row % group;
        query[i] = valid ? paged.query + token * shape.query_stride + head * D : nullptr;
        to[i] = token * shape.num_heads + head;
        window.first[i] = 0;
        window.end[i] = valid ? length : 0;
    }
    Rows<D> rows;
    rows.clear();
    load_rows<D>(rows.query, query[0], query[1]);
    int share = (num_tiles + shape.num_prefix_splits - 1) / shape.num_prefix_splits;
    int first = blockIdx.z * share, end = min(first + share, num_tiles);
    tiles.run(rows, window, first, end, own / 16 * 16 < num_rows ? length : 0, shape.scale);
    rows.finish();
#pragma unroll
    for (int i = 0; i < 2; i++) {
        if (!query[i]) continue;
        size_t index = partial.index(shape.num_splits + blockIdx.z, to[i]);
        float *sums = partial.sums + index * D + 2 * (threadIdx.x % 4);
#pragma unroll
        for (int j = 0; j < D / 8; j++)
            *reinterpret_cast<float2 *>(sums + 8 * j) =
                make_float2(rows.out[j][2 * i], rows.out[j][2 * i + 1]);
        if (threadIdx.x % 4 > 0) continue;
        partial.weights[2 * index] = rows.max[i];
        partial.weights[2 * index + 1] = rows.sum[i];
    }
}

// query bf16 [T, query_stride], of which the first H D are read; keys, values [num_blocks, G, block_size, D];
// query_start [S + 1], context_len [S], block_tables [S, table_stride]; out bf16 [T, H D].
#define PAGED_PREFILL(D, E, name)                                                                  \
    extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, 2) paged_prefill_##D##_##name(    \
        const bf16 *query, const E *keys, const E *values, const uint32_t *query_start,            \
        const uint32_t *context_len, const uint32_t *block_tables, bf16 *out,                      \
        const uint32_t *work, PagedShape shape) {                                                  \
        Paged paged{query, query_start, context_len, block_tables, out};                           \
        prefill<E, D>(paged, keys, values, work, shape);                                           \
    }                                                                                              \
    EXPORT(paged_prefill_##D##_##name)                                                             \
    extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, 2) paged_prefix_##D##_##name(     \
        const bf16 *query, const E *keys, const E *values, const uint32_t *context_len,            \
        const uint32_t *block_tables, const uint32_t *work, const uint32_t *members, float *sums,  \
        float *weights, int num_tokens, PagedShape shape) {                                        \
        Paged paged{query, nullptr, context_len, block_tables, nullptr};                           \
        Partial partial{sums, weights, size_t(num_tokens) * shape.num_heads};                      \
        prefix<E, D>(paged, keys, values, work, members, partial, shape);                          \
    }                                                                                              \
    EXPORT(paged_prefix_##D##_##name)

PAGED_PREFILL(32, bf16, bf16)
PAGED_PREFILL(64, bf16, bf16)
PAGED_PREFILL(128, bf16, bf16)
PAGED_PREFILL(32, uint8_t, bf16_e4m3)
PAGED_PREFILL(64, uint8_t, bf16_e4m3)
PAGED_PREFILL(128, uint8_t, bf16_e4m3)
