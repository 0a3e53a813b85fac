// Walks the splats of each tile back to front and leaves, per (splat, tile) pair, the sums over pixels that
// project_backward turns into gradients (see kernels.h). No two tiles write to the same place, so there are no atomics
// and the result does not depend on the number of threads.
//
// For one pixel, with weights w_i = alpha_i T_i, per-splat values s_i = <features_i, v> (v the gradient of the image)
// and B_i what all splats behind i and the background contribute: dL/dalpha_i = T_i s_i - B_i / (1 - alpha_i).
#include <atomic>

#include "block_io.h"
#include "channels.h"
#include "isa.h"
#include "thread_pool.h"
#include "tile_batch.h"

namespace KG4D_ISA {
namespace {

struct BackwardPass {
    const kg4d_frame& frame;
    const kg4d_scene& scene;
    const kg4d_gradients& gradients;
    float* pair_gradients;
};

struct BackwardTile {
    vf* v;                      // [16 blocks, channels] gradient of the blended channels
    vf transmittance[16];       // behind the splats still to be visited
    vf behind[16];              // B
};

// Gradients at the pixels of block b. The part of alpha that no splat covers carries the gradients of alpha (through
// 1 - T), of the background, and of the division by alpha in the expected depth.
void load_gradients(const BackwardPass& pass, const TilePlace& place, int64_t tile, int b, int64_t channels,
                    BackwardTile& t) {
    const kg4d_frame& frame = pass.frame;
    vf* v = t.v + b * channels;
    for (int64_t k = 0; k < channels; ++k) v[k] = splat(0.0f);
    t.transmittance[b] = splat(1.0f), t.behind[b] = splat(0.0f);
    const BlockPlace at = block_place(frame, place, b);
    if (at.rows == 0 || at.columns == 0) return;
    const vf T = load(&frame.transmittance[(tile * 16 + b) * 16]);
    vf v_alpha = splat(0.0f);
    if (pass.gradients.alpha) load_block(pass.gradients.alpha, at, 1, &v_alpha);
    if (pass.gradients.image) load_block(pass.gradients.image, at, frame.channels, v);
    if (pass.gradients.depth && frame.has_depth) {
        vf v_depth;
        load_block(pass.gradients.depth, at, 1, &v_depth);
        const vf alpha = splat(1.0f) - T, scaled = v_depth / max(alpha, splat(1e-10f));
        v[frame.channels] = scaled;
        v_alpha = keep(alpha > splat(1e-10f), fnma(scaled, load(&frame.depth[(tile * 16 + b) * 16]), v_alpha));
    }
    if (pass.scene.background) {
        const float* background = pass.scene.background + place.camera * frame.channels;
        for (int64_t k = 0; k < frame.channels; ++k) v_alpha = fnma(splat(background[k]), v[k], v_alpha);
    }
    t.transmittance[b] = T;
    t.behind[b] = splat(0.0f) - T * v_alpha;
}

// Adds one block's part to the sums of one splat.
template <int N, bool absolute>
KG4D_INLINE void accumulate_block(const TileSplat& s, const float* row, int64_t channels, int b, const float* stop,
                                  BackwardTile& t, vf* geometry, vf* features) {
    const Footprint f = footprint(s, load(kPixelX[b % 4]), load(kPixelY[b / 4]));
    const vm hit = (f.power >= splat(kLog2MinAlpha)) & (load(stop) > splat(s.index));
    const vf raw = exp2(f.power);
    const vf alpha = keep(hit, min_positive(raw, splat(kMaxAlpha)));
    const vf inverse = reciprocal(splat(1.0f) - alpha);
    const vf T = t.transmittance[b] * inverse, weight = alpha * T;
    t.transmittance[b] = T;
    const vf* v = t.v + b * (N > 0 ? N : channels);
    vf even = splat(0.0f), odd = splat(0.0f);  // two chains for s
    for (int64_t k = 0; k < (N > 0 ? N : channels); ++k) {
        const vf v_k = v[k];
        (k % 2 ? odd : even) = fma(v_k, splat(row[k]), k % 2 ? odd : even);
        features[k] = fma(weight, v_k, features[k]);
    }
    const vf value = even + odd, behind = t.behind[b];
    const vf v_alpha = fnma(inverse, behind, T * value);
    t.behind[b] = fma(weight, value, behind);
    const vf g = keep(hit & (raw <= splat(kMaxAlpha)), raw * v_alpha);
    const vf gu = g * f.u, gv = g * f.v;
    geometry[0] = geometry[0] + g;
    geometry[1] = geometry[1] + gu;
    geometry[2] = geometry[2] + gv;
    geometry[3] = fma(gu, f.u, geometry[3]);
    geometry[4] = fma(gu, f.v, geometry[4]);
    geometry[5] = fma(gv, f.v, geometry[5]);
    if (absolute) {  // U^T (gu, gv) is the gradient of the centre, up to the factor that the sum gets later
        geometry[6] = geometry[6] + abs(splat(s.a) * gu);
        geometry[7] = geometry[7] + abs(fma(splat(s.b), gu, splat(s.c) * gv));
    }
}

template <int N>
KG4D_INLINE void write_sums(vf* sums, int64_t channels, float* out) {
    if constexpr (N > 0) {
        constexpr int total = kGeometryGradients + N, first = total < 16 ? total : 16;
        store(out, sum_each<first>(sums));
        if constexpr (total > 16) store(out + 16, sum_each<(total < 32 ? total : 32) - 16>(sums + 16));
        if constexpr (total > 32) store(out + 32, sum_each<total - 32>(sums + 32));
    } else {
        const int64_t stride = pair_gradient_stride(channels);
        for (int64_t k = kGeometryGradients + channels; k < stride; ++k) sums[k] = splat(0.0f);
        for (int64_t k = 0; k < stride; k += 16) store(out + k, sum_each<16>(sums + k));
    }
}

template <int N, bool absolute>
int64_t backward_tile(const BackwardPass& pass, int64_t tile, float* scratch) {
    const kg4d_frame& frame = pass.frame;
    const int64_t channels = N > 0 ? N : frame.blended_channels(), stride = pair_gradient_stride(channels);
    const int64_t begin = frame.tile_start[tile], end = frame.tile_start[tile + 1];
    if (begin == end) return 0;
    const TilePlace place = place_of(frame, tile);
    const int64_t camera_splats = place.camera * frame.gaussians;
    const FeatureSource source = {
        pass.scene.features + (pass.scene.features_per_camera ? camera_splats * frame.channels : 0), frame.channels,
        channels, frame.has_depth};
    BackwardTile t;
    t.v = reinterpret_cast<vf*>(scratch);
    vf* memory_sums = t.v + 16 * channels;
    float* row = reinterpret_cast<float*>(memory_sums + stride);
    for (int b = 0; b < 16; ++b) load_gradients(pass, place, tile, b, channels, t);
    const float* stop = &frame.stop[tile * kTilePixels];
    int64_t visits = 0;
    for (int64_t i = end - 1; i >= begin; --i) {
        const TileEntry& entry = frame.entries[i];
        float* out = pass.pair_gradients + entry.pair * stride;
        if (entry.touched == 0) {
            std::memset(out, 0, stride * sizeof *out);
            continue;
        }
        const Splat& splat_i = frame.splats[entry.splat];
        const TileSplat s =
            relative_to_tile(splat_i, static_cast<float>(place.x), static_cast<float>(place.y), i - begin);
        load_features(source, splat_i, entry.splat - camera_splats, row);
        vf local[kGeometryGradients + (N > 0 ? N : 1)];
        vf* sums = N > 0 ? local : memory_sums;
        for (int64_t k = 0; k < kGeometryGradients + channels; ++k) sums[k] = splat(0.0f);
        visits += __builtin_popcount(entry.touched);
        for (unsigned left = entry.touched; left != 0; left &= left - 1) {
            const int b = __builtin_ctz(left);
            accumulate_block<N, absolute>(s, row, channels, b, stop + 16 * b, t, sums,
                                          sums + kGeometryGradients);
        }
        write_sums<N>(sums, channels, out);
    }
    return visits;
}

}  // namespace

void backward(kg4d_frame& frame, const kg4d_scene& scene, const kg4d_gradients& gradients, float* pair_gradients) {
    const BackwardPass pass = {frame, scene, gradients, pair_gradients};
    std::atomic<int64_t> visits{0};
    with_channels(frame.blended_channels(), [&](auto constant) {
        constexpr int N = decltype(constant)::value;
        const int64_t channels = N > 0 ? N : frame.blended_channels();
        parallel_for(scene.threads, frame.tiles, [&](int64_t tile) {
            float* scratch = thread_scratch((16 * channels + pair_gradient_stride(channels)) * kLanes + channels);
            visits.fetch_add(gradients.absgrad ? backward_tile<N, true>(pass, tile, scratch)
                                               : backward_tile<N, false>(pass, tile, scratch),
                             std::memory_order_relaxed);
        });
    });
    frame.statistics.backward_visits = visits.load();
}

}  // namespace KG4D_ISA
