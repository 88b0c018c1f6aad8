// What a kernel sees of CUDA C++, on the host: the words of the language, vector types, bf16 and fp8,
// the threads of a block as fibers, barriers, shuffles, atomics, and the warp-wide instructions that
// `kernels/common.cuh` wraps. Written for correctness, not for speed.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <tuple>
#include <utility>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __align__(n) __attribute__((aligned(n)))
#define __launch_bounds__(...)
#define __grid_constant__
// One block at a time runs on a thread of the host.
#define __shared__ static thread_local
#define __constant__ static

struct dim3 {
    unsigned x = 1, y = 1, z = 1;
    constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct uint3 {
    unsigned x, y, z;
};

namespace emulator {
// The fiber that runs, and its block.
struct Thread {
    uint3 index;
    unsigned linear, lane, warp;
};
struct Block {
    uint3 index;
    dim3 size, grid;
};
const Thread &this_thread();
const Block &this_block();
unsigned char *dynamic_shared();

// Returns when all threads of the block, or of `mask` in the warp, have come here.
void block_barrier();
void warp_barrier(unsigned mask);
// 128 bytes for each lane of this thread's warp, to exchange values in.
unsigned char *lane_box(unsigned lane);

// `sum` over the block of each thread's `value`.
int block_sum(int value);

// cp.async: a copy is made when its group is waited for, not before.
void async_copy(void *shared, const void *global, int size, int num_bytes);
void async_commit();
void async_wait(int num_groups_left);

// A kernel by name, and how to call it.
using Call = std::function<void()>;
using Bind = std::function<Call(void **)>;
void add_kernel(const char *name, Bind bind);

template <class... A, size_t... I>
Call bind_arguments(void (*kernel)(A...), void **values, std::index_sequence<I...>) {
    auto arguments = std::make_tuple(*static_cast<std::decay_t<A> *>(values[I])...);
    return [kernel, arguments] { std::apply(kernel, arguments); };
}
template <class... A> int add(const char *name, void (*kernel)(A...)) {
    add_kernel(name, [kernel](void **values) {
        return bind_arguments(kernel, values, std::index_sequence_for<A...>());
    });
    return 0;
}

template <class T> T exchange(unsigned mask, T value, unsigned from) {
    static_assert(sizeof(T) <= 16, "one register at a time");
    memcpy(lane_box(this_thread().lane), &value, sizeof(T));
    warp_barrier(mask);
    T got = value;
    if (from < 32 && (mask >> from & 1)) memcpy(&got, lane_box(from), sizeof(T));
    warp_barrier(mask);
    return got;
}
} // namespace emulator

#define threadIdx (emulator::this_thread().index)
#define blockIdx (emulator::this_block().index)
#define blockDim (emulator::this_block().size)
#define gridDim (emulator::this_block().grid)
static constexpr int warpSize = 32;

#define DYNAMIC_SHARED(name) unsigned char *name = emulator::dynamic_shared()
#define EXPORT(kernel) static const int exported_##kernel = emulator::add(#kernel, kernel);

// --- vectors ---
#define VECTOR(T, name)                                                                            \
    struct alignas(2 * sizeof(T)) name##2 { T x, y; };                                             \
    struct name##3 { T x, y, z; };                                                                 \
    struct alignas(sizeof(T) * 4 > 16 ? 16 : sizeof(T) * 4) name##4 { T x, y, z, w; };             \
    inline name##2 make_##name##2(T x, T y) { return {x, y}; }                                     \
    inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
VECTOR(float, float)
VECTOR(int, int)
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
struct alignas(4) uchar4 { unsigned char x, y, z, w; };
struct alignas(16) double2 { double x, y; };

// --- barriers, shuffles, votes ---
inline void __syncthreads() { emulator::block_barrier(); }
inline int __syncthreads_count(int p) { return emulator::block_sum(p != 0); }
inline int __syncthreads_or(int p) { return emulator::block_sum(p != 0) != 0; }
inline int __syncthreads_and(int p) { return emulator::block_sum(p == 0) == 0; }
inline void __syncwarp(unsigned mask = 0xffffffffu) { emulator::warp_barrier(mask); }
inline void __threadfence() {}
inline void __threadfence_block() {}

template <class T> T __shfl_sync(unsigned mask, T v, int lane, int width = 32) {
    unsigned self = emulator::this_thread().lane;
    return emulator::exchange(mask, v, (self & ~(width - 1)) + (lane & (width - 1)));
}
template <class T> T __shfl_xor_sync(unsigned mask, T v, int bits, int width = 32) {
    unsigned self = emulator::this_thread().lane, from = self ^ bits;
    return emulator::exchange(mask, v, (from & ~(width - 1)) == (self & ~(width - 1)) ? from : self);
}
template <class T> T __shfl_down_sync(unsigned mask, T v, unsigned by, int width = 32) {
    unsigned self = emulator::this_thread().lane, from = self + by;
    return emulator::exchange(mask, v, from / width == self / width ? from : self);
}
template <class T> T __shfl_up_sync(unsigned mask, T v, unsigned by, int width = 32) {
    unsigned self = emulator::this_thread().lane;
    return emulator::exchange(mask, v, self % width >= by ? self - by : self);
}
inline unsigned __ballot_sync(unsigned mask, int predicate) {
    unsigned votes = 0;
    for (unsigned lane = 0; lane < 32; lane++) {
        int vote = emulator::exchange(mask, int(predicate != 0), lane);
        if (mask >> lane & 1) votes |= unsigned(vote) << lane;
    }
    return votes;
}
inline int __any_sync(unsigned mask, int p) { return __ballot_sync(mask, p) != 0; }
inline int __all_sync(unsigned mask, int p) { return __ballot_sync(mask, p) == mask; }
inline unsigned __activemask() { return 0xffffffffu; }

// --- atomics ---
template <class T, class F> T atomic_update(T *at, F next) {
    T old;
    __atomic_load(at, &old, __ATOMIC_SEQ_CST);
    for (;;) {
        T wanted = next(old);
        if (__atomic_compare_exchange(at, &old, &wanted, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
            return old;
    }
}
template <class T> T atomicAdd(T *at, T v) {
    return atomic_update(at, [v](T old) { return T(old + v); });
}
template <class T> T atomicMax(T *at, T v) {
    return atomic_update(at, [v](T old) { return old > v ? old : v; });
}
template <class T> T atomicMin(T *at, T v) {
    return atomic_update(at, [v](T old) { return old < v ? old : v; });
}
template <class T> T atomicOr(T *at, T v) {
    return atomic_update(at, [v](T old) { return T(old | v); });
}
template <class T> T atomicAnd(T *at, T v) {
    return atomic_update(at, [v](T old) { return T(old & v); });
}
template <class T> T atomicExch(T *at, T v) {
    return atomic_update(at, [v](T) { return v; });
}
template <class T> T atomicCAS(T *at, T expected, T v) {
    return atomic_update(at, [=](T old) { return old == expected ? v : old; });
}

// --- arithmetic ---
using std::isfinite;
using std::isinf;
using std::isnan;
template <class T> T max(T a, T b) { return a > b ? a : b; }
template <class T> T min(T a, T b) { return a < b ? a : b; }
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline float __expf(float x) { return expf(x); }
inline float __logf(float x) { return logf(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float a) { return sqrtf(a); }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline int __float2int_rn(float x) { return int(nearbyintf(x)); }
inline float __int2float_rn(int x) { return float(x); }
template <class To, class From> To emulated_bits(From from) {
    static_assert(sizeof(To) == sizeof(From), "the same bits");
    To to;
    memcpy(&to, &from, sizeof(To));
    return to;
}
inline unsigned __float_as_uint(float x) { return emulated_bits<unsigned>(x); }
inline int __float_as_int(float x) { return emulated_bits<int>(x); }
inline float __uint_as_float(unsigned x) { return emulated_bits<float>(x); }
inline float __int_as_float(int x) { return emulated_bits<float>(x); }
inline unsigned __byte_perm(unsigned low, unsigned high, unsigned places) {
    unsigned long long bytes = (unsigned long long)high << 32 | low, out = 0;
    for (int i = 0; i < 4; i++) out |= (bytes >> (8 * (places >> (4 * i) & 7)) & 0xff) << (8 * i);
    return unsigned(out);
}
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __clz(int x) { return x ? __builtin_clz(unsigned(x)) : 32; }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned long long)((unsigned __int128)a * b >> 64);
}
template <class T> T __ldg(const T *at) { return *at; }

// --- bf16 ---
struct __nv_bfloat16 {
    uint16_t bits;
};
struct alignas(4) __nv_bfloat162 {
    __nv_bfloat16 x, y;
};
inline __nv_bfloat16 __float2bfloat16_rn(float value) {
    uint32_t bits = __float_as_uint(value);
    if (std::isnan(value)) return {uint16_t(bits >> 16 | 0x40)};
    return {uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}
inline __nv_bfloat16 __float2bfloat16(float value) { return __float2bfloat16_rn(value); }
inline float __bfloat162float(__nv_bfloat16 v) { return __uint_as_float(uint32_t(v.bits) << 16); }
inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y) {
    return {__float2bfloat16_rn(x), __float2bfloat16_rn(y)};
}
inline float2 __bfloat1622float2(__nv_bfloat162 v) {
    return {__bfloat162float(v.x), __bfloat162float(v.y)};
}
inline float __low2float(__nv_bfloat162 v) { return __bfloat162float(v.x); }
inline float __high2float(__nv_bfloat162 v) { return __bfloat162float(v.y); }
inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 v) { return v.bits; }
inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short bits) { return {bits}; }

