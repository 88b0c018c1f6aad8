// Selection within a row, by a whole block: the parts of `sample.cu`.
//
// Weights are integers (exp((l - max) / T) in units of 2^-40), so that sums have the same bits in
// any order, atomics included, and a plain program gets the same tokens. Instead of sorting, the
// cut of top-k and top-p is found by descent: a histogram over the first 11 bits of the keys, the
// bin that holds the target, the next 11 bits within it, the last 10.
#pragma once
#include "common.cuh"

typedef unsigned long long u64;

static constexpr int NUM_BINS = 2048, MAX_LIST = 2048;
static constexpr uint32_t ALL = 0xffffffffu;

struct SharedMemory {
    u64 mass[NUM_BINS];
    uint2 list[MAX_LIST]; // (key, token)
    uint32_t count[NUM_BINS];
    u64 parts[32];
    float floats[33];
    uint32_t num_listed;
};

// exp(-x) for x >= 0, of explicit operations alone, within 3e-7 of itself: 2^n times a polynomial
// in r, |r| <= ln(2) / 2; ln(2) in two parts, of which n times the first is exact.
__device__ __forceinline__ float exp_minus(float x) {
    if (!(x < 40.0f)) return 0.0f;
    // Added and taken away again, this rounds to a whole number.
    const float whole = 12582912.0f;
    float n = __fadd_rn(__fmaf_rn(x, -1.44269504f, whole), -whole);
    float r = __fmaf_rn(n, -1.42860677e-6f, __fmaf_rn(n, -0.693145752f, -x));
    float p = 1.98412698e-4f;
    p = __fmaf_rn(p, r, 1.38888889e-3f);
    p = __fmaf_rn(p, r, 8.33333333e-3f);
    p = __fmaf_rn(p, r, 4.16666667e-2f);
    p = __fmaf_rn(p, r, 1.66666667e-1f);
    p = __fmaf_rn(p, r, 0.5f);
    p = __fmaf_rn(p, r, 1.0f);
    p = __fmaf_rn(p, r, 1.0f);
    return __fmul_rn(p, __uint_as_float(uint32_t(int(n) + 127) << 23));
}

// Larger for larger floats, as f32::total_cmp orders them.
__device__ __forceinline__ uint32_t ordered(float value) {
    uint32_t bits = __float_as_uint(value);
    return bits >> 31 ? ~bits : bits | 0x80000000u;
}

struct Item {
    uint32_t key, token;
};

// What is kept: items up to this one, by key and then by token.
struct Kept {
    uint32_t key = ALL, token = ALL;
    __device__ bool has(Item item) const {
        return item.key < key || (item.key == key && item.token <= token);
    }
};

// A row's tokens in order, or those that may still be kept. Smaller keys are more likely tokens.
struct Items {
    const float *logits;
    const uint2 *list; // or null
    int num;
    bool is_raw; // keys tell logits apart; not for weights
    float largest, inverse_temperature, min_p;

    __device__ __forceinline__ uint32_t key_of(float logit) const {
        return is_raw ? ~ordered(logit) : __float_as_uint(__fadd_rn(largest, -logit)) << 1;
    }
    __device__ __forceinline__ Item at(int index) const {
        if (list) return {list[index].x, list[index].y};
        return {key_of(logits[index]), uint32_t(index)};
    }
    __device__ __forceinline__ float probability(uint32_t key) const {
        return exp_minus(__fmul_rn(__uint_as_float(key >> 1), inverse_temperature));
    }
    // In units of 2^-40; of what min-p drops, 0.
    __device__ __forceinline__ u64 weight(uint32_t key) const {
        float weight = probability(key);
        return weight < min_p ? 0 : u64(rintf(__fmul_rn(weight, 1099511627776.0f)));
    }
    // What an item adds to a sum: its weight or, not MASS, 1; of what min-p drops, 0.
    template <bool MASS> __device__ __forceinline__ u64 share(uint32_t key) const {
        if (MASS) return weight(key);
        return min_p == 0.0f || probability(key) >= min_p;
    }
    // Four reads are under way at a time.
    template <class F> __device__ __forceinline__ void each(F use) const {
        for (int first = threadIdx.x; first < num; first += 4 * blockDim.x) {
            Item items[4];
#pragma unroll
            for (int i = 0; i < 4; i++) {
                int index = first + i * blockDim.x;
                if (index < num) items[i] = at(index);
            }
#pragma unroll
            for (int i = 0; i < 4; i++)
                if (first + i * int(blockDim.x) < num) use(items[i]);
        }
    }
};

