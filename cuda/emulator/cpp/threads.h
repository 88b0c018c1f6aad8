// Runs a grid of blocks; streams and kernels by name.
#pragma once
#include "emulator.h"

namespace emulator {
void run_grid(const char *kernel, const Call &call, dim3 grid, dim3 block, size_t shared_bytes);
// Runs `work` now, or keeps it for the graph that the stream is recording.
extern "C" __attribute__((visibility("default"))) void emulator_submit(void *stream, Call work);
} // namespace emulator
