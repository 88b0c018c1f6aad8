// The gradient of `causal_attention` (FlashAttention-2's backward pass, Dao, arXiv 2307.08691), with P and dS
// computed from q, k, v and the forward pass's log(sum(exp)) instead of kept:
//   P = exp(scale q k^T - lse), dP = dO v^T, dS = P (dP - delta), delta = rowsum(dO out),
//   dV = P^T dO, dK = scale dS^T q, dQ = scale dS k.
// Two kernels without atomics: one block owns 64 keys of a group and goes through the queries (of all the
// group's heads, in order) that see them; one owns 64 queries of a head and goes through its keys. So every
// run sums in the same order. Both compute S and dP: 7 products where one kernel with atomics has 5.
//
// Llama-3.2-3B, T = 8192 in documents of 300: 3.5 times the forward pass's 15 GFLOP a layer, doubled by the
// diagonal, about 0.5 ms at 200 TFLOP/s beside about 25 ms of products. dK and dV: 1024 blocks of 96 KiB, two on an SM;
// a warp keeps [16, D] of both sums, 128 registers of its 255. S^T and dP^T come out of their products as the
// left factors of the next ones, so that nothing goes through shared memory but tiles of inputs.
#include "causal_attention.cuh"

struct Gradient {
    const bf16 *qkv, *dout;
    const float *lse, *delta; // [H, T]
    const uint32_t *starts;   // [T]
    bf16 *dqkv;
};

// delta [H, T] from dout and out [T, H D]: a warp for each token and head.
template <int D>
__device__ __forceinline__ void delta(const bf16 *dout, const bf16 *out, float *delta,
                                      const CausalShape &shape) {
    constexpr int EACH = D < 64 ? 2 : D / 32;
    int column = threadIdx.x % 32 * EACH;
    size_t row = size_t(blockIdx.x) * NUM_WARPS + threadIdx.x / 32;
    if (row >= size_t(shape.num_tokens) * shape.num_heads) return;
    size_t at = row * D + column;
    float sum = 0.0f;
    if (column < D)
#pragma unroll
        for (int i = 0; i < EACH; i += 2) {
            float2 a = floats_from_pair(*reinterpret_cast<const uint32_t *>(dout + at + i));
            float2 b = floats_from_pair(*reinterpret_cast<const uint32_t *>(out + at + i));
            sum += a.x * b.x + a.y * b.y;
        }
    sum = warp_sum(sum);
    size_t head = row % shape.num_heads, token = row / shape.num_heads;
    if (threadIdx.x % 32 == 0) delta[head * shape.num_tokens + token] = sum;
}

// Where the document that holds `token` ends: the first of `ends` beyond it.
__device__ __forceinline__ int end_of_document(const uint32_t *ends, int num_documents, int token) {
    int low = 0, high = num_documents - 1;
    while (low < high) {
        int middle = (low + high) / 2;
        if (int(ends[middle]) > token)
            high = middle;
        else
            low = middle + 1;
    }
    return int(ends[low]);
}

// [16, D] sums of a warp as rows `row`, + 8 of dqkv.
template <int D>
__device__ __forceinline__ void store_rows(bf16 *to, size_t stride, const float (&sums)[D / 8][4],
                                           int row, int num_tokens, float factor) {
#pragma unroll
    for (int i = 0; i < 2; i++)
        if (row + 8 * i < num_tokens)
            store_row<D>(to + size_t(row + 8 * i) * stride, sums, i, factor);
}
template <int D> __device__ __forceinline__ void set_zero(float (&sums)[D / 8][4]) {
#pragma unroll
    for (int j = 0; j < D / 8; j++)
#pragma unroll
        for (int i = 0; i < 4; i++) sums[j][i] = 0.0f;
}