__device__ __forceinline__ u64 warp_sum(u64 value) {
    for (int bits = 16; bits > 0; bits /= 2) value += __shfl_xor_sync(ALL, value, bits);
    return value;
}
// Every thread gets the sum, and `parts` the warps' shares.
__device__ __forceinline__ u64 block_sum(u64 value, SharedMemory &shared) {
    value = warp_sum(value);
    __syncthreads(); // who still reads the last parts
    if (threadIdx.x % 32 == 0) shared.parts[threadIdx.x / 32] = value;
    __syncthreads();
    u64 sum = 0;
    for (int warp = 0; warp < blockDim.x / 32; warp++) sum += shared.parts[warp];
    return sum;
}

// The first index at which the running sum of value(0..num) exceeds a target, which is told the
// whole sum; `before` is the sum up to there. -1 if none does. Rounds over ever smaller parts; at
// least 2 warps.
template <class Value, class Target>
__device__ int locate(SharedMemory &shared, int num, Value value, Target target_of, u64 &before) {
    int warp = threadIdx.x / 32, num_warps = blockDim.x / 32, first = 0;
    u64 target = 0;
    before = 0;
    for (bool is_first = true;; is_first = false) {
        int part = (num + num_warps - 1) / num_warps;
        int end = first + min(num, (warp + 1) * part);
        u64 sum = 0;
#pragma unroll 8
        for (int i = first + warp * part + threadIdx.x % 32; i < end; i += 32) sum += value(i);
        sum = block_sum(sum, shared);
        if (is_first) {
            target = target_of(sum);
            if (target >= sum) return -1;
        }
        int at = 0;
        while (at < num_warps - 1 && before + shared.parts[at] <= target)
            before += shared.parts[at++];
        first += at * part;
        num = min(part, num - at * part);
        if (num == 1) return first;
    }
}

// An atomic addition to shared memory in two words: of 64 bits at once it would be a loop of comparisons, and many
// threads meet at few bins where the distribution is flat.
__device__ inline void add_in_shared(u64 *to, u64 value) {
    uint32_t *words = reinterpret_cast<uint32_t *>(to), low = uint32_t(value);
    uint32_t before = atomicAdd(words, low);
    uint32_t high = uint32_t(value >> 32) + (before + low < before);
    if (high > 0) atomicAdd(words + 1, high);
}

// Counts (and, where MASS, weighs) the kept items whose key agrees with `prefix` above `above`
// bits, by the bits from `shift` on. Keys from `far` on are not put into bins: most of a vocabulary
// is out of reach, and would make threads wait for each other at few bins. Returns the sum over
// all, these included.
template <bool MASS>
__device__ u64 histogram(SharedMemory &shared, const Items &items, const Kept &kept,
                         uint32_t prefix, int above, int shift, uint32_t far) {
    __syncthreads();
    for (int bin = threadIdx.x; bin < NUM_BINS; bin += blockDim.x)
        shared.count[bin] = 0, shared.mass[bin] = 0;
    __syncthreads();
    u64 sum = 0;
    items.each([&](Item item) {
        if (!kept.has(item) || (above < 32 && item.key >> above != prefix >> above)) return;
        u64 share = items.share<MASS>(item.key);
        if (share == 0) return;
        sum += share;
        if (item.key >= far) return;
        uint32_t bin = item.key >> shift & (NUM_BINS - 1) & ((1u << (above - shift)) - 1);
        atomicAdd(&shared.count[bin], 1u);
        if (MASS) add_in_shared(&shared.mass[bin], share);
    });
    return block_sum(sum, shared);
}

