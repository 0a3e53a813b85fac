// Prints how many 16-lane multiply-adds this machine does in a second on one core: what benchmarks/_fma_rate.py
// holds the kernels' times against. Built once per instruction set, with the flags of the kernels.
#include <chrono>
#include <cstdio>

#include "simd/lanes.h"

namespace KG4D_ISA {

double fma_rate() {
#if defined(KG4D_USE_AVX512)
    constexpr int chains = 12;  // independent: enough to hide the latency, few enough for the registers
#else
    constexpr int chains = 6;
#endif
    constexpr int64_t rounds = 200000;
    vf sum[chains];
    for (int i = 0; i < chains; ++i) sum[i] = splat(static_cast<float>(i));
    const vf factor = splat(0.999f), term = splat(0.001f);  // without fast-math rules no compiler shortens this
    const auto start = std::chrono::steady_clock::now();
    for (int64_t round = 0; round < rounds; ++round) {
        for (vf& s : sum) s = fma(s, factor, term);
    }
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    vf total = sum[0];
    for (int i = 1; i < chains; ++i) total = total + sum[i];
    alignas(64) float lanes[kLanes];
    store(lanes, total);
    float used = 0.0f;  // every lane is used, so every lane is computed
    for (float lane : lanes) used += lane;
    return used > 1e30f ? 0.0 : static_cast<double>(chains * rounds) / seconds;
}

}  // namespace KG4D_ISA

int main() { std::printf("%.6e\n", KG4D_ISA::fma_rate()); }