// a[16, D] b^T, a's rows `first_a`..., b's `first_b`... of their tiles.
template <int D, int N>
__device__ __forceinline__ void product_of_tiles(float (&out)[N][4], const bf16 *a, int first_a,
                                                 const bf16 *b, int first_b) {
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) out[n][i] = 0.0f;
#pragma unroll
    for (int k = 0; k < D / 16; k++) {
        uint32_t left[4];
        load_left<D>(left, a, first_a, k);
#pragma unroll
        for (int n = 0; n < N / 2; n++) {
            uint32_t right[4];
            load_right<D>(right, b, first_b + 16 * n, k);
            mma_two(out[2 * n], out[2 * n + 1], left, right);
        }
    }
}

// What is known of 64 queries of a head: what the forward pass and `delta` left, and where the documents begin.
struct QueryFacts {
    float lse[64], delta[64];
    uint32_t start[64];

    // Begins to copy those from token `query` on; zeros from `end` on.
    __device__ __forceinline__ void begin(const Gradient &given, size_t head_row, int query, int end) {
        int i = threadIdx.x % 64;
        bool valid = query + i < end;
        size_t token = valid ? query + i : 0;
        if (threadIdx.x < 64) {
            cp_async_4(lse + i, given.lse + head_row + token, valid);
            cp_async_4(start + i, given.starts + token, valid);
        } else {
            cp_async_4(delta + i, given.delta + head_row + token, valid);
        }
    }
};

// What a warp knows of its 16 keys, and what 32 queries of a tile add to it.
template <int D> struct KeyRows {
    float dkeys[D / 8][4], dvalues[D / 8][4];

    // The queries are rows `first` to + 31 of their tile, tokens `query` to + 31 of those before `end`; the
    // lane's keys are tokens `key` and `key` + 8.
    __device__ __forceinline__ void add(const bf16 *keys, const bf16 *values, const bf16 *queries,
                                        const QueryFacts &facts, int first, int query, int end,
                                        int key, float scale) {
        constexpr int N = 4;
        int own = 16 * (threadIdx.x / 32), column = 2 * (threadIdx.x % 4);
        const bf16 *douts = queries + 64 * D;
        float p[N][4], ds[N][4];
        product_of_tiles<D, N>(p, keys, own, queries, first);
        product_of_tiles<D, N>(ds, values, own, douts, first);
#pragma unroll
        for (int n = 0; n < N; n++)
#pragma unroll
            for (int j = 0; j < 2; j++) {
                int at = 8 * n + column + j, token = query + at;
                float lse = facts.lse[first + at] * LOG2_E, delta = facts.delta[first + at];
                int start = int(facts.start[first + at]);
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    int own_key = key + 8 * i;
                    bool sees = own_key >= start && own_key <= token && token < end;
                    float &weight = p[n][2 * i + j], &gradient = ds[n][2 * i + j];
                    weight = sees ? fast_exp2(fmaf(weight, scale, -lse)) : 0.0f;
                    gradient = weight * (gradient - delta);
                }
            }
        add_product<D, N>(dvalues, p, douts, first);
        add_product<D, N>(dkeys, ds, queries, first);
    }
};