// --- what `common.cuh` wraps: cp.async, ldmatrix, mma, fp8 ---
inline void cp_async_16(void *shared, const void *global, bool is_valid = true) {
    emulator::async_copy(shared, global, 16, is_valid ? 16 : 0);
}
inline void cp_async_4(void *shared, const void *global, bool is_valid = true) {
    emulator::async_copy(shared, global, 4, is_valid ? 4 : 0);
}
inline void cp_async_commit() { emulator::async_commit(); }
template <int N> void cp_async_wait() { emulator::async_wait(N); }

// Lane l gives the address of row l % 8 of matrix l / 8 and gets elements 2(l % 4), + 1 of row l / 4.
template <int N, bool TRANSPOSED> void emulated_ldmatrix(uint32_t *out, const void *row) {
    unsigned lane = emulator::this_thread().lane;
    if (uintptr_t(row) % 16 != 0) {
        fprintf(stderr, "emulated GPU: ldmatrix row at an address that 16 does not divide\n");
        abort();
    }
    memcpy(emulator::lane_box(lane), &row, sizeof(row));
    emulator::warp_barrier(0xffffffffu);
    for (int matrix = 0; matrix < N; matrix++) {
        uint16_t pair[2];
        for (int i = 0; i < 2; i++) {
            unsigned r = lane / 4, c = 2 * (lane % 4) + i;
            if (TRANSPOSED) std::swap(r, c);
            const uint16_t *from;
            memcpy(&from, emulator::lane_box(8 * matrix + r), sizeof(from));
            pair[i] = from[c];
        }
        memcpy(&out[matrix], pair, 4);
    }
    emulator::warp_barrier(0xffffffffu);
}
inline void ldmatrix_x4(uint32_t (&r)[4], const void *row) { emulated_ldmatrix<4, false>(r, row); }
inline void ldmatrix_x2(uint32_t (&r)[2], const void *row) { emulated_ldmatrix<2, false>(r, row); }
inline void ldmatrix_x4_trans(uint32_t (&r)[4], const void *row) {
    emulated_ldmatrix<4, true>(r, row);
}
inline void ldmatrix_x2_trans(uint32_t (&r)[2], const void *row) {
    emulated_ldmatrix<2, true>(r, row);
}

