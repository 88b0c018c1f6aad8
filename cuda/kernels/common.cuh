// What every kernel begins with: the element type of products, and names for the instructions that
// CUDA C++ has no words for. The software GPU of the tests has the same names (emulator/cpp).
#pragma once
#ifdef EMULATED
#include "emulator.h"
#else
#include <cuda_bf16.h>
#include <cuda_fp8.h>
#include <stdint.h>

// Makes a kernel known to the software GPU.
#define EXPORT(kernel)
#define DYNAMIC_SHARED(name) extern __shared__ __align__(128) unsigned char name[]

// Copies 16 bytes into shared memory behind the thread's back; zeros where not valid.
__device__ __forceinline__ void cp_async_16(void *shared, const void *global, bool is_valid = true) {
    uint32_t to = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
    int num_bytes = is_valid ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(global),
                 "r"(num_bytes)
                 : "memory");
}
// The same of 4 bytes.
__device__ __forceinline__ void cp_async_4(void *shared, const void *global, bool is_valid = true) {
    uint32_t to = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
    int num_bytes = is_valid ? 4 : 0;
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(global),
                 "r"(num_bytes)
                 : "memory");
}
__device__ __forceinline__ void cp_async_commit() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}
// Waits until at most N of the thread's groups are under way. Others' copies need a barrier after it.
template <int N> __device__ __forceinline__ void cp_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

// 8x8 matrices of 16-bit values: lane l gives the address of row l % 8 of matrix l / 8 and gets
// elements 2(l % 4) and + 1 of row l / 4 (of column l / 4 where transposed).
__device__ __forceinline__ void ldmatrix_x4(uint32_t (&r)[4], const void *row) {
    uint32_t from = static_cast<uint32_t>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(from)
                 : "memory");
}
__device__ __forceinline__ void ldmatrix_x4_trans(uint32_t (&r)[4], const void *row) {
    uint32_t from = static_cast<uint32_t>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(from)
                 : "memory");
}
__device__ __forceinline__ void ldmatrix_x2(uint32_t (&r)[2], const void *row) {
    uint32_t from = static_cast<uint32_t>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(from)
                 : "memory");
}
__device__ __forceinline__ void ldmatrix_x2_trans(uint32_t (&r)[2], const void *row) {
    uint32_t from = static_cast<uint32_t>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(from)
                 : "memory");
}

// d[16x8] += a[16x16] b[16x8], f32 sums; fragments as in the PTX manual (mma.m16n8k16).
__device__ __forceinline__ void mma_bf16_16816(float (&d)[4], const uint32_t (&a)[4],
                                               const uint32_t (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// fp8 with 3 bits of mantissa; saturates at 448.
__device__ __forceinline__ uint8_t e4m3_from_float(float value) {
    return __nv_cvt_float_to_fp8(value, __NV_SATFINITE, __NV_E4M3);
}
__device__ __forceinline__ float float_from_e4m3(uint8_t bits) {
    return __half2float(__half(__nv_cvt_fp8_to_halfraw(bits, __NV_E4M3)));
}
#endif

typedef __nv_bfloat16 bf16;

// Two floats as the 32 bits of two bf16, the first in the lower half.
__device__ __forceinline__ uint32_t bf16_pair(float low, float high) {
    __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<uint32_t *>(&pair);
}
__device__ __forceinline__ float2 floats_from_pair(uint32_t bits) {
    return make_float2(__uint_as_float(bits << 16), __uint_as_float(bits & 0xffff0000u));
}

// 8 values at once: 16 bytes of bf16, 32 of f32. Addresses are multiples of that.
__device__ __forceinline__ void load8(const bf16 *from, float (&x)[8]) {
    uint4 bits = *reinterpret_cast<const uint4 *>(from);
    float2 a = floats_from_pair(bits.x), b = floats_from_pair(bits.y);
    float2 c = floats_from_pair(bits.z), d = floats_from_pair(bits.w);
    x[0] = a.x, x[1] = a.y, x[2] = b.x, x[3] = b.y, x[4] = c.x, x[5] = c.y, x[6] = d.x, x[7] = d.y;
}
__device__ __forceinline__ void load8(const float *from, float (&x)[8]) {
    float4 a = reinterpret_cast<const float4 *>(from)[0];
    float4 b = reinterpret_cast<const float4 *>(from)[1];
    x[0] = a.x, x[1] = a.y, x[2] = a.z, x[3] = a.w, x[4] = b.x, x[5] = b.y, x[6] = b.z, x[7] = b.w;
}
__device__ __forceinline__ void store8(bf16 *to, const float (&x)[8]) {
    *reinterpret_cast<uint4 *>(to) = make_uint4(bf16_pair(x[0], x[1]), bf16_pair(x[2], x[3]),
                                                bf16_pair(x[4], x[5]), bf16_pair(x[6], x[7]));
}
__device__ __forceinline__ void store8(float *to, const float (&x)[8]) {
    reinterpret_cast<float4 *>(to)[0] = make_float4(x[0], x[1], x[2], x[3]);
    reinterpret_cast<float4 *>(to)[1] = make_float4(x[4], x[5], x[6], x[7]);
}

// Sums and maxima over the 32 lanes; every lane gets the result.
__device__ __forceinline__ float warp_sum(float value) {
    for (int bits = 16; bits > 0; bits /= 2) value += __shfl_xor_sync(0xffffffffu, value, bits);
    return value;
}
__device__ __forceinline__ float warp_max(float value) {
    for (int bits = 16; bits > 0; bits /= 2)
        value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, bits));
    return value;
}
// The sum over a block of at most 1024 threads, a multiple of 32; every thread gets it. `scratch`: 33
// floats of shared memory, free again after the next barrier.
__device__ __forceinline__ float block_sum(float value, float *scratch) {
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, num_warps = blockDim.x / 32;
    value = warp_sum(value);
    if (lane == 0) scratch[warp] = value;
    __syncthreads();
    if (warp == 0) {
        value = warp_sum(lane < num_warps ? scratch[lane] : 0.0f);
        if (lane == 0) scratch[32] = value;
    }
    __syncthreads();
    return scratch[32];
}
