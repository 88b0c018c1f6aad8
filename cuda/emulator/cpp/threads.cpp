// The threads of a block as fibers of one thread of the host. A fiber runs until it waits at a
// barrier; the next one that may go on takes over. Even blocks go through their threads upwards, odd
// ones downwards, so that a forgotten barrier shows.
#include "threads.h"

#include <csetjmp>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <sys/mman.h>
#include <ucontext.h>
#include <vector>

namespace emulator {
namespace {

constexpr size_t STACK_BYTES = 256 << 10;
constexpr size_t MAX_SHARED_BYTES = 227 << 10;

struct Barrier {
    unsigned num_arrived = 0, generation = 0;
};

struct AsyncCopy {
    void *to;
    const void *from;
    int size, num_bytes;
};

struct Fiber {
    ucontext_t first;
    jmp_buf at;
    Thread thread;
    bool is_started = false, is_done = true;
    const Barrier *waits_for = nullptr;
    unsigned generation = 0;
    void *stack = nullptr;
    std::vector<std::vector<AsyncCopy>> groups;
    std::vector<AsyncCopy> group;
};

struct Warp {
    std::map<unsigned, Barrier> barriers; // by mask
    alignas(16) unsigned char boxes[32][128];
};

// Everything of the block that runs.
struct Running {
    const Call *call = nullptr;
    const char *kernel = "";
    Block block;
    std::vector<Fiber *> fibers;
    std::vector<Warp> warps;
    Barrier all;
    unsigned num_alive = 0;
    int sum = 0, last_sum = 0;
    Fiber *current = nullptr;
    jmp_buf scheduler;
    unsigned char *shared = nullptr;
};
thread_local Running running;

void give_way() {
    if (!_setjmp(running.current->at)) _longjmp(running.scheduler, 1);
}

void wait_at(Barrier &barrier, unsigned num_expected) {
    if (++barrier.num_arrived == num_expected) {
        barrier.num_arrived = 0;
        barrier.generation++;
        return;
    }
    Fiber &self = *running.current;
    self.waits_for = &barrier;
    self.generation = barrier.generation;
    give_way();
}

void run_fiber() {
    (*running.call)();
    Fiber &self = *running.current;
    if (!self.groups.empty() || !self.group.empty()) async_wait(0);
    self.is_done = true;
    running.num_alive--;
    // Those at the block's barrier do not wait for the dead.
    Barrier &all = running.all;
    if (all.num_arrived > 0 && all.num_arrived == running.num_alive) {
        all.num_arrived = 0;
        all.generation++;
    }
    _longjmp(running.scheduler, 1);
}

void resume(Fiber &fiber) {
    running.current = &fiber;
    if (_setjmp(running.scheduler)) return;
    if (fiber.is_started) _longjmp(fiber.at, 1);
    fiber.is_started = true;
    setcontext(&fiber.first);
}

void make_ready(Fiber &fiber, unsigned linear) {
    const dim3 &size = running.block.size;
    unsigned x = linear % size.x, y = linear / size.x % size.y, z = linear / size.x / size.y;
    fiber.thread = Thread{{x, y, z}, linear, linear % 32, linear / 32};
    fiber.is_started = fiber.is_done = false;
    fiber.waits_for = nullptr;
    if (!fiber.stack) fiber.stack = malloc(STACK_BYTES);
    getcontext(&fiber.first);
    fiber.first.uc_stack.ss_sp = fiber.stack;
    fiber.first.uc_stack.ss_size = STACK_BYTES;
    fiber.first.uc_link = nullptr;
    makecontext(&fiber.first, run_fiber, 0);
}

void run_block(unsigned num_threads, unsigned block) {
    while (running.fibers.size() < num_threads) running.fibers.push_back(new Fiber);
    running.warps.assign((num_threads + 31) / 32, Warp());
    running.all = Barrier();
    running.sum = 0;
    running.num_alive = num_threads;
    for (unsigned i = 0; i < num_threads; i++) make_ready(*running.fibers[i], i);
    while (running.num_alive > 0) {
        bool any_ran = false;
        for (unsigned i = 0; i < num_threads; i++) {
            Fiber &fiber = *running.fibers[block % 2 == 0 ? i : num_threads - 1 - i];
            bool waits = fiber.waits_for && fiber.waits_for->generation == fiber.generation;
            if (fiber.is_done || waits) continue;
            fiber.waits_for = nullptr;
            any_ran = true;
            resume(fiber);
        }
        if (!any_ran) {
            fprintf(stderr, "emulated GPU: %s: its threads wait at different barriers\n",
                    running.kernel);
            abort();
        }
    }
}

} // namespace

const Thread &this_thread() { return running.current->thread; }
const Block &this_block() { return running.block; }
unsigned char *dynamic_shared() { return running.shared; }
unsigned char *lane_box(unsigned lane) {
    return running.warps[this_thread().warp].boxes[lane];
}

void block_barrier() { wait_at(running.all, running.num_alive); }

void warp_barrier(unsigned mask) {
    const dim3 &size = running.block.size;
    unsigned num_threads = size.x * size.y * size.z, warp = this_thread().warp;
    unsigned num_lanes = num_threads - 32 * warp < 32 ? num_threads - 32 * warp : 32;
    unsigned live = num_lanes == 32 ? mask : mask & ((1u << num_lanes) - 1);
    if (!(mask >> this_thread().lane & 1)) {
        fprintf(stderr, "emulated GPU: %s: a lane outside its own mask\n", running.kernel);
        abort();
    }
    wait_at(running.warps[warp].barriers[mask], unsigned(__builtin_popcount(live)));
}

int block_sum(int value) {
    running.sum += value;
    block_barrier();
    int sum = running.sum;
    block_barrier();
    running.sum = 0;
    block_barrier();
    return sum;
}

void async_copy(void *shared, const void *global, int size, int num_bytes) {
    if (uintptr_t(shared) % size || uintptr_t(global) % size) {
        fprintf(stderr, "emulated GPU: %s: cp.async at an unaligned address\n", running.kernel);
        abort();
    }
    running.current->group.push_back({shared, global, size, num_bytes});
}
void async_commit() {
    Fiber &self = *running.current;
    self.groups.push_back(std::move(self.group));
    self.group.clear();
}
void async_wait(int num_groups_left) {
    auto &groups = running.current->groups;
    while (int(groups.size()) > num_groups_left) {
        for (const AsyncCopy &copy : groups.front()) {
            memset(copy.to, 0, copy.size);
            memcpy(copy.to, copy.from, copy.num_bytes);
        }
        groups.erase(groups.begin());
    }
}

void run_grid(const char *kernel, const Call &call, dim3 grid, dim3 block, size_t shared_bytes) {
    if (!running.shared) {
        void *memory = nullptr;
        if (posix_memalign(&memory, 128, MAX_SHARED_BYTES)) abort();
        running.shared = static_cast<unsigned char *>(memory);
    }
    running.call = &call;
    running.kernel = kernel;
    running.block.size = block;
    running.block.grid = grid;
    unsigned linear = 0;
    for (unsigned z = 0; z < grid.z; z++)
        for (unsigned y = 0; y < grid.y; y++)
            for (unsigned x = 0; x < grid.x; x++) {
                running.block.index = {x, y, z};
                // What a block finds in shared memory is nothing it may use.
                memset(running.shared, 0xff, shared_bytes);
                run_block(block.x * block.y * block.z, linear++);
            }
}

} // namespace emulator