// Grid (tiles of 64 keys, G). ends [N]: where documents end.
template <int D>
__device__ __forceinline__ void key_gradient(const Gradient &given, const uint32_t *ends,
                                             int num_documents, const CausalShape &shape) {
    DYNAMIC_SHARED(memory);
    constexpr int TILE = 64 * D;
    bf16 *keys = reinterpret_cast<bf16 *>(memory), *values = keys + TILE, *tiles = values + TILE;
    QueryFacts *facts = reinterpret_cast<QueryFacts *>(tiles + 4 * TILE);
    int key_head = blockIdx.y, group = shape.num_heads / shape.num_groups;
    int first = 64 * blockIdx.x, last = min(first + 63, shape.num_tokens - 1);
    int end = end_of_document(ends, num_documents, last);
    int num_tiles = (end - first + 63) / 64, count = num_tiles * group;
    size_t stride = size_t(shape.num_heads + 2 * shape.num_groups) * D;
    size_t out_stride = size_t(shape.num_heads) * D;
    size_t key_column = size_t(shape.num_heads + key_head) * D;
    size_t value_column = key_column + size_t(shape.num_groups) * D;
    copy_rows<D>(keys, given.qkv + key_column, stride, first, shape.num_tokens);
    copy_rows<D>(values, given.qkv + value_column, stride, first, shape.num_tokens);

    auto begin = [&](int i) {
        if (i < count) {
            size_t column = size_t(key_head * group + i / num_tiles) * D;
            int query = first + i % num_tiles * 64;
            bf16 *to = tiles + i % 2 * 2 * TILE;
            copy_rows<D>(to, given.qkv + column, stride, query, end);
            copy_rows<D>(to + TILE, given.dout + column, out_stride, query, end);
            size_t head_row = size_t(key_head * group + i / num_tiles) * shape.num_tokens;
            facts[i % 2].begin(given, head_row, query, end);
        }
        cp_async_commit();
    };
    KeyRows<D> rows;
    set_zero<D>(rows.dkeys);
    set_zero<D>(rows.dvalues);
    int own_first = first + 16 * (threadIdx.x / 32), key = own_first + threadIdx.x % 32 / 4;
    begin(0);
    for (int i = 0; i < count; i++) {
        begin(i + 1);
        cp_async_wait<1>();
        __syncthreads();
        const bf16 *stage = tiles + i % 2 * 2 * TILE;
        int query = first + i % num_tiles * 64;
#pragma unroll 1
        for (int part = 0; part < 64; part += 32)
            // None of the warp's keys is seen by queries before them, nor from the document's end on.
            if (query + part + 31 >= own_first && query + part < end)
                rows.add(keys, values, stage, facts[i % 2], part, query + part, end, key,
                         shape.scale);
        __syncthreads();
    }
    cp_async_wait<0>();
    // Scores are scaled by shape.scale / log2(e).
    store_rows<D>(given.dqkv + key_column, stride, rows.dkeys, key, shape.num_tokens,
                  shape.scale / LOG2_E);
    store_rows<D>(given.dqkv + value_column, stride, rows.dvalues, key, shape.num_tokens, 1.0f);
}

// What a warp knows of its 16 queries: of a lane's two rows what the forward pass and `delta` left.
template <int D> struct QueryRows {
    float dquery[D / 8][4], lse[2], delta[2];
    Window window;

    // What 32 keys, rows `first`... of their tiles, the first of which is number `key`, add.
    __device__ __forceinline__ void add(const bf16 *queries, const bf16 *douts, const bf16 *keys,
                                        const bf16 *values, int first, int key, float scale) {
        constexpr int N = 4;
        int own = 16 * (threadIdx.x / 32);
        float p[N][4], ds[N][4];
        product_of_tiles<D, N>(p, queries, own, keys, first);
        product_of_tiles<D, N>(ds, douts, own, values, first);
        mask(p, window, key);
#pragma unroll
        for (int n = 0; n < N; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                float weight = fast_exp2(fmaf(p[n][i], scale, -lse[i / 2]));
                ds[n][i] = weight * (ds[n][i] - delta[i / 2]);
            }
        add_product<D, N>(dquery, ds, keys, first);
    }
};

