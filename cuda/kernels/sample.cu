// From a row of logits to a token, its log probability and rank, and the most likely tokens: what
// gen-server/src/engine/sampler.rs does, in its order. A block a row, in one launch whatever rows
// ask for.
//
// On paper, H200, V = 128,256 (a row is 513 KB): a pass that only looks is bound by what one block
// reads from L2, some 60 B/ns: 9 us; where more than 132 rows share 4.3 TB/s of HBM, 16 us for
// every 132. A pass that weighs (about 40 instructions a token) is bound by one SM's four
// schedulers: 40,000 cycles, 23 us.
//   greedy                     1 pass that looks                                               9 us
//   temperature alone          1 looks, 2 weigh                                               55 us
//   top-k and / or top-p       2 look (maximum, list), 1 weighs (top-k alone: counts), then
//                              rounds over at most 2048 items in shared memory, 10 us         50 us
//   log probabilities          + 2 look; candidates + 2 look and 10 us in shared memory
// Rows on different SMs run side by side: 132 rows take the time of one, 256 twice that. It stands
// beside 1.5 ms and more for the weights of Llama-3.2-3B. Several blocks a row would make greedy at
// R = 1 some 6 us (0.4 %) faster and need a second launch (2 us) and scratch memory: not worth it
// there. A flat distribution, whose kept set does not fit the list, takes about three passes more
// for each filter: correct, and slower.
#include "sample.cuh"

static constexpr uint32_t DRAW = 0, SCORE = 1; // anything else: padding
static constexpr uint32_t NO_LOGPROBS = 0xffffffffu;
static constexpr uint32_t FORBIDDEN = 1, SEEN = 2; // marks; the rest counts the answer

struct SampleRow {
    u64 seed, position;
    float temperature, min_p, top_p;
    uint32_t top_k, purpose, scored, num_candidates;
    float repetition_penalty, frequency_penalty, presence_penalty;
    uint32_t first_edit, num_edits;
};

// What changes a logit; one for each token of a row. `saved` is the kernel's.
struct Edit {
    uint32_t token;
    float bias;
    uint32_t marks;
    float saved;
};

struct SampleOutput {
    uint32_t *tokens, *is_bad;
    float *logprobs;
    uint32_t *ranks, *candidates;
    float *candidate_logprobs;
};

__device__ __forceinline__ void apply(const SampleRow &row, Edit *edits, float *logits,
                                      int num) {
    for (int i = threadIdx.x; i < row.num_edits; i += blockDim.x) {
        Edit edit = edits[i];
        if (edit.token >= num) continue;
        float logit = logits[edit.token];
        edits[i].saved = logit;
        logit = __fadd_rn(logit, edit.bias);
        if (edit.marks & FORBIDDEN) logit = -INFINITY;
        if (edit.marks & SEEN) {
            logit = logit > 0.0f ? __fdiv_rn(logit, row.repetition_penalty)
                                 : __fmul_rn(logit, row.repetition_penalty);
            uint32_t count = edit.marks >> 2;
            float times = __fmul_rn(row.frequency_penalty, float(count));
            if (count > 0) logit = __fadd_rn(logit, -__fadd_rn(times, row.presence_penalty));
        }
        logits[edit.token] = logit;
    }
    __syncthreads();
}
__device__ __forceinline__ void undo(const SampleRow &row, const Edit *edits, float *logits,
                                     int num) {
    __syncthreads();
    for (int i = threadIdx.x; i < row.num_edits; i += blockDim.x)
        if (edits[i].token < num) logits[edits[i].token] = edits[i].saved;
    __syncthreads();
}

// The most likely token, the first of equals; -1 if a logit is NaN or +inf, or all are -inf.
__device__ int argmax(SharedMemory &shared, const float *logits, int num) {
    float largest = -INFINITY;
    int at = 0x7fffffff;
    bool is_bad = false;
#pragma unroll 8
    for (int i = threadIdx.x; i < num; i += blockDim.x) {
        float logit = logits[i];
        is_bad |= !(logit < INFINITY);
        if (logit > largest) largest = logit, at = i;
    }
    if (__syncthreads_or(is_bad)) return -1;
    u64 best = u64(ordered(largest + 0.0f)) << 32 | (ALL - uint32_t(at));
    for (int bits = 16; bits > 0; bits /= 2) best = max(best, __shfl_xor_sync(ALL, best, bits));
    __syncthreads();
    if (threadIdx.x % 32 == 0) shared.parts[threadIdx.x / 32] = best;
    __syncthreads();
    for (int warp = 0; warp < blockDim.x / 32; warp++) best = max(best, shared.parts[warp]);
    uint32_t first = ALL - uint32_t(best);
    return first < uint32_t(num) ? int(first) : -1;
}

