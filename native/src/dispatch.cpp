#include "dispatch.h"

#include <atomic>
#include <cstring>

#if defined(KG4D_X86)
namespace avx512 {
extern const kg4d::Kernels kernels;
}
namespace avx2 {
extern const kg4d::Kernels kernels;
}
#endif
namespace generic {
extern const kg4d::Kernels kernels;
}

namespace kg4d {
namespace {

bool available(const Kernels& k) {
#if defined(KG4D_X86)
    __builtin_cpu_init();
    // All that CMakeLists.txt compiles them with: a virtual machine may hide any of it.
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                      __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") &&
                      __builtin_cpu_supports("popcnt");
    if (&k == &avx2::kernels) return avx2;
    if (&k == &avx512::kernels) {
        return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
               __builtin_cpu_supports("avx512cd");
    }
#endif
    return &k == &generic::kernels;
}

#if defined(KG4D_X86)
const Kernels* const kFastestFirst[] = {&avx512::kernels, &avx2::kernels, &generic::kernels};
#else
const Kernels* const kFastestFirst[] = {&generic::kernels};
#endif

const Kernels* fastest() {
    for (const Kernels* k : kFastestFirst) {
        if (available(*k)) return k;
    }
    return &generic::kernels;
}

std::atomic<const Kernels*>& selected() {
    static std::atomic<const Kernels*> kernels{fastest()};
    return kernels;
}

}  // namespace

const Kernels& kernels() { return *selected().load(std::memory_order_relaxed); }

bool use_isa(const char* name) {
    for (const Kernels* k : kFastestFirst) {
        if (name == nullptr || std::strcmp(name, k->isa) != 0 || !available(*k)) continue;
        selected().store(k);
        return true;
    }
    return false;
}

}  // namespace kg4d
