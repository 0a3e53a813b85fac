#include "buffer.h"

#if defined(_WIN32)
#include <malloc.h>
#include <windows.h>
#else
#include <unistd.h>
#endif

#include <cstdlib>
#include <new>

namespace kg4d {
namespace {

#if defined(_WIN32)
size_t physical_memory() {
    MEMORYSTATUSEX status{};
    status.dwLength = sizeof status;
    return GlobalMemoryStatusEx(&status) ? static_cast<size_t>(status.ullTotalPhys) : 0;
}
void* aligned(size_t bytes) { return _aligned_malloc(bytes, 64); }
void free_aligned(void* memory) { _aligned_free(memory); }
#else
size_t physical_memory() {
    return static_cast<size_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<size_t>(sysconf(_SC_PAGESIZE));
}
void* aligned(size_t bytes) { return std::aligned_alloc(64, bytes); }
void free_aligned(void* memory) { std::free(memory); }
#endif

}  // namespace

void* allocate(size_t bytes) {
    static const size_t physical = physical_memory();
    const size_t rounded = (bytes + 63) / 64 * 64;
    void* memory = bytes <= physical ? aligned(rounded) : nullptr;
    if (memory == nullptr) throw std::bad_alloc();
    return memory;
}

void release(void* memory) { free_aligned(memory); }

float* thread_scratch(size_t count) {
    static thread_local Buffer<float> scratch;
    return scratch.reserve(count);
}

}  // namespace kg4d
