// What decode and prefill share: the shapes, a sequence's packed rows, tiles of the cache.
//
// The heads of a group (3 for Llama-3.2-3B) read the same keys, so their rows are packed: row r of a sequence
// is token r / group, head r % group; a warp holds 16 rows.
#pragma once
#include "attention.cuh"

struct PagedShape {
    int num_heads, num_groups, query_stride, table_stride, block_size;
    // Shares of a sequence's own keys, and of a prefix that it has in common with others (0: nobody has one).
    int num_splits, num_prefix_splits;
    // Of scores, log2(e) and the keys' scale included; of values.
    float scale, value_scale;
};
template <class T> struct PagedOf {
    const T *query;
    const uint32_t *query_start, *context_len, *block_tables;
    T *out;
};
typedef PagedOf<bf16> Paged;

// A sequence's rows of one group.
struct Packed {
    int first_token, num_tokens, context, group, head;

    template <class T>
    __device__ __forceinline__ Packed(const PagedOf<T> &paged, const PagedShape &shape, int sequence,
                                      int key_head) {
        first_token = int(paged.query_start[sequence]);
        num_tokens = int(paged.query_start[sequence + 1]) - first_token;
        context = int(paged.context_len[sequence]);
        group = shape.num_heads / shape.num_groups;
        head = key_head * group;
    }
    __device__ __forceinline__ int num_rows() const { return num_tokens * group; }
    __device__ __forceinline__ int token(int row) const { return first_token + row / group; }
    // How many keys the row sees: the last token sees all, the one before it one less.
    __device__ __forceinline__ int num_keys(int row) const {
        return row < num_rows() ? max(0, context - num_tokens + row / group + 1) : 0;
    }
    __device__ __forceinline__ size_t head_of(int row) const { return head + row % group; }
};

// The 16 rows of this lane's warp, from packed row `first` on; their queries and what they see.
template <int D>
__device__ __forceinline__ void open_rows(Rows<D> &rows, Window &window, const Paged &paged,
                                          const PagedShape &shape, const Packed &packed, int first) {
    const bf16 *query[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
        int row = first + threadIdx.x % 32 / 4 + 8 * i;
        size_t at = size_t(packed.token(row)) * shape.query_stride + packed.head_of(row) * D;
        query[i] = row < packed.num_rows() ? paged.query + at : nullptr;
        window.first[i] = 0;
        window.end[i] = packed.num_keys(row);
    }
    rows.clear();
    load_rows<D>(rows.query, query[0], query[1]);
}

// Exactly: e4m3 in the upper bits of an f32 has the exponent's bias of f32. (Its NaN, which is written for NaN
// alone, is read as 480: the token that wrote it has NaN in its own residual stream.)
__device__ __forceinline__ float float_of_bits(uint32_t bits) {
    return __uint_as_float((bits & 0x80) << 24 | (bits & 0x7f) << 20) * 0x1p120f;
}
// 16 values of e4m3 as two pieces of bf16, which hold them exactly.
template <int D>
__device__ __forceinline__ void widen(bf16 *tile, int row, int pair, uint4 from) {
    uint32_t words[4] = {from.x, from.y, from.z, from.w}, out[8];
#pragma unroll
    for (int i = 0; i < 8; i++) {
        uint32_t two = words[i / 2] >> (16 * (i % 2));
        out[i] = bf16_pair(float_of_bits(two & 0xff), float_of_bits(two >> 8 & 0xff));
    }
    *reinterpret_cast<uint4 *>(piece_of<D>(tile, row, 2 * pair)) =
        make_uint4(out[0], out[1], out[2], out[3]);
    *reinterpret_cast<uint4 *>(piece_of<D>(tile, row, 2 * pair + 1)) =
        make_uint4(out[4], out[5], out[6], out[7]);
}

// How KEYS rows of the cache come into shared memory, and how they are read there. bf16 is used as it comes.
template <class E, int D, int KEYS, int THREADS> struct Tile {
    static constexpr int PIECES = D / 8, BYTES = KEYS * D * 2, EXTRA_BYTES = 0;
    __device__ static void copy(unsigned char *to, const E *row, int key, int piece, bool valid) {
        cp_async_16(piece_of<D>(reinterpret_cast<bf16 *>(to), key, piece), row + 8 * piece, valid);
    }
    __device__ static const bf16 *read(const unsigned char *stage, unsigned char *, int) {
        return reinterpret_cast<const bf16 *>(stage);
    }
};
// e4m3 is widened into a tile of its own; all threads must have come before and meet after.
template <int D, int KEYS, int THREADS> struct Tile<uint8_t, D, KEYS, THREADS> {
    static constexpr int PIECES = D / 16, BYTES = KEYS * D, EXTRA_BYTES = KEYS * D * 2;
    __device__ static void copy(unsigned char *to, const uint8_t *row, int key, int piece,
                                bool valid) {
        cp_async_16(to + key * D + 16 * piece, row + 16 * piece, valid);
    }
    __device__ static const bf16 *read(const unsigned char *stage, unsigned char *extra, int thread) {
        bf16 *tile = reinterpret_cast<bf16 *>(extra);
#pragma unroll
        for (int at = thread; at < KEYS * PIECES; at += THREADS)
            widen<D>(tile, at / PIECES, at % PIECES, reinterpret_cast<const uint4 *>(stage)[at]);
        return tile;
    }
};

// One head's keys and values of a sequence.
template <class E, int D> struct Cached {
    const E *keys, *values;
    const uint32_t *table;
    int block_size, num_groups, key_head, context;

    // Begins to copy the 16 keys from position `first` on, a multiple of 16 below the context, which lie in
    // `block`; to rows `row`... of a tile of keys and, behind it, one of values.
    template <class Part, int THREADS>
    __device__ __forceinline__ void begin(unsigned char *to, int row, int first, uint32_t block,
                                          int thread) const {
        size_t at = (size_t(block) * num_groups + key_head) * block_size + first % block_size;
#pragma unroll
        for (int i = thread; i < 16 * Part::PIECES; i += THREADS) {
            int key = i / Part::PIECES, piece = i % Part::PIECES;
            // What lies beyond the context may not be a number, and 0 times that is none either.
            bool valid = first + key < context;
            Part::copy(to, keys + (at + key) * D, row + key, piece, valid);
            Part::copy(to + Part::BYTES, values + (at + key) * D, row + key, piece, valid);
        }
    }
};
template <class E, int D>
__device__ __forceinline__ Cached<E, D> cached(const E *keys, const E *values, const Paged &paged,
                                               const PagedShape &shape, int sequence) {
    const uint32_t *table = paged.block_tables + size_t(sequence) * shape.table_stride;
    int context = int(paged.context_len[sequence]), key_head = int(blockIdx.y);
    return {keys, values, table, shape.block_size, shape.num_groups, key_head, context};
}

// Where the sums of a share of the keys go: of a row, its D sums and, apart, its maximum and sum. First a
// sequence's own shares, then those of the prefix.
struct Partial {
    float *sums, *weights;
    size_t num_rows; // T H
    __device__ __forceinline__ size_t index(int split, size_t row) const {
        return split * num_rows + row;
    }
};
