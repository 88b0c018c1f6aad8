// Causal attention over packed documents, forward, for training: a token sees those of its own document up to
// itself. Besides the result, log(sum(exp(scores))) of each row, from which the gradient has the probabilities
// back (FlashAttention-2, Dao, arXiv 2307.08691).
//
// A block has 64 rows of one head, 16 a warp, and goes through the keys from the first row's document on, 64
// at a time. Llama-3.2-3B, T = 8192 in documents of 300: 24 x 8192 x 150 x 512 = 15 GFLOP a layer, of which the diagonal
// tiles waste as much again; 100-150 us at 250 TFLOP/s. The layer's products are 6.6 TFLOP: this is 2 % of it.
// One document of 8192: 412 GFLOP, 1.6 ms. Reads: qkv 84 MB once from memory, keys again from L2. 3072 blocks.
#include "causal_attention.cuh"

// Grid (tiles of 64 tokens, H). qkv [T, (H + 2G) D]; starts [T]: where a token's document begins; out [T, H D];
// lse [H, T], natural logarithm.
template <int D>
__device__ __forceinline__ void forward(const bf16 *qkv, const uint32_t *starts, bf16 *out,
                                        float *lse, const CausalShape &shape) {
    DYNAMIC_SHARED(memory);
    constexpr int TILE = 64 * D;
    bf16 *tiles = reinterpret_cast<bf16 *>(memory);
    int head = blockIdx.y, key_head = head / (shape.num_heads / shape.num_groups);
    // The last tiles see most keys of one long document.
    int first = 64 * int(gridDim.x - 1 - blockIdx.x), warp = threadIdx.x / 32;
    size_t stride = size_t(shape.num_heads + 2 * shape.num_groups) * D;
    const bf16 *keys = qkv + size_t(shape.num_heads + key_head) * D;
    const bf16 *values = keys + size_t(shape.num_groups) * D;
    int row = first + 16 * warp + threadIdx.x % 32 / 4;
    int end = min(first + 64, shape.num_tokens), first_tile = int(starts[first]) / 64;

    Rows<D> rows;
    Window window;
    const bf16 *query[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
        int token = row + 8 * i;
        bool valid = token < shape.num_tokens;
        query[i] = valid ? qkv + token * stride + size_t(head) * D : nullptr;
        window.first[i] = valid ? int(starts[token]) : 0;
        window.end[i] = valid ? token + 1 : 0;
    }
    rows.clear();
    load_rows<D>(rows.query, query[0], query[1]);

    auto begin = [&](int tile) {
        bf16 *to = tiles + tile % 2 * 2 * TILE;
        if (64 * tile < end) {
            copy_rows<D>(to, keys, stride, 64 * tile, end);
            copy_rows<D>(to + TILE, values, stride, 64 * tile, end);
        }
        cp_async_commit();
    };
    begin(first_tile);
    for (int tile = first_tile; 64 * tile < end; tile++) {
        begin(tile + 1);
        cp_async_wait<1>();
        __syncthreads();
        const bf16 *stage = tiles + tile % 2 * 2 * TILE;
        attend<D, 8>(rows, stage, stage + TILE, window, 64 * tile, shape.scale);
        __syncthreads();
    }
    cp_async_wait<0>();
    rows.finish();
#pragma unroll
    for (int i = 0; i < 2; i++) {
        int token = row + 8 * i;
        if (token >= shape.num_tokens) continue;
        bf16 *to = out + (size_t(token) * shape.num_heads + head) * D;
        store_row<D>(to, rows.out, i, 1.0f / rows.sum[i]);
        if (threadIdx.x % 4 == 0)
            lse[size_t(head) * shape.num_tokens + token] =
                (rows.max[i] + log2f(rows.sum[i])) / LOG2_E;
    }
}

#define CAUSAL_FORWARD(D)                                                                          \
    extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, 2) causal_attention_##D(           \
        const bf16 *qkv, const uint32_t *starts, bf16 *out, float *lse, CausalShape shape) {       \
        forward<D>(qkv, starts, out, lse, shape);                                                  \
    }                                                                                              \
    EXPORT(causal_attention_##D)
CAUSAL_FORWARD(32)
CAUSAL_FORWARD(64)
CAUSAL_FORWARD(128)
