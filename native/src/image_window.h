// The Gaussian window of the SSIM, 11 taps of sigma 1.5, along sequences of vectors.
#pragma once

#include "buffer.h"
#include "simd/lanes.h"

namespace KG4D_ISA {

constexpr int kRadius = 5;

// Index of what a mirrored border shows at i: the edge is not repeated.
KG4D_INLINE int64_t mirror(int64_t i, int64_t n) {
    if (n == 1) return 0;
    const int64_t period = 2 * (n - 1);
    i = ((i % period) + period) % period;
    return i < n ? i : period - i;
}

class Window {
public:
    Window() {
        double sum = 0.0, value[kRadius + 1];
        for (int k = 0; k <= kRadius; ++k) sum += (k > 0 ? 2 : 1) * (value[k] = std::exp(-k * k / (2.0 * 1.5 * 1.5)));
        for (int k = 0; k <= kRadius; ++k) store_register(tap_[k], splat_register(static_cast<float>(value[k] / sum)));
    }

    // Four neighbouring windows: the first over x[0 .. 10], where x[k] is the vector k * kLanes floats behind `x`. All
    // is read before anything is written.
    //
    // The window is symmetric: five sums of two and six multiply-adds, and sums run on other units. All four walk from
    // their ends to their middles, so that each vector is loaded once: with eleven loads a window loads are the limit.
    KG4D_ALWAYS_INLINE void four(const float* x, float* out) const {
        for (int at = 0; at < kLanes; at += kRegister) {
            const auto row = [&](int k)
                                 __attribute__((always_inline)) { return held(load_register(x + k * kLanes + at)); };
            const auto tap = [&](int k) __attribute__((always_inline)) { return held(load_register(tap_[k])); };
            const vr r0 = row(0), r1 = row(1), r2 = row(2), r3 = row(3), t5 = tap(5);
            const vr r10 = row(10), r11 = row(11), r12 = row(12), r13 = row(13);
            vr a = (r0 + r10) * t5, b = (r1 + r11) * t5, c = (r2 + r12) * t5, d = (r3 + r13) * t5;
            const vr r4 = row(4), r9 = row(9), t4 = tap(4);
            a = (r1 + r9) * t4 + a, b = (r2 + r10) * t4 + b, c = (r3 + r11) * t4 + c, d = (r4 + r12) * t4 + d;
            const vr r5 = row(5), r8 = row(8), t3 = tap(3);
            a = (r2 + r8) * t3 + a, b = (r3 + r9) * t3 + b, c = (r4 + r10) * t3 + c, d = (r5 + r11) * t3 + d;
            const vr r6 = row(6), r7 = row(7), t2 = tap(2);
            a = (r3 + r7) * t2 + a, b = (r4 + r8) * t2 + b, c = (r5 + r9) * t2 + c, d = (r6 + r10) * t2 + d;
            const vr t1 = tap(1);
            a = (r4 + r6) * t1 + a, b = (r5 + r7) * t1 + b, c = (r6 + r8) * t1 + c, d = (r7 + r9) * t1 + d;
            const vr t0 = tap(0);
            a = r5 * t0 + a, b = r6 * t0 + b, c = r7 * t0 + c, d = r8 * t0 + d;
            store_register(out + at, a), store_register(out + kLanes + at, b);
            store_register(out + 2 * kLanes + at, c), store_register(out + 3 * kLanes + at, d);
        }
    }

private:
    alignas(64) float tap_[kRadius + 1][kRegister];
};

}  // namespace KG4D_ISA
