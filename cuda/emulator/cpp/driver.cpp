// The part of the CUDA driver's interface that the launchers call (through cudarc). Work waits in its stream
// until somebody waits for it, so that whoever looks too early, or overwrites what is still to be
// copied, is found out; a graph is a list of work. Memory is the host's, with an unreadable page behind
// each allocation and NaN in it at first.
// Before the words of CUDA, some of which the standard library has, too.
#include <algorithm>
#include <atomic>
#include <csignal>
#include <map>
#include <memory>
#include <mutex>
#include <sys/mman.h>
#include <unistd.h>
#include <vector>

#include "threads.h"

using emulator::Bind;
using emulator::Call;

namespace {

enum Status : int {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    INVALID_CONTEXT = 201,
    NOT_FOUND = 500,
    NOT_READY = 600,
    LAUNCH_OUT_OF_RESOURCES = 701,
    CAPTURE_UNSUPPORTED = 900,
};

constexpr size_t PAGE = 4096;
constexpr size_t MEMORY_BYTES = size_t(8) << 30;
constexpr unsigned MAX_SHARED_BYTES = 227 << 10, DEFAULT_SHARED_BYTES = 48 << 10;

struct Kernel {
    std::string name;
    Bind bind;
    std::atomic<unsigned> max_shared_bytes{DEFAULT_SHARED_BYTES};
};
std::map<std::string, Kernel> &kernels() {
    static std::map<std::string, Kernel> all;
    return all;
}

using Graph = std::vector<Call>;
struct Stream : std::enable_shared_from_this<Stream> {
    Graph *recording = nullptr;
    std::recursive_mutex mutex;
    std::vector<Call> waiting;

    void submit(Call work) {
        std::lock_guard<std::recursive_mutex> lock(mutex);
        (recording ? *recording : waiting).push_back(std::move(work));
    }
    // Does all that waits.
    void flush() {
        std::lock_guard<std::recursive_mutex> lock(mutex);
        std::vector<Call> work;
        work.swap(waiting);
        for (const Call &call : work) call();
    }
};
struct Event {
    std::shared_ptr<Stream> stream;
    timespec time{};
};

struct Allocation {
    void *mapped;
    size_t mapped_bytes, bytes;
};
std::mutex mutex;
std::map<uintptr_t, Allocation> allocations;
// Page-locked host memory: start and end.
std::map<uintptr_t, uintptr_t> pinned;
// Another thread may be doing a stream's work while its owner lets go of it.
std::vector<std::shared_ptr<Stream>> streams;
size_t allocated_bytes = 0;
int context;
thread_local void *current_context = nullptr;

std::shared_ptr<Stream> default_stream = std::make_shared<Stream>();
Stream &stream_of(void *stream) {
    // 0, 1 and 2 are the default streams.
    return uintptr_t(stream) < 3 ? *default_stream : *static_cast<Stream *>(stream);
}

int allocate(uintptr_t *out, size_t bytes) {
    if (bytes == 0) return INVALID_VALUE;
    std::lock_guard<std::mutex> lock(mutex);
    if (allocated_bytes + bytes > MEMORY_BYTES) return OUT_OF_MEMORY;
    size_t room = (bytes + PAGE - 1) / PAGE * PAGE;
    void *mapped = mmap(nullptr, room + PAGE, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapped == MAP_FAILED) return OUT_OF_MEMORY;
    mprotect(static_cast<char *>(mapped) + room, PAGE, PROT_NONE);
    // Small ones end at the unreadable page; large ones are rather left untouched.
    uintptr_t start = uintptr_t(mapped);
    if (bytes <= (64 << 20)) {
        start += room - (bytes + 15) / 16 * 16;
        memset(reinterpret_cast<void *>(start), 0xff, bytes);
    }
    allocations[start] = {mapped, room + PAGE, bytes};
    allocated_bytes += bytes;
    *out = start;
    return SUCCESS;
}

bool is_pinned(const void *memory) {
    std::lock_guard<std::mutex> lock(mutex);
    auto next = pinned.upper_bound(uintptr_t(memory));
    return next != pinned.begin() && uintptr_t(memory) < std::prev(next)->second;
}

void flush_all() {
    std::vector<std::shared_ptr<Stream>> all;
    {
        std::lock_guard<std::mutex> lock(mutex);
        all = streams;
    }
    for (auto &stream : all) stream->flush();
    default_stream->flush();
}

int release(uintptr_t start) {
    std::lock_guard<std::mutex> lock(mutex);
    auto found = allocations.find(start);
    if (found == allocations.end()) return INVALID_VALUE;
    munmap(found->second.mapped, found->second.mapped_bytes);
    allocated_bytes -= found->second.bytes;
    allocations.erase(found);
    return SUCCESS;
}

void *pointer(uintptr_t address) { return reinterpret_cast<void *>(address); }

} // namespace

