// Calls a template with the number of blended channels as a constant: the next size that exists, or 0 for "any number,
// kept in memory instead of registers".
#pragma once

#include <cstdint>
#include <type_traits>

#include "buffer.h"
#include "simd/lanes.h"

namespace KG4D_ISA {

template <int n>
using Channels = std::integral_constant<int, n>;

// One sum per blended channel: in registers, or in memory where their number is not a constant.
template <int N>
struct ChannelSums {
    vf value[N];

    KG4D_ALWAYS_INLINE void read(vf* from, int64_t) {
        unrolled<N>(KG4D_EACH(k) { value[k] = from[k]; });
    }
    KG4D_ALWAYS_INLINE void add(vf weight, const float* row) {
        unrolled<N>(KG4D_EACH(k) { value[k] = fma(weight, splat(row[k]), value[k]); });
    }
    KG4D_ALWAYS_INLINE void write(vf* to) const {
        unrolled<N>(KG4D_EACH(k) { to[k] = value[k]; });
    }
};
template <>
struct ChannelSums<0> {
    vf* value;
    int64_t channels;

    KG4D_ALWAYS_INLINE void read(vf* from, int64_t count) { value = from, channels = count; }
    KG4D_ALWAYS_INLINE void add(vf weight, const float* row) {
        for (int64_t k = 0; k < channels; ++k) value[k] = fma(weight, splat(row[k]), value[k]);
    }
    KG4D_ALWAYS_INLINE void write(vf*) const {}
};

// The sizes: 1, 3 and 4 (a mask, colours, colours and depth), and what KG4D's J = 14 keypoints ask for: 14 (heatmaps),
// 17 (with colours), 18 (with depth too). The others bound what is wasted in between.
template <class F>
KG4D_INLINE void with_channels(int64_t channels, const F& f) {
    if (channels <= 1) return f(Channels<1>());
    if (channels <= 3) return f(Channels<3>());
    if (channels <= 4) return f(Channels<4>());
    if (channels <= 8) return f(Channels<8>());
    if (channels <= 14) return f(Channels<14>());
    if (channels <= 17) return f(Channels<17>());
    if (channels <= 18) return f(Channels<18>());
    if (channels <= 24) return f(Channels<24>());
    if (channels <= 32) return f(Channels<32>());
    return f(Channels<0>());
}

}  // namespace KG4D_ISA