// Grid (tiles of 64 queries, H).
template <int D>
__device__ __forceinline__ void query_gradient(const Gradient &given, const CausalShape &shape) {
    DYNAMIC_SHARED(memory);
    constexpr int TILE = 64 * D;
    bf16 *queries = reinterpret_cast<bf16 *>(memory), *douts = queries + TILE;
    bf16 *tiles = douts + TILE;
    int head = blockIdx.y, key_head = head / (shape.num_heads / shape.num_groups);
    int first = 64 * int(gridDim.x - 1 - blockIdx.x), end = min(first + 64, shape.num_tokens);
    size_t stride = size_t(shape.num_heads + 2 * shape.num_groups) * D, column = size_t(head) * D;
    const bf16 *keys = given.qkv + size_t(shape.num_heads + key_head) * D;
    const bf16 *values = keys + size_t(shape.num_groups) * D;
    copy_rows<D>(queries, given.qkv + column, stride, first, end);
    copy_rows<D>(douts, given.dout + column, size_t(shape.num_heads) * D, first, end);

    QueryRows<D> rows;
    set_zero<D>(rows.dquery);
    int own_end = first + 16 * (threadIdx.x / 32) + 16;
    int row = own_end - 16 + threadIdx.x % 32 / 4;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        int token = row + 8 * i;
        bool valid = token < shape.num_tokens;
        size_t at = size_t(head) * shape.num_tokens + (valid ? token : 0);
        rows.lse[i] = valid ? given.lse[at] * LOG2_E : 0.0f;
        rows.delta[i] = valid ? given.delta[at] : 0.0f;
        rows.window.first[i] = valid ? int(given.starts[token]) : 0;
        rows.window.end[i] = valid ? token + 1 : 0;
    }
    auto begin = [&](int tile) {
        if (64 * tile < end) {
            bf16 *to = tiles + tile % 2 * 2 * TILE;
            copy_rows<D>(to, keys, stride, 64 * tile, end);
            copy_rows<D>(to + TILE, values, stride, 64 * tile, end);
        }
        cp_async_commit();
    };
    int first_tile = int(given.starts[first]) / 64;
    begin(first_tile);
    for (int tile = first_tile; 64 * tile < end; tile++) {
        begin(tile + 1);
        cp_async_wait<1>();
        __syncthreads();
        const bf16 *stage = tiles + tile % 2 * 2 * TILE;
#pragma unroll 1
        for (int part = 0; part < 64; part += 32)
            // No query of the warp sees keys behind its last one.
            if (64 * tile + part < own_end)
                rows.add(queries, douts, stage, stage + TILE, part, 64 * tile + part, shape.scale);
        __syncthreads();
    }
    cp_async_wait<0>();
    store_rows<D>(given.dqkv + column, stride, rows.dquery, row, shape.num_tokens,
                  shape.scale / LOG2_E);
}

// qkv, dqkv bf16 [T, (H + 2G) D]; out, dout bf16 [T, H D]; lse, delta f32 [H, T]; starts [T]; ends [N].
#define CAUSAL_BACKWARD(D)                                                                         \
    extern "C" __global__ void causal_attention_delta_##D(const bf16 *dout, const bf16 *out,       \
                                                          float *to, CausalShape shape) {          \
        delta<D>(dout, out, to, shape);                                                            \
    }                                                                                              \
    EXPORT(causal_attention_delta_##D)                                                             \
    extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, 2) causal_attention_dkv_##D(       \
        const bf16 *qkv, const bf16 *dout, const float *lse, const float *deltas,                  \
        const uint32_t *starts, bf16 *dqkv, const uint32_t *ends, int num_documents,               \
        CausalShape shape) {                                                                       \
        Gradient given{qkv, dout, lse, deltas, starts, dqkv};                                      \
        key_gradient<D>(given, ends, num_documents, shape);                                        \
    }                                                                                              \
    EXPORT(causal_attention_dkv_##D)                                                               \
    extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, 2) causal_attention_dq_##D(        \
        const bf16 *qkv, const bf16 *dout, const float *lse, const float *deltas,                  \
        const uint32_t *starts, bf16 *dqkv, CausalShape shape) {                                   \
        Gradient given{qkv, dout, lse, deltas, starts, dqkv};                                      \
        query_gradient<D>(given, shape);                                                           \
    }                                                                                              \
    EXPORT(causal_attention_dq_##D)
CAUSAL_BACKWARD(32)
CAUSAL_BACKWARD(64)
CAUSAL_BACKWARD(128)
