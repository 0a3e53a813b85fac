// Blends the splats of each tile front to back.
//
// One vector is one 4x4 block, so the transmittance and the D channels of a block live in registers while its splats
// are walked through. A splat ends a pixel, without being drawn, when it would leave at most kMinTransmittance.
#include <algorithm>
#include <atomic>

#include "block_io.h"
#include "channels.h"
#include "isa.h"
#include "thread_pool.h"
#include "tile_batch.h"

namespace KG4D_ISA {
namespace {

struct ForwardPass {
    kg4d_render_plan& plan;
    const kg4d_scene& scene;
    const kg4d_images& out;
};

// The splats of one batch and, per block, which of them reach it (bit i of word i / 64) and which did so before all its
// pixels had ended.
struct ForwardBatch {
    alignas(64) TileSplat splats[kBatch];
    uint64_t reach[16][kWords];
    uint64_t touched[16][kWords];
};

template <int N>
void load_batch(const kg4d_render_plan& plan, const FeatureSource& source, const TileOrigin& origin,
                const TileEntry* entries, int64_t first, int count, ForwardBatch& batch, float* features) {
    const int64_t listed = plan.pairs - (entries - plan.entries.data());  // this tile's and the next tiles'
    const float x0 = static_cast<float>(origin.x), y0 = static_cast<float>(origin.y);
    const int64_t first_splat = origin.camera * plan.gaussians;
    for (int i = 0; i < count; ++i) {
        if (i + kAhead < listed) prefetch_splat(plan, source, entries[i + kAhead].splat, first_splat);
        const Splat& s = plan.splats[entries[i].splat];
        batch.splats[i] = relative_to_tile(s, x0, y0, first + i);
        load_features<N>(source, s, entries[i].splat - first_splat, features + i * source.stride);
    }
    for (int group = 0; group < kBatch / 16; ++group) {
        uint64_t w[4] = {};
        for (int i = 16 * group; i < count && i < 16 * group + 16; ++i) {
            w[(i & 15) / 4] |= static_cast<uint64_t>(entries[i].blocks) << 16 * (i % 4);
        }
        transpose_bits(w);
        for (int b = 0; b < 16; ++b) {
            const uint16_t row = static_cast<uint16_t>(w[b / 4] >> 16 * (b % 4));
            std::memcpy(reinterpret_cast<uint16_t*>(batch.reach[b]) + group, &row, sizeof row);
        }
    }
    std::memset(batch.touched, 0, sizeof batch.touched);
}

void save_touched(const ForwardBatch& batch, int count, TileEntry* entries) {
    for (int group = 0; 16 * group < count; ++group) {
        uint64_t w[4] = {};
        for (int b = 0; b < 16; ++b) {
            uint16_t row;
            std::memcpy(&row, reinterpret_cast<const uint16_t*>(batch.touched[b]) + group, sizeof row);
            w[b / 4] |= static_cast<uint64_t>(row) << 16 * (b % 4);
        }
        transpose_bits(w);
        for (int i = 16 * group; i < count && i < 16 * group + 16; ++i) {
            entries[i].touched = static_cast<uint16_t>(w[(i & 15) / 4] >> 16 * (i % 4));
        }
    }
}

// The blocks of a tile between two batches.
struct BlockStates {
    vf transmittance[16];  // zero where the pixel has ended, or lies outside the image: then it receives nothing
    vf left[16];           // what the splats drawn so far let through
    vf last[16];           // index of the last splat looked at before the pixel ended
    vm open[16];
};

// Walks one block through one batch; returns the number of splats looked at. There is no branch on a single pixel: it
// would be mispredicted for every pixel that ends.
template <int N>
KG4D_INLINE int64_t blend_block(ForwardBatch& batch, const float* features, int64_t channels, int b,
                                BlockStates& states, vf* blended) {
    const vf X = load(kPixelX[b % 4]), Y = load(kPixelY[b / 4]);
    vf T = states.transmittance[b], left = states.left[b], last = states.last[b];
    vm open = states.open[b];
    ChannelSums<N> sums;
    sums.read(blended, channels);
    int64_t visits = 0;
    for (int w = 0; w < kWords && any(open); ++w) {
        uint64_t ahead = batch.reach[b][w];
        while (ahead != 0) {
            const int64_t i = 64 * w + __builtin_ctzll(ahead);
            ahead &= ahead - 1;
            const TileSplat& s = *opaque(&batch.splats[i]);
            const Footprint f = footprint(s, X, Y);
            const vf alpha = keep_min_positive(f.power >= splat(kLog2MinAlpha), exp2(f.power), splat(kMaxAlpha));
            const vf share = alpha * T;
            T = keep(open, fnma(alpha, T, T));
            open = T > splat(kMinTransmittance);
            left = select(open, T, left);
            last = select(open, splat(s.index), last);
            const vf weight = keep(open, share);
            sums.add(weight, opaque(features + i * (N > 0 ? N : channels)));
            if (!any(open)) break;
        }
        batch.touched[b][w] = batch.reach[b][w] & ~ahead;
        visits += __builtin_popcountll(batch.touched[b][w]);
    }
    sums.write(blended);
    states.transmittance[b] = T;
    states.left[b] = left;
    states.last[b] = last;
    states.open[b] = open;
    return visits;
}

void write_block(const ForwardPass& pass, const TileOrigin& origin, int64_t tile, int b, const BlockStates& states,
                 vf* blended) {
    kg4d_render_plan& plan = pass.plan;
    const BlockRegion at = block_region(plan, origin, b);
    if (at.rows == 0 || at.columns == 0) return;
    const int64_t channels = plan.channels, first = (tile * 16 + b) * 16;
    const vf T = states.left[b], alpha = splat(1.0f) - T;
    store(&plan.transmittance[first], T);
    store(&plan.last[first], states.last[b]);
    store_block(pass.out.alpha, at, 1, &alpha);
    if (plan.has_depth) {
        const vf depth = blended[channels] / max(alpha, splat(1e-10f));
        store(&plan.depth[first], depth);
        store_block(pass.out.depth, at, 1, &depth);
    }
    if (pass.scene.background != nullptr) {
        const float* background = pass.scene.background + origin.camera * channels;
        for (int64_t k = 0; k < channels; ++k) blended[k] = fma(T, splat(background[k]), blended[k]);
    }
    store_block(pass.out.image, at, channels, blended);
}

// Where no splat reaches: the background. (Backward does not look at such tiles.)
void write_empty_tile(const ForwardPass& pass, const TileOrigin& origin) {
    const kg4d_render_plan& plan = pass.plan;
    const int64_t channels = plan.channels;
    const int64_t rows = std::min<int64_t>(kTile, plan.height - origin.y);
    const int64_t columns = std::min<int64_t>(kTile, plan.width - origin.x);
    const float* background = pass.scene.background ? pass.scene.background + origin.camera * channels : nullptr;
    for (int64_t r = 0; r < rows; ++r) {
        const int64_t first = (origin.camera * plan.height + origin.y + r) * plan.width + origin.x;
        float* image = pass.out.image + first * channels;
        if (background == nullptr) {
            std::memset(image, 0, columns * channels * sizeof *image);
        } else {
            for (int64_t c = 0; c < columns; ++c, image += channels)
                std::memcpy(image, background, channels * sizeof *image);
        }
        std::memset(pass.out.alpha + first, 0, columns * sizeof(float));
        if (plan.has_depth) std::memset(pass.out.depth + first, 0, columns * sizeof(float));
    }
}

template <int N>
int64_t forward_tile(const ForwardPass& pass, int64_t tile, float* scratch) {
    kg4d_render_plan& plan = pass.plan;
    const int64_t channels = N > 0 ? N : plan.blended_channels();
    const TileOrigin origin = tile_origin(plan, tile);
    if (plan.tile_start[tile] == plan.tile_start[tile + 1]) {
        write_empty_tile(pass, origin);
        return 0;
    }
    const FeatureSource source = feature_source(plan, pass.scene, origin.camera, channels);
    vf* blended = reinterpret_cast<vf*>(scratch);  // [16 blocks, channels]
    float* features = scratch + 16 * channels * kLanes;
    ForwardBatch batch;
    BlockStates states;
    for (int b = 0; b < 16; ++b) {
        const BlockRegion at = block_region(plan, origin, b);
        const vm inside = (splat(static_cast<float>(at.rows)) > load(kPixelY[0])) &
                          (splat(static_cast<float>(at.columns)) > load(kPixelX[0]));
        states.transmittance[b] = keep(inside, splat(1.0f));
        states.left[b] = splat(1.0f);
        states.last[b] = splat(-1.0f);
        states.open[b] = inside;
    }
    for (int64_t k = 0; k < 16 * channels; ++k) blended[k] = splat(0.0f);
    const int64_t start = plan.tile_start[tile], end = plan.tile_start[tile + 1];
    int64_t visits = 0;
    bool open = true;
    for (int64_t begin = start; begin < end && open; begin += kBatch) {
        const int count = static_cast<int>(end - begin < kBatch ? end - begin : kBatch);
        TileEntry* entries = &plan.entries[begin];
        load_batch<N>(plan, source, origin, entries, begin - start, count, batch, features);
        open = false;
        for (int b = 0; b < 16; ++b) {
            if (begin == start) prefetch_to_write(pass.out.image, block_region(plan, origin, b), plan.channels);
            visits += blend_block<N>(batch, features, channels, b, states, blended + b * channels);
            open = open || any(states.open[b]);
        }
        save_touched(batch, count, entries);
    }
    for (int b = 0; b < 16; ++b) write_block(pass, origin, tile, b, states, blended + b * channels);
    return visits;
}

}  // namespace

void forward(kg4d_render_plan& plan, const kg4d_scene& scene, const kg4d_images& out) {
    plan.transmittance.reserve(plan.tiles * kTilePixels);
    plan.last.reserve(plan.tiles * kTilePixels);
    if (plan.has_depth) plan.depth.reserve(plan.tiles * kTilePixels);
    const ForwardPass pass = {plan, scene, out};
    std::atomic<int64_t> visits{0};
    with_channels(plan.blended_channels(), [&](auto constant) {
        constexpr int N = decltype(constant)::value;
        const int64_t channels = N > 0 ? N : plan.blended_channels();
        parallel_for(scene.threads, plan.tiles, [&](int64_t tile) {
            float* scratch = thread_scratch(static_cast<size_t>(channels) * (16 * kLanes + kBatch));
            visits.fetch_add(forward_tile<N>(pass, tile, scratch), std::memory_order_relaxed);
        });
    });
    plan.statistics.forward_visits = visits.load();
}

}  // namespace KG4D_ISA
