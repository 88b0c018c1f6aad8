// What the forward and the backward pass of training's attention share.
#pragma once
#include "attention.cuh"

struct CausalShape {
    int num_tokens, num_heads, num_groups;
    float scale; // of scores, log2(e) included
};

// Rows `first` to + 63 of a matrix [num_rows, D] of row stride `stride`, into a tile; beyond it zeros.
template <int D>
__device__ __forceinline__ void copy_rows(bf16 *tile, const bf16 *from, size_t stride, int first,
                                          int num_rows) {
#pragma unroll
    for (int i = threadIdx.x; i < 64 * D / 8; i += BLOCK_THREADS) {
        int row = i / (D / 8), piece = i % (D / 8);
        bool valid = first + row < num_rows;
        const bf16 *at = from + (valid ? first + row : 0) * stride + 8 * piece;
        cp_async_16(piece_of<D>(tile, row, piece), at, valid);
    }
}