__device__ __forceinline__ u64 mix(u64 value) {
    u64 bits = value + 0x9E3779B97F4A7C15ull;
    bits = (bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9ull;
    bits = (bits ^ (bits >> 27)) * 0x94D049BB133111EBull;
    return bits ^ (bits >> 31);
}

// A token of the adjusted logits, of which `greedy` is the most likely.
__device__ int draw(SharedMemory &shared, const SampleRow &row, const float *logits, int num,
                    int greedy) {
    if (row.temperature == 0.0f || row.top_k == 1) return greedy;
    Items items = {logits, nullptr, num, false, logits[greedy],
                   __fdiv_rn(1.0f, row.temperature), row.min_p};
    Kept kept;
    // Beyond e^-10 of the most likely one.
    uint32_t far = __float_as_uint(__fmul_rn(10.0f, row.temperature)) << 1;
    if (row.top_k > 0) {
        u64 last = row.top_k - 1;
        descend<false>(shared, items, kept, far, [=](u64) { return last; });
    }
    if (row.top_p < 1.0f) {
        double top_p = row.top_p;
        descend<true>(shared, items, kept, far, [=](u64 sum) {
            u64 wanted = u64(ceil(__dmul_rn(top_p, double(sum))));
            return wanted > 0 ? wanted - 1 : 0;
        });
    }
    // 53 bits, as a fraction of the whole.
    u64 bits = mix(mix(row.seed) + row.position * 0x9E3779B97F4A7C15ull) >> 11 << 11;
    auto weight = [&](int index) {
        Item item = items.at(index);
        return kept.has(item) ? items.weight(item.key) : 0;
    };
    u64 ignored;
    int index = locate(shared, items.num, weight,
                       [=](u64 sum) { return __umul64hi(bits, sum); }, ignored);
    return index < 0 ? greedy : int(items.at(index).token);
}

// The most likely tokens into out and their log probabilities, most likely first.
__device__ void candidates(SharedMemory &shared, const float *logits, int num, uint32_t num_wanted,
                           float largest, float log_sum, uint32_t *tokens, float *logprobs) {
    num_wanted = min(num_wanted, uint32_t(num));
    if (num_wanted == 0) return;
    Items items = {logits, nullptr, num, true, largest, 1.0f, 0.0f};
    Kept kept;
    u64 last = num_wanted - 1;
    descend<false>(shared, items, kept, ~ordered(largest - 10.0f), [=](u64) { return last; });
    // Unordered, in memory that the descent needs no more.
    uint2 *found = reinterpret_cast<uint2 *>(shared.mass);
    __syncthreads();
    if (threadIdx.x == 0) shared.num_listed = 0;
    __syncthreads();
    items.each([&](Item item) {
        if (kept.has(item))
            found[atomicAdd(&shared.num_listed, 1u)] = make_uint2(item.key, item.token);
    });
    __syncthreads();
    if (threadIdx.x < num_wanted) {
        uint2 self = found[threadIdx.x];
        int place = 0;
        for (int i = 0; i < num_wanted; i++)
            place += found[i].x < self.x || (found[i].x == self.x && found[i].y < self.y);
        tokens[place] = self.y;
        logprobs[place] = logits[self.y] - largest - log_sum;
    }
    __syncthreads();
}

// ln of the sum of e^(logit - largest).
__device__ float log_sum_exp(SharedMemory &shared, const float *logits, int num, float largest) {
    float sum = 0.0f;
#pragma unroll 8
    for (int i = threadIdx.x; i < num; i += blockDim.x) sum += __expf(logits[i] - largest);
    return logf(block_sum(sum, shared.floats));
}

__device__ uint32_t rank_of(SharedMemory &shared, const float *logits, int num, float own) {
    u64 num_better = 0;
#pragma unroll 8
    for (int i = threadIdx.x; i < num; i += blockDim.x) num_better += logits[i] > own;
    return uint32_t(block_sum(num_better, shared)) + 1;
}

// logits [R, V], rows [R]; the logits are left as they were. Grid R; at least 64 threads.
extern "C" __global__ void __launch_bounds__(1024)
    sample(float *all_logits, const SampleRow *rows, Edit *all_edits, SampleOutput out,
           int vocabulary, int max_candidates, int num_edits) {
    __shared__ SharedMemory shared;
    SampleRow row = rows[blockIdx.x];
    float *logits = all_logits + size_t(blockIdx.x) * vocabulary;
    bool is_padding = row.purpose > SCORE;
    // The host's lists are not trusted with memory that is not theirs.
    if (row.first_edit > num_edits || row.num_edits > num_edits - row.first_edit) is_padding = true;
    if (row.purpose == SCORE && row.scored >= vocabulary) is_padding = true;
    int most_likely = is_padding ? -1 : argmax(shared, logits, vocabulary);
    int token = most_likely;
    if (token >= 0 && row.purpose == SCORE) token = row.scored;
    if (token >= 0 && row.purpose == DRAW) {
        Edit *edits = all_edits + row.first_edit;
        int greedy = token;
        if (row.num_edits > 0) {
            apply(row, edits, logits, vocabulary);
            greedy = argmax(shared, logits, vocabulary);
        }
        token = greedy < 0 ? -1 : draw(shared, row, logits, vocabulary, greedy);
        if (row.num_edits > 0) undo(row, edits, logits, vocabulary);
    }
    if (threadIdx.x == 0) {
        out.tokens[blockIdx.x] = max(token, 0);
        out.is_bad[blockIdx.x] = token < 0;
    }
    if (token < 0 || row.num_candidates == NO_LOGPROBS) return;
    float largest = logits[most_likely], own = logits[token];
    float log_sum = log_sum_exp(shared, logits, vocabulary, largest);
    uint32_t rank = rank_of(shared, logits, vocabulary, own);
    if (threadIdx.x == 0) {
        out.logprobs[blockIdx.x] = own - largest - log_sum;
        out.ranks[blockIdx.x] = rank;
    }
    size_t first = size_t(blockIdx.x) * max_candidates;
    candidates(shared, logits, vocabulary, min(row.num_candidates, uint32_t(max_candidates)),
               largest, log_sum, out.candidates + first, out.candidate_logprobs + first);
}
EXPORT(sample)
