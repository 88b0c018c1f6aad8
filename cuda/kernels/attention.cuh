// What all attention kernels share: tiles of keys in shared memory, and softmax(Q K^T) V of the 16 rows that
// a warp keeps in registers, tile after tile ("online", Milakov and Gimelshein, arXiv 1805.02867; in this form
// FlashAttention-2, Dao, arXiv 2307.08691). Products are mma.m16n8k16 of bf16 with f32 sums.
#pragma once
#include "common.cuh"

constexpr float LOG2_E = 1.44269504f;
constexpr int NUM_WARPS = 4, BLOCK_THREADS = 32 * NUM_WARPS;

// 2^x in one instruction, to 22 bits; 0 for -inf (and where 2^x is no normal number).
__device__ __forceinline__ float fast_exp2(float x) {
#ifdef EMULATED
    return exp2f(x);
#else
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#endif
}

// Tiles in shared memory: rows of D values in pieces of 16 bytes, whose order depends on the row, so that
// the 8 rows that ldmatrix reads at once lie in different banks. 128 bytes are all banks; of D = 32 they hold
// two rows.
template <int D> __device__ __forceinline__ int place_of(int row, int piece) {
    static_assert(D == 32 || D % 64 == 0, "a row is half of all banks or all of them");
    return row * D + 8 * (piece ^ (D == 32 ? row / 2 & 3 : row & 7));
}
template <int D> __device__ __forceinline__ bf16 *piece_of(bf16 *tile, int row, int piece) {
    return tile + place_of<D>(row, piece);
}
template <int D>
__device__ __forceinline__ const bf16 *piece_of(const bf16 *tile, int row, int piece) {
    return tile + place_of<D>(row, piece);
}

// Left factors (16 rows of D values): lane l has rows l / 4 and l / 4 + 8, columns 2(l % 4), + 1, + 8, + 9 of
// each 16. Rows that are null are zero.
template <int D>
__device__ __forceinline__ void load_rows(uint32_t (&a)[D / 16][4], const bf16 *low,
                                          const bf16 *high) {
    int column = 2 * (threadIdx.x % 4);
#pragma unroll
    for (int k = 0; k < D / 16; k++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            int at = 16 * k + 8 * i + column;
            a[k][2 * i] = low ? *reinterpret_cast<const uint32_t *>(low + at) : 0;
            a[k][2 * i + 1] = high ? *reinterpret_cast<const uint32_t *>(high + at) : 0;
        }
}
// The same from rows `first` to `first` + 15 of a tile, columns 16k to 16k + 15.
template <int D>
__device__ __forceinline__ void load_left(uint32_t (&a)[4], const bf16 *tile, int first, int k) {
    int lane = threadIdx.x % 32;
    ldmatrix_x4(a, piece_of<D>(tile, first + lane % 16, 2 * k + lane / 16));
}
// Right factors of A B^T: b[0], b[1] for rows `first` to + 7 of B, b[2], b[3] for the next 8; columns 16k...
template <int D>
__device__ __forceinline__ void load_right(uint32_t (&b)[4], const bf16 *tile, int first, int k) {
    int lane = threadIdx.x % 32, matrix = lane / 8;
    int row = first + matrix / 2 * 8 + lane % 8;
    ldmatrix_x4(b, piece_of<D>(tile, row, 2 * k + matrix % 2));
}
// Right factors of A B: b[0], b[1] for columns 16j to 16j + 7 of B, b[2], b[3] for the next 8; 16 rows.
template <int D>
__device__ __forceinline__ void load_right_trans(uint32_t (&b)[4], const bf16 *tile, int first,
                                                 int j) {
    int lane = threadIdx.x % 32, matrix = lane / 8;
    int row = first + matrix % 2 * 8 + lane % 8;
    ldmatrix_x4_trans(b, piece_of<D>(tile, row, 2 * j + matrix / 2));
}

__device__ __forceinline__ void mma_two(float (&low)[4], float (&high)[4], const uint32_t (&a)[4],
                                        const uint32_t (&b)[4]) {
    uint32_t first[2] = {b[0], b[1]}, second[2] = {b[2], b[3]};
    mma_bf16_16816(low, a, first);
    mma_bf16_16816(high, a, second);
}

// Sums [16, N], as they come from a product, as left factors of the next one: columns 16n to 16n + 15.
template <int N>
__device__ __forceinline__ void as_left(uint32_t (&a)[4], const float (&sums)[N][4], int n) {
    a[0] = bf16_pair(sums[2 * n][0], sums[2 * n][1]);
    a[1] = bf16_pair(sums[2 * n][2], sums[2 * n][3]);
    a[2] = bf16_pair(sums[2 * n + 1][0], sums[2 * n + 1][1]);
    a[3] = bf16_pair(sums[2 * n + 1][2], sums[2 * n + 1][3]);
}

