// Sixteen float lanes under one interface: `vf` (values) and `vm` (lane masks). `vr` is one register of `kRegister`
// lanes with the compilers' own arithmetic, for loops that must count registers.
//
// A 4x4 pixel block, or sixteen Gaussians, fill one vector. Each instruction set brings the same small set of
// operations; everything built from them (exp2, transposed sums) lives here once.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>

#define KG4D_INLINE static inline __attribute__((always_inline))

#if defined(KG4D_USE_AVX512)
#include "avx512.h"
#elif defined(KG4D_USE_AVX2)
#include "avx2.h"
#else
#include "generic.h"
#endif

namespace KG4D_ISA {

constexpr int kLanes = 16;

// f(0) ... f(count - 1), written out by the front end: arrays that are only indexed so can live in registers.
template <class F, int... k>
KG4D_INLINE void call_each(std::integer_sequence<int, k...>, const F& f) {
    (f(k), ...);
}
template <int count, class F>
KG4D_INLINE void unrolled(const F& f) {
    call_each(std::make_integer_sequence<int, count>(), f);
}
#define KG4D_EACH(k) [&](int k) __attribute__((always_inline))

// Asks for memory before it is needed; the address may lie anywhere.
KG4D_INLINE void prefetch(const void* p) { __builtin_prefetch(p, 0); }
KG4D_INLINE void prefetch_to_write(const void* p) { __builtin_prefetch(p, 1); }

// The same pointer, of which the compiler now knows nothing: it then addresses what lies behind it by constant offsets
// (an index register would split each fused load-and-multiply in two) and does not keep invariant values on the stack.
template <class T>
KG4D_INLINE const T* opaque(const T* p) {
    asm volatile("" : "+r"(p));
    return p;
}

KG4D_INLINE vf clamp(vf x, vf low, vf high) { return min(max(x, low), high); }

// 2^x for x in [-126, 127], relative error 2e-7; outside that range the result is meaningless.
// Adding a magic number leaves round(x) in the low mantissa bits, ready to be shifted into the exponent. The polynomial
// is split into independent halves: the kernels wait for latency more than for throughput.
KG4D_INLINE vf exp2(vf x) {
    const vf shifted = x + splat(12582912.0f);  // 1.5 * 2^23
    const vf f = minus_rounded(x), f2 = f * f;
    const vf high = fma(splat(1.32647273e-3f), f, splat(9.67151299e-3f));
    const vf middle = fma(splat(5.55073358e-2f), f, splat(2.40222424e-1f));
    const vf low = fma(splat(6.93147004e-1f), f, splat(1.0f));
    return add_to_exponent(fma(f2, fma(f2, high, middle), low), shifted);
}

KG4D_INLINE vf log2(vf x) {
    alignas(64) float lanes[kLanes];
    store(lanes, x);
    for (float& lane : lanes) lane = std::log2(lane);
    return load(lanes);
}

// Every `stride`-th float from p into the first `count` lanes; the other lanes are zero.
KG4D_INLINE vf gather(const float* p, int64_t stride, int count) {
    if (stride == 1 && count == kLanes) return load(p);
    alignas(64) float lanes[kLanes];
    if (count == kLanes) {
        for (int i = 0; i < kLanes; ++i) lanes[i] = p[i * stride];
    } else {
        for (int i = 0; i < kLanes; ++i) lanes[i] = i < count ? p[i * stride] : 0.0f;
    }
    return load(lanes);
}

// The first `count` lanes to every `stride`-th float of p.
KG4D_INLINE void scatter(vf v, float* p, int64_t stride, int count) {
    if (stride == 1 && count == kLanes) return store(p, v);
    alignas(64) float lanes[kLanes];
    store(lanes, v);
    for (int i = 0; i < count; ++i) p[i * stride] = lanes[i];
}

// `total` >= 4 neighbouring floats of each Gaussian, one vector for each of them: by 4x4 transposes.
KG4D_INLINE void load_each(const float* p, int total, int count, vf* out) {
    if (count < kLanes) {
        for (int k = 0; k < total; ++k) out[k] = gather(p + k, total, count);
        return;
    }
    for (int k = 0; k < total; k += 4) {
        const int at = k + 4 <= total ? k : total - 4;  // the last four overlap those before
        vf* v = out + at;
        for (int j = 0; j < 4; ++j) v[j] = load_rows(p + at + j * total, 4 * total);
        transpose4(v[0], v[1], v[2], v[3]);
    }
}

KG4D_INLINE void store_each(const vf* values, int total, int count, float* p) {
    if (count < kLanes) {
        for (int k = 0; k < total; ++k) scatter(values[k], p + k, total, count);
        return;
    }
    for (int k = 0; k < total; k += 4) {
        const int at = k + 4 <= total ? k : total - 4;
        vf v[4] = {values[at], values[at + 1], values[at + 2], values[at + 3]};
        transpose4(v[0], v[1], v[2], v[3]);
        for (int j = 0; j < 4; ++j) store_rows(p + at + j * total, 4 * total, v[j]);
    }
}

// Sums the lanes of each of `count` <= 16 vectors; the sum of v[i] is left in lane i. Destroys v.
//
// A binary tree: each level halves the number of vectors by adding, for a pair (x, y), the two halves of x into one
// set of lanes and the two halves of y into the other. A vector without partner is folded onto itself.
template <int count>
KG4D_INLINE vf sum_each(vf* v) {
    constexpr int level1 = (count + 1) / 2, level2 = (level1 + 1) / 2, level3 = (level2 + 1) / 2;
    const auto partner = [](int i, int size) __attribute__((always_inline)) { return i + 1 < size ? i + 1 : i; };
    unrolled<level1>(KG4D_EACH(i) { v[i] = fold_pair<1>(v[2 * i], v[partner(2 * i, count)]); });
    unrolled<level2>(KG4D_EACH(i) { v[i] = fold_pair<2>(v[2 * i], v[partner(2 * i, level1)]); });
    unrolled<level3>(KG4D_EACH(i) { v[i] = fold_pair<4>(v[2 * i], v[partner(2 * i, level2)]); });
    return fold_pair<8>(v[0], level3 > 1 ? v[1] : v[0]);
}

}  // namespace KG4D_ISA