namespace emulator {
void add_kernel(const char *name, Bind bind) {
    Kernel &kernel = kernels()[name];
    kernel.name = name;
    kernel.bind = std::move(bind);
}
} // namespace emulator

extern "C" {

void emulator_submit(void *stream, Call work) { stream_of(stream).submit(std::move(work)); }

int cuInit(unsigned) { return SUCCESS; }
int cuDriverGetVersion(int *version) { return *version = 13000, SUCCESS; }
int cuGetErrorName(int status, const char **name) {
    switch (status) {
    case SUCCESS: *name = "CUDA_SUCCESS"; break;
    case INVALID_VALUE: *name = "CUDA_ERROR_INVALID_VALUE"; break;
    case INVALID_CONTEXT: *name = "CUDA_ERROR_INVALID_CONTEXT"; break;
    case OUT_OF_MEMORY: *name = "CUDA_ERROR_OUT_OF_MEMORY"; break;
    case NOT_FOUND: *name = "CUDA_ERROR_NOT_FOUND"; break;
    case LAUNCH_OUT_OF_RESOURCES: *name = "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES"; break;
    case CAPTURE_UNSUPPORTED: *name = "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"; break;
    default: *name = "an error of the software GPU";
    }
    return SUCCESS;
}
int cuGetErrorString(int status, const char **text) { return cuGetErrorName(status, text); }

int cuDeviceGetCount(int *count) { return *count = 1, SUCCESS; }
int cuDeviceGet(int *device, int ordinal) {
    *device = ordinal;
    return ordinal == 0 ? SUCCESS : 101; // CUDA_ERROR_INVALID_DEVICE
}
int cuDeviceGetName(char *name, int length, int) {
    snprintf(name, size_t(length), "software GPU");
    return SUCCESS;
}
int cuDeviceTotalMem_v2(size_t *bytes, int) { return *bytes = MEMORY_BYTES, SUCCESS; }
int cuDeviceGetAttribute(int *value, int attribute, int) {
    switch (attribute) {
    case 16: *value = 4; break;                 // MULTIPROCESSOR_COUNT
    case 75: *value = 9; break;                 // COMPUTE_CAPABILITY_MAJOR
    case 76: *value = 0; break;                 // COMPUTE_CAPABILITY_MINOR
    case 97: *value = MAX_SHARED_BYTES; break;  // MAX_SHARED_MEMORY_PER_BLOCK_OPTIN
    case 38: *value = 1 << 20; break;           // L2_CACHE_SIZE
    default: *value = 0;
    }
    return SUCCESS;
}
int cuDevicePrimaryCtxRetain(void **out, int) { return *out = &context, SUCCESS; }
int cuDevicePrimaryCtxRelease_v2(int) { return SUCCESS; }
int cuCtxGetCurrent(void **out) { return *out = current_context, SUCCESS; }
int cuCtxSetCurrent(void *to) { return current_context = to, SUCCESS; }
int cuCtxSynchronize() { return flush_all(), SUCCESS; }
int cuCtxSetFlags(unsigned) { return SUCCESS; }

// The context of the thread is looked for, as the driver does.
#define NEEDS_CONTEXT                                                                              \
    if (!current_context) return INVALID_CONTEXT

int cuMemGetInfo_v2(size_t *free_bytes, size_t *total) {
    std::lock_guard<std::mutex> lock(mutex);
    *total = MEMORY_BYTES;
    *free_bytes = MEMORY_BYTES - allocated_bytes;
    return SUCCESS;
}
int cuMemAlloc_v2(uintptr_t *out, size_t bytes) {
    NEEDS_CONTEXT;
    return allocate(out, bytes);
}
int cuMemFree_v2(uintptr_t start) {
    flush_all();
    return release(start);
}
int cuMemAllocAsync(uintptr_t *out, size_t bytes, void *stream) {
    NEEDS_CONTEXT;
    if (stream_of(stream).recording) return CAPTURE_UNSUPPORTED;
    return allocate(out, bytes);
}
int cuMemFreeAsync(uintptr_t start, void *stream) {
    emulator_submit(stream, [=] { release(start); });
    return SUCCESS;
}
int cuMemHostAlloc(void **out, size_t bytes, unsigned) {
    if (posix_memalign(out, PAGE, bytes)) return OUT_OF_MEMORY;
    std::lock_guard<std::mutex> lock(mutex);
    pinned[uintptr_t(*out)] = uintptr_t(*out) + bytes;
    return SUCCESS;
}
int cuMemFreeHost(void *memory) {
    {
        std::lock_guard<std::mutex> lock(mutex);
        pinned.erase(uintptr_t(memory));
    }
    return free(memory), SUCCESS;
}

// Pageable memory has been read when the call returns, pinned memory is read later.
int cuMemcpyHtoDAsync_v2(uintptr_t to, const void *from, size_t bytes, void *stream) {
    NEEDS_CONTEXT;
    if (is_pinned(from)) {
        emulator_submit(stream, [=] { memcpy(pointer(to), from, bytes); });
        return SUCCESS;
    }
    auto start = static_cast<const unsigned char *>(from);
    std::vector<unsigned char> copy(start, start + bytes);
    emulator_submit(stream, [=] { memcpy(pointer(to), copy.data(), bytes); });
    return SUCCESS;
}
// Pageable memory has been written when the call returns.
int cuMemcpyDtoHAsync_v2(void *to, uintptr_t from, size_t bytes, void *stream) {
    NEEDS_CONTEXT;
    bool later = is_pinned(to);
    if (!later && stream_of(stream).recording) return CAPTURE_UNSUPPORTED;
    emulator_submit(stream, [=] { memcpy(to, pointer(from), bytes); });
    if (!later) stream_of(stream).flush();
    return SUCCESS;
}
int cuMemcpyDtoDAsync_v2(uintptr_t to, uintptr_t from, size_t bytes, void *stream) {
    emulator_submit(stream, [=] { memmove(pointer(to), pointer(from), bytes); });
    return SUCCESS;
}
int cuMemcpyHtoD_v2(uintptr_t to, const void *from, size_t bytes) {
    flush_all();
    return memcpy(pointer(to), from, bytes), SUCCESS;
}
int cuMemcpyDtoH_v2(void *to, uintptr_t from, size_t bytes) {
    flush_all();
    return memcpy(to, pointer(from), bytes), SUCCESS;
}
int cuMemcpyDtoD_v2(uintptr_t to, uintptr_t from, size_t bytes) {
    flush_all();
    return memmove(pointer(to), pointer(from), bytes), SUCCESS;
}
int cuMemsetD8Async(uintptr_t to, unsigned char value, size_t bytes, void *stream) {
    emulator_submit(stream, [=] { memset(pointer(to), value, bytes); });
    return SUCCESS;
}
int cuMemsetD8_v2(uintptr_t to, unsigned char value, size_t bytes) {
    flush_all();
    return memset(pointer(to), value, bytes), SUCCESS;
}
int cuDeviceGetDefaultMemPool(void **pool, int) { return *pool = &context, SUCCESS; }
int cuMemPoolSetAttribute(void *, int, void *) { return SUCCESS; }

int cuStreamCreate(void **out, unsigned) {
    auto stream = std::make_shared<Stream>();
    std::lock_guard<std::mutex> lock(mutex);
    streams.push_back(stream);
    return *out = stream.get(), SUCCESS;
}
int cuStreamCreateWithPriority(void **out, unsigned flags, int) {
    return cuStreamCreate(out, flags);
}
int cuStreamDestroy_v2(void *handle) {
    auto stream = stream_of(handle).shared_from_this();
    stream->flush();
    std::lock_guard<std::mutex> lock(mutex);
    streams.erase(std::find(streams.begin(), streams.end(), stream));
    return SUCCESS;
}
int cuStreamSynchronize(void *stream) {
    if (stream_of(stream).recording) return CAPTURE_UNSUPPORTED;
    return stream_of(stream).flush(), SUCCESS;
}
int cuStreamWaitEvent(void *, void *event, unsigned) {
    if (auto stream = static_cast<Event *>(event)->stream) stream->flush();
    return SUCCESS;
}
int cuStreamBeginCapture_v2(void *stream, int) {
    if (uintptr_t(stream) < 3) return CAPTURE_UNSUPPORTED;
    stream_of(stream).recording = new Graph;
    return SUCCESS;
}
int cuStreamEndCapture(void *stream, void **graph) {
    *graph = stream_of(stream).recording;
    stream_of(stream).recording = nullptr;
    return *graph ? SUCCESS : INVALID_VALUE;
}
int cuStreamIsCapturing(void *stream, int *status) {
    return *status = stream_of(stream).recording ? 1 : 0, SUCCESS;
}
int cuGraphInstantiateWithFlags(void **out, void *graph, unsigned long long) {
    return *out = new Graph(*static_cast<Graph *>(graph)), SUCCESS;
}
int cuGraphUpload(void *, void *) { return SUCCESS; }
int cuGraphLaunch(void *graph, void *stream) {
    for (const Call &work : *static_cast<Graph *>(graph)) emulator_submit(stream, work);
    return SUCCESS;
}
int cuGraphDestroy(void *graph) { return delete static_cast<Graph *>(graph), SUCCESS; }
int cuGraphExecDestroy(void *graph) { return delete static_cast<Graph *>(graph), SUCCESS; }

int cuEventSynchronize(void *event);
int cuEventCreate(void **out, unsigned) { return *out = new Event, SUCCESS; }
int cuEventDestroy_v2(void *event) {
    cuEventSynchronize(event);
    return delete static_cast<Event *>(event), SUCCESS;
}
int cuEventRecord(void *handle, void *stream) {
    Event *event = static_cast<Event *>(handle);
    event->stream = stream_of(stream).shared_from_this();
    // What is read off an event before it was waited for is no time.
    emulator_submit(stream, [event] { clock_gettime(CLOCK_MONOTONIC, &event->time); });
    return SUCCESS;
}
int cuEventSynchronize(void *event) {
    if (auto stream = static_cast<Event *>(event)->stream) stream->flush();
    return SUCCESS;
}
int cuEventQuery(void *event) { return cuEventSynchronize(event); }
int cuEventElapsedTime_v2(float *ms, void *start, void *end) {
    const timespec &a = static_cast<Event *>(start)->time, &b = static_cast<Event *>(end)->time;
    *ms = 1e3f * float(b.tv_sec - a.tv_sec) + 1e-6f * float(b.tv_nsec - a.tv_nsec);
    return SUCCESS;
}
int cuEventElapsedTime(float *ms, void *start, void *end) {
    return cuEventElapsedTime_v2(ms, start, end);
}

// Kernels are in this library; what image is loaded does not matter.
int cuModuleLoadData(void **out, const void *) { return *out = &context, SUCCESS; }
int cuModuleUnload(void *) { return SUCCESS; }
int cuModuleGetFunction(void **out, void *, const char *name) {
    auto found = kernels().find(name);
    if (found == kernels().end()) return NOT_FOUND;
    *out = &found->second;
    return SUCCESS;
}
int cuFuncSetAttribute(void *kernel, int attribute, int value) {
    if (attribute == 8) { // MAX_DYNAMIC_SHARED_SIZE_BYTES
        if (unsigned(value) > MAX_SHARED_BYTES) return INVALID_VALUE;
        static_cast<Kernel *>(kernel)->max_shared_bytes = unsigned(value);
    }
    return SUCCESS;
}
int cuFuncGetAttribute(int *value, int, void *) { return *value = 0, SUCCESS; }
int cuLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,
                   unsigned bz, unsigned shared_bytes, void *stream, void **values, void **) {
    NEEDS_CONTEXT;
    Kernel &kernel = *static_cast<Kernel *>(function);
    dim3 grid(gx, gy, gz), block(bx, by, bz);
    size_t num_threads = size_t(bx) * by * bz;
    bool fits = gx && gy && gz && num_threads > 0 && num_threads <= 1024 && gy < 65536 &&
                gz < 65536 && gx < (1u << 31);
    if (!fits) return INVALID_VALUE;
    if (shared_bytes > kernel.max_shared_bytes) return LAUNCH_OUT_OF_RESOURCES;
    Call call = kernel.bind(values);
    const char *name = kernel.name.c_str();
    emulator_submit(stream, [=] { emulator::run_grid(name, call, grid, block, shared_bytes); });
    return SUCCESS;
}

} // extern "C"
