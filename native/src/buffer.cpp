#include "buffer.h"

#include <unistd.h>

#include <cstdlib>
#include <new>

namespace kg4d {

void* allocate(size_t bytes) {
    static const size_t physical =
        static_cast<size_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<size_t>(sysconf(_SC_PAGESIZE));
    const size_t rounded = (bytes + 63) / 64 * 64;
    void* memory = bytes <= physical ? std::aligned_alloc(64, rounded) : nullptr;
    if (memory == nullptr) throw std::bad_alloc();
    return memory;
}

void release(void* memory) { std::free(memory); }

float* thread_scratch(size_t count) {
    static thread_local Buffer<float> scratch;
    return scratch.reserve(count);
}

}  // namespace kg4d
