// Walks the splats of each tile back to front and leaves, per (splat, tile) pair, the sums over pixels that
// project_backward turns into gradients (see kernels.h). No two tiles write to the same place, so there are no atomics
// and the result does not depend on the number of threads.
//
// For one pixel, with weights w_i = alpha_i T_i, per-splat values s_i = <features_i, v> (v the gradient of the image)
// and B_i the same of all that is seen through it (the splats behind i blended over the background):
// dL/dalpha_i = T_i (s_i - B_i), and B_{i-1} = B_i + alpha_i (s_i - B_i).
#include <atomic>

#include "block_io.h"
#include "channels.h"
#include "isa.h"
#include "thread_pool.h"
#include "tile_batch.h"

namespace KG4D_ISA {
namespace {

struct BackwardPass {
    const kg4d_render_plan& plan;
    const kg4d_scene& scene;
    const kg4d_gradients& gradients;
    float* pair_gradients;
};

struct BackwardTile {
    vf* v;                 // [16 blocks, channels] gradient of the blended channels
    vf transmittance[16];  // behind the splats still to be visited
    vf behind[16];         // B
};

// Gradients at the pixels of block b. The part of alpha that no splat covers carries the gradients of alpha (through
// 1 - T), of the background, and of the division by alpha in the expected depth.
void load_gradients(const BackwardPass& pass, const TileOrigin& origin, int64_t tile, int b, int64_t channels,
                    BackwardTile& t) {
    const kg4d_render_plan& plan = pass.plan;
    vf* v = t.v + b * channels;
    for (int64_t k = 0; k < channels; ++k) v[k] = splat(0.0f);
    t.transmittance[b] = splat(1.0f), t.behind[b] = splat(0.0f);
    const BlockRegion at = block_region(plan, origin, b);
    if (at.rows == 0 || at.columns == 0) return;
    const vf T = load(&plan.transmittance[(tile * 16 + b) * 16]);
    vf v_alpha = splat(0.0f);
    if (pass.gradients.alpha) load_block(pass.gradients.alpha, at, 1, &v_alpha);
    if (pass.gradients.image) load_block(pass.gradients.image, at, plan.channels, v);
    if (pass.gradients.depth && plan.has_depth) {
        vf v_depth;
        load_block(pass.gradients.depth, at, 1, &v_depth);
        const vf alpha = splat(1.0f) - T, scaled = v_depth / max(alpha, splat(1e-10f));
        v[plan.channels] = scaled;
        v_alpha = keep(alpha > splat(1e-10f), fnma(scaled, load(&plan.depth[(tile * 16 + b) * 16]), v_alpha));
    }
    if (pass.scene.background) {
        const float* background = pass.scene.background + origin.camera * plan.channels;
        for (int64_t k = 0; k < plan.channels; ++k) v_alpha = fnma(splat(background[k]), v[k], v_alpha);
    }
    t.transmittance[b] = T;
    t.behind[b] = splat(0.0f) - v_alpha;
}

// The sums of one splat over the pixels of its tile (see kernels.h): kGeometryGradients, then one per kept channel.
template <int N, bool keeps_channels>
struct SplatSums {
    static constexpr int total = kGeometryGradients + (keeps_channels ? N : 0);
    vf value[total];

    KG4D_ALWAYS_INLINE SplatSums(vf*, int64_t) {
        unrolled<total>(KG4D_EACH(k) { value[k] = splat(0.0f); });
    }
    // Adds weight v to the channels; returns <row, v>, summed in two chains.
    KG4D_ALWAYS_INLINE vf add_channels(vf weight, const vf* v, const float* row) {
        vf part[2] = {splat(0.0f), splat(0.0f)};
        unrolled<N>(KG4D_EACH(k) {
            const vf v_k = v[k];
            part[k % 2] = fma(v_k, splat(row[k]), part[k % 2]);
            if constexpr (keeps_channels) {
                value[kGeometryGradients + k] = fma(weight, v_k, value[kGeometryGradients + k]);
            }
        });
        return part[0] + part[1];
    }
    KG4D_ALWAYS_INLINE void write(float* out) {
        constexpr int first = total < 16 ? total : 16;
        store(out, sum_each<first>(value));
        if constexpr (total > 16) store(out + 16, sum_each<(total < 32 ? total : 32) - 16>(value + 16));
        if constexpr (total > 32) store(out + 32, sum_each<total - 32>(value + 32));
    }
};
template <bool keeps_channels>
struct SplatSums<0, keeps_channels> {
    vf* value;
    int64_t channels, stride;