// Sorts the list by token; what lies beyond `num` is filled up. Bitonic (Batcher 1968).
__device__ inline void sort_by_token(SharedMemory &shared, int num) {
    int size = 2;
    while (size < num) size *= 2;
    for (int i = num + threadIdx.x; i < size; i += blockDim.x)
        shared.list[i] = make_uint2(ALL, ALL);
    for (int run = 2; run <= size; run *= 2)
        for (int step = run / 2; step > 0; step /= 2) {
            __syncthreads();
            for (int pair = threadIdx.x; pair < size / 2; pair += blockDim.x) {
                int low = pair / step * 2 * step + pair % step, high = low + step;
                uint2 a = shared.list[low], b = shared.list[high];
                if ((a.y > b.y) == ((low & run) == 0)) shared.list[low] = b, shared.list[high] = a;
            }
        }
    __syncthreads();
}

// From now on `items` are those up to `last`, in shared memory, if there are few enough.
template <bool MASS>
__device__ void shorten(SharedMemory &shared, Items &items, const Kept &kept, uint32_t last) {
    int last_bin = last >> 21;
    u64 num = 0;
    for (int bin = threadIdx.x; bin <= last_bin; bin += blockDim.x) num += shared.count[bin];
    num = block_sum(num, shared);
    if (num > MAX_LIST) return;
    if (threadIdx.x == 0) shared.num_listed = 0;
    __syncthreads();
    items.each([&](Item item) {
        if (item.key <= last && kept.has(item) && items.share<MASS>(item.key) > 0)
            shared.list[atomicAdd(&shared.num_listed, 1u)] = make_uint2(item.key, item.token);
    });
    __syncthreads();
    sort_by_token(shared, int(num));
    items.list = shared.list;
    items.num = int(num);
}

// Keeps the fewest most likely items whose number (MASS: whose weight) exceeds a target, which is
// told the whole sum; all of them if it is not below that. `far`: see `histogram`.
template <bool MASS, class Target>
__device__ void descend(SharedMemory &shared, Items &items, Kept &kept, uint32_t far,
                        Target target_of) {
    uint32_t prefix = 0;
    u64 target = 0, before = 0;
    auto in_bin = [&](int bin) { return MASS ? shared.mass[bin] : u64(shared.count[bin]); };
    for (int above = 32, shift = 21; above > 0; above = shift, shift = above == 21 ? 10 : 0) {
        // A bin holds all of its keys or none.
        uint32_t limit = above == 32 ? far >> shift << shift : ALL;
        u64 sum = histogram<MASS>(shared, items, kept, prefix, above, shift, limit);
        if (above == 32) {
            target = target_of(sum);
            if (target >= sum) return;
        }
        u64 skipped;
        auto rest = [&](u64) { return target - before; };
        int bin = locate(shared, NUM_BINS, in_bin, rest, skipped);
        if (bin < 0) { // far away after all
            histogram<MASS>(shared, items, kept, prefix, above, shift, ALL);
            bin = locate(shared, NUM_BINS, in_bin, rest, skipped);
        }
        before += skipped;
        prefix |= uint32_t(bin) << shift;
        if (above == 32 && !items.list)
            shorten<MASS>(shared, items, kept, prefix | ((1u << shift) - 1));
    }
    uint32_t num_equal = shared.count[prefix & 1023];
    u64 tie = MASS ? (target - before) / items.weight(prefix) : target - before;
    Kept cut;
    cut.key = prefix;
    if (tie + 1 < num_equal) {
        auto is_tie = [&](int index) {
            Item item = items.at(index);
            return u64(item.key == prefix && kept.has(item));
        };
        u64 ignored;
        int index = locate(shared, items.num, is_tie, [=](u64) { return tie; }, ignored);
        cut.token = items.at(index).token;
    } else if (prefix == kept.key) {
        cut.token = kept.token;
    }
    kept = cut;
}