// d[16x8] += a[16x16] b[16x8]; the fragments are those of mma.m16n8k16 in the PTX manual.
inline void mma_bf16_16816(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    struct Box {
        uint16_t a[8], b[4];
    } box;
    memcpy(box.a, a, 16);
    memcpy(box.b, b, 8);
    unsigned lane = emulator::this_thread().lane;
    memcpy(emulator::lane_box(lane), &box, sizeof(box));
    emulator::warp_barrier(0xffffffffu);
    auto boxed = [](unsigned lane) { return reinterpret_cast<Box *>(emulator::lane_box(lane)); };
    auto value = [](uint16_t bits) { return __uint_as_float(uint32_t(bits) << 16); };
    for (int i = 0; i < 4; i++) {
        unsigned row = lane / 4 + 8 * (i / 2), col = 2 * (lane % 4) + i % 2;
        float sum = 0;
        for (unsigned k = 0; k < 16; k++) {
            unsigned a_lane = row % 8 * 4 + k % 8 / 2, a_at = k % 2 + 2 * (row / 8) + 4 * (k / 8);
            unsigned b_lane = col * 4 + k % 8 / 2, b_at = k % 2 + 2 * (k / 8);
            sum += value(boxed(a_lane)->a[a_at]) * value(boxed(b_lane)->b[b_at]);
        }
        d[i] += sum;
    }
    emulator::warp_barrier(0xffffffffu);
}

// e4m3: 4 bits of exponent (bias 7), 3 of mantissa, no infinities, 0x7f is NaN; saturates at 448.
inline float float_from_e4m3(uint8_t bits) {
    int exponent = bits >> 3 & 15, mantissa = bits & 7;
    float value = exponent == 0 ? ldexpf(float(mantissa), -9)
                                : ldexpf(float(8 + mantissa), exponent - 10);
    if ((bits & 0x7f) == 0x7f) value = NAN;
    return bits & 0x80 ? -value : value;
}
inline uint8_t e4m3_from_float(float value) {
    if (std::isnan(value)) return 0x7f;
    uint8_t sign = std::signbit(value) ? 0x80 : 0;
    float magnitude = fabsf(value);
    if (magnitude >= 448.0f) return sign | 0x7e;
    int exponent;
    frexpf(magnitude, &exponent);
    exponent = exponent - 1 < -6 ? -6 : exponent - 1;
    // Units of the last place, to nearest even.
    int units = int(nearbyintf(ldexpf(magnitude, 3 - exponent)));
    if (units == 16) units = 8, exponent += 1;
    if (units < 8) return sign | uint8_t(units);
    return sign | uint8_t((exponent + 7) << 3 | (units - 8));
}