    KG4D_ALWAYS_INLINE SplatSums(vf* memory, int64_t count)
        : value(memory), channels(count), stride(pair_gradient_stride(keeps_channels ? count : 0)) {
        for (int64_t k = 0; k < stride; ++k) value[k] = splat(0.0f);
    }
    KG4D_ALWAYS_INLINE vf add_channels(vf weight, const vf* v, const float* row) {
        vf sum = splat(0.0f);
        for (int64_t k = 0; k < channels; ++k) {
            sum = fma(v[k], splat(row[k]), sum);
            if constexpr (keeps_channels) {
                value[kGeometryGradients + k] = fma(weight, v[k], value[kGeometryGradients + k]);
            }
        }
        return sum;
    }
    KG4D_ALWAYS_INLINE void write(float* out) {
        for (int64_t k = 0; k < stride; k += 16) store(out + k, sum_each<16>(value + k));
    }
};

// Adds one block's part to the sums of one splat.
template <int N, bool keeps_channels, bool absolute>
KG4D_INLINE void accumulate_block(const TileSplat& s, const float* row, int64_t channels, int b, const float* last,
                                  BackwardTile& t, SplatSums<N, keeps_channels>& sums) {
    const Footprint f = footprint(s, load(kPixelX[b % 4]), load(kPixelY[b / 4]));
    const vm hit = (f.power >= splat(kLog2MinAlpha)) & (load(last + 16 * b) >= splat(s.index));
    const vf raw = exp2(f.power);
    const vf alpha = keep_min_positive(hit, raw, splat(kMaxAlpha));
    const vf T = t.transmittance[b] * reciprocal(splat(1.0f) - alpha), weight = alpha * T;
    t.transmittance[b] = T;
    const vf value = sums.add_channels(weight, opaque(t.v + b * (N > 0 ? N : channels)), row);
    const vf difference = value - t.behind[b];
    t.behind[b] = fma(alpha, difference, t.behind[b]);
    const vf g = keep(splat(kMaxAlpha) >= raw, weight * difference);  // a clamped alpha does not move
    const vf gu = g * f.u, gv = g * f.v;
    vf* geometry = sums.value;
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

template <int N, bool keeps_channels, bool absolute>
int64_t backward_tile(const BackwardPass& pass, int64_t tile, float* scratch) {
    const kg4d_render_plan& plan = pass.plan;
    const int64_t channels = N > 0 ? N : plan.blended_channels();
    const int64_t stride = pair_gradient_stride(keeps_channels ? plan.blended_channels() : 0);
    const int64_t begin = plan.tile_start[tile], end = plan.tile_start[tile + 1];
    if (begin == end) return 0;
    const TileOrigin origin = tile_origin(plan, tile);
    const int64_t camera_splats = origin.camera * plan.gaussians;
    const FeatureSource source = feature_source(plan, pass.scene, origin.camera, channels);
    BackwardTile t;
    t.v = reinterpret_cast<vf*>(scratch);
    vf* memory_sums = t.v + 16 * channels;
    float* row = reinterpret_cast<float*>(memory_sums + stride);
    for (int b = 0; b < 16; ++b) load_gradients(pass, origin, tile, b, channels, t);
    if (pass.gradients.image && tile + 1 < plan.tiles && plan.tile_start[tile + 2] > end) {
        const TileOrigin next = tile_origin(plan, tile + 1);
        for (int b = 0; b < 16; ++b) prefetch(pass.gradients.image, block_region(plan, next, b), plan.channels);
    }
    const float* last = &plan.last[tile * kTilePixels];
    int64_t visits = 0;
    for (int64_t i = end - 1; i >= begin; --i) {
        const TileEntry& entry = plan.entries[i];
        if (i >= kAhead) {
            const TileEntry& next = plan.entries[i - kAhead];
            prefetch_splat(plan, source, next.splat, camera_splats);
            for (int64_t k = 0; k < stride; k += 16) prefetch_to_write(pass.pair_gradients + next.pair * stride + k);
        }
        float* out = pass.pair_gradients + entry.pair * stride;
        if (entry.touched == 0) {
            std::memset(out, 0, stride * sizeof *out);
            continue;
        }
        const Splat& splat_i = plan.splats[entry.splat];
        const TileSplat s =
            relative_to_tile(splat_i, static_cast<float>(origin.x), static_cast<float>(origin.y), i - begin);
        load_features<N>(source, splat_i, entry.splat - camera_splats, row);
        SplatSums<N, keeps_channels> sums(memory_sums, channels);
        visits += __builtin_popcount(entry.touched);
        for (unsigned left = entry.touched; left != 0; left &= left - 1) {
            accumulate_block<N, keeps_channels, absolute>(*opaque(&s), opaque(row), channels, __builtin_ctz(left), last,
                                                          t, sums);
        }
        sums.write(out);
    }
    return visits;
}

}  // namespace

void backward(kg4d_render_plan& plan, const kg4d_scene& scene, const kg4d_gradients& gradients, float* pair_gradients) {
    const BackwardPass pass = {plan, scene, gradients, pair_gradients};
    const bool keeps_channels = kept_channels(plan, gradients) > 0;
    std::atomic<int64_t> visits{0};
    with_channels(plan.blended_channels(), [&](auto constant) {
        constexpr int N = decltype(constant)::value;
        const int64_t channels = N > 0 ? N : plan.blended_channels();
        parallel_for(scene.threads, plan.tiles, [&](int64_t tile) {
            float* scratch = thread_scratch((16 * channels + pair_gradient_stride(channels)) * kLanes + channels);
            visits.fetch_add(gradients.absgrad ? backward_tile<N, true, true>(pass, tile, scratch)
                             : keeps_channels  ? backward_tile<N, true, false>(pass, tile, scratch)
                                               : backward_tile<N, false, false>(pass, tile, scratch),
                             std::memory_order_relaxed);
        });
    });
    plan.statistics.backward_visits = visits.load();
}

}  // namespace KG4D_ISA