// out[16, D] += left[16, 16 N] tile[16 N, D], from row `first` of the tile on.
template <int D, int N>
__device__ __forceinline__ void add_product(float (&out)[D / 8][4], const float (&left)[N][4],
                                            const bf16 *tile, int first) {
#pragma unroll
    for (int n = 0; n < N / 2; n++) {
        uint32_t a[4];
        as_left(a, left, n);
#pragma unroll
        for (int j = 0; j < D / 16; j++) {
            uint32_t b[4];
            load_right_trans<D>(b, tile, first + 16 * n, j);
            mma_two(out[2 * j], out[2 * j + 1], a, b);
        }
    }
}

// What two rows of a lane may see: keys from `first` up to, without, `end`.
struct Window {
    int first[2], end[2];
};

// 16 query rows of a warp and what they have seen so far. Of everything kept by row, lane l has rows l / 4
// and l / 4 + 8; `sum` is of the lane's own columns until `finish`. Scores are in units of log 2.
template <int D> struct Rows {
    uint32_t query[D / 16][4];
    float out[D / 8][4];
    float max[2], sum[2];

    __device__ __forceinline__ void clear() {
#pragma unroll
        for (int j = 0; j < D / 8; j++)
#pragma unroll
            for (int i = 0; i < 4; i++) out[j][i] = 0.0f;
        max[0] = max[1] = -INFINITY;
        sum[0] = sum[1] = 0.0f;
    }

    // Rows that have seen nothing have maximum -inf and sum 0.
    __device__ __forceinline__ void finish() {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            sum[i] += __shfl_xor_sync(0xffffffffu, sum[i], 1);
            sum[i] += __shfl_xor_sync(0xffffffffu, sum[i], 2);
        }
    }
};

// -inf where row (lane / 4 + 8 i) does not see a key; the tile's first key is number `first_key`.
template <int N>
__device__ __forceinline__ void mask(float (&scores)[N][4], const Window &window, int first_key) {
    int column = first_key + 2 * (threadIdx.x % 4);
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int key = column + 8 * n + i % 2;
            bool sees = key >= window.first[i / 2] && key < window.end[i / 2];
            if (!sees) scores[n][i] = -INFINITY;
        }
}

// Scores to probabilities, of which the largest seen so far is 1; what was summed before is scaled down.
template <int D, int N>
__device__ __forceinline__ void soften(Rows<D> &rows, float (&scores)[N][4], float scale) {
#pragma unroll
    for (int i = 0; i < 2; i++) {
        float top = rows.max[i];
#pragma unroll
        for (int n = 0; n < N; n++)
            top = fmaxf(top, scale * fmaxf(scores[n][2 * i], scores[n][2 * i + 1]));
        top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 1));
        top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 2));
        // A row that has seen nothing yet: exp2(-inf - 0) is 0 where -inf - -inf is not a number.
        float base = top == -INFINITY ? 0.0f : top;
        float factor = fast_exp2(rows.max[i] - base);
        rows.max[i] = top;
        float sum = rows.sum[i] * factor;
#pragma unroll
        for (int n = 0; n < N; n++)
#pragma unroll
            for (int j = 2 * i; j < 2 * i + 2; j++) {
                scores[n][j] = fast_exp2(fmaf(scores[n][j], scale, -base));
                sum += scores[n][j];
            }
        rows.sum[i] = sum;
#pragma unroll
        for (int j = 0; j < D / 8; j++) {
            rows.out[j][2 * i] *= factor;
            rows.out[j][2 * i + 1] *= factor;
        }
    }
}

// scores[16, N*8] = rows A[16, D] times rows `first`... of a tile.
template <int D, int N>
__device__ __forceinline__ void scores_of(float (&scores)[N][4], const uint32_t (&a)[D / 16][4],
                                          const bf16 *tile, int first) {
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) scores[n][i] = 0.0f;
#pragma unroll
    for (int k = 0; k < D / 16; k++)
#pragma unroll
        for (int n = 0; n < N / 2; n++) {
            uint32_t b[4];
            load_right<D>(b, tile, first + 16 * n, k);
            mma_two(scores[2 * n], scores[2 * n + 1], a[k], b);
        }
}

// The rows see the 8 N keys of a tile. `scale`: of scores, log2(e) included, positive.
template <int D, int N>
__device__ __forceinline__ void attend(Rows<D> &rows, const bf16 *keys, const bf16 *values,
                                       const Window &window, int first_key, float scale) {
    float scores[N][4];
    scores_of<D, N>(scores, rows.query, keys, 0);
    int last_start = max(window.first[0], window.first[1]);
    bool all_see = first_key >= last_start && first_key + 8 * N <= min(window.end[0], window.end[1]);
    if (!all_see) mask(scores, window, first_key);
    soften<D, N>(rows, scores, scale);
    add_product<D, N>(rows.out, scores, values, 0);
}

// Lane's part of row i (0 or 1) as bf16: 4 bytes for every 8 columns.
template <int D>
__device__ __forceinline__ void store_row(bf16 *to, const float (&out)[D / 8][4], int i,
                                          float factor) {
    int column = 2 * (threadIdx.x % 4);
#pragma unroll
    for (int j = 0; j < D / 8; j++)
        *reinterpret_cast<uint32_t *>(to + 8 * j + column) =
            bf16_pair(out[j][2 * i] * factor, out[j][2 * i + 1] * factor);
}
