// Blends the splats of each tile front to back.
//
// One vector is one 4x4 block, so the transmittance and the D channels of a block live in registers while its splats
// are walked through. A splat ends a pixel, without being drawn, when it would leave at most kMinTransmittance.
#include <atomic>

#include "block_io.h"
#include "channels.h"
#include "isa.h"
#include "thread_pool.h"
#include "tile_batch.h"

namespace KG4D_ISA {
namespace {

constexpr float kNeverStopped = 3e38f;

struct ForwardPass {
    kg4d_frame& frame;
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

void load_batch(const kg4d_frame& frame, const FeatureSource& source, const TilePlace& place, const TileEntry* entries,
                int64_t first, int count, ForwardBatch& batch, float* features) {
    const float x0 = static_cast<float>(place.x), y0 = static_cast<float>(place.y);
    const int64_t first_splat = place.camera * frame.gaussians;
    for (int i = 0; i < count; ++i) {
        const Splat& s = frame.splats[entries[i].splat];
        batch.splats[i] = relative_to_tile(s, x0, y0, first + i);
        load_features(source, s, entries[i].splat - first_splat, features + i * source.stride);
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

// A block between two splats. A pixel that has ended, or lies outside the image, keeps its transmittance in `final` and
// goes on with none: that needs no branch, which would be mispredicted for every pixel that ends.
struct BlockState {
    vf transmittance, final, stop;
    vm open;
};

// Walks one block through one batch; returns the number of splats looked at.
template <int N>
KG4D_INLINE int64_t blend_block(ForwardBatch& batch, const float* features, int64_t channels, int b, BlockState& state,
                                vf* blended) {
    const vf X = load(kPixelX[b % 4]), Y = load(kPixelY[b / 4]);
    vf T = state.transmittance, final = state.final, stop = state.stop;
    vm open = state.open;
    vf local[N > 0 ? N : 1];
    vf* sum = N > 0 ? local : blended;
    for (int k = 0; k < N; ++k) sum[k] = blended[k];
    int64_t visits = 0;
    for (int w = 0; w < kWords && any(open); ++w) {
        uint64_t left = batch.reach[b][w];
        while (left != 0) {
            const int64_t i = 64 * w + __builtin_ctzll(left);
            left &= left - 1;
            const TileSplat& s = batch.splats[i];
            const Footprint f = footprint(s, X, Y);
            const vf alpha = keep(f.power >= splat(kLog2MinAlpha), min_positive(exp2(f.power), splat(kMaxAlpha)));
            const vf next = fnma(alpha, T, T);
            const vm goes_on = next > splat(kMinTransmittance), ends = and_not(open, goes_on);
            const vf weight = keep(goes_on, alpha * T);
            final = select(ends, T, final);
            stop = select(ends, splat(s.index), stop);
            T = keep(goes_on, next);
            open = open & goes_on;
            const float* row = features + i * (N > 0 ? N : channels);
            for (int64_t k = 0; k < (N > 0 ? N : channels); ++k) sum[k] = fma(weight, splat(row[k]), sum[k]);
            if (!any(open)) break;
        }
        batch.touched[b][w] = batch.reach[b][w] & ~left;
        visits += __builtin_popcountll(batch.touched[b][w]);
    }
    for (int k = 0; k < N; ++k) blended[k] = sum[k];
    state = {T, final, stop, open};
    return visits;
}

void write_block(const ForwardPass& pass, int64_t tile, const BlockPlace& at, int b, int64_t camera,
                 const BlockState& state, vf* blended) {
    kg4d_frame& frame = pass.frame;
    const int64_t channels = frame.channels, first = (tile * 16 + b) * 16;
    const vf T = select(state.open, state.transmittance, state.final), alpha = splat(1.0f) - T;
    store(&frame.transmittance[first], T);
    store(&frame.stop[first], state.stop);
    store_block(pass.out.alpha, at, 1, &alpha);
    if (frame.has_depth) {
        const vf depth = blended[channels] / max(alpha, splat(1e-10f));
        store(&frame.depth[first], depth);
        store_block(pass.out.depth, at, 1, &depth);
    }
    if (pass.scene.background != nullptr) {
        const float* background = pass.scene.background + camera * channels;
        for (int64_t k = 0; k < channels; ++k) blended[k] = fma(T, splat(background[k]), blended[k]);
    }
    store_block(pass.out.image, at, channels, blended);
}

template <int N>
int64_t forward_tile(const ForwardPass& pass, int64_t tile, float* scratch) {
    kg4d_frame& frame = pass.frame;
    const int64_t channels = N > 0 ? N : frame.blended_channels();
    const TilePlace place = place_of(frame, tile);
    const int64_t camera_features = pass.scene.features_per_camera ? place.camera * frame.gaussians : 0;
    const FeatureSource source = {pass.scene.features + camera_features * frame.channels, frame.channels, channels,
                                  frame.has_depth};
    vf* blended = reinterpret_cast<vf*>(scratch);  // [16 blocks, channels]
    float* features = scratch + 16 * channels * kLanes;
    ForwardBatch batch;
    BlockState states[16];
    for (int b = 0; b < 16; ++b) {
        const BlockPlace at = block_place(frame, place, b);
        const vm inside = (splat(static_cast<float>(at.rows)) > load(kPixelY[0])) &
                          (splat(static_cast<float>(at.columns)) > load(kPixelX[0]));
        const vf one = splat(1.0f);
        states[b] = {keep(inside, one), one, select(inside, splat(kNeverStopped), splat(-1.0f)), inside};
    }
    for (int64_t k = 0; k < 16 * channels; ++k) blended[k] = splat(0.0f);
    const int64_t end = frame.tile_start[tile + 1];
    int64_t visits = 0;
    bool open = true;
    for (int64_t begin = frame.tile_start[tile]; begin < end && open; begin += kBatch) {
        const int count = static_cast<int>(end - begin < kBatch ? end - begin : kBatch);
        TileEntry* entries = &frame.entries[begin];
        load_batch(frame, source, place, entries, begin - frame.tile_start[tile], count, batch, features);
        open = false;
        for (int b = 0; b < 16; ++b) {
            visits += blend_block<N>(batch, features, channels, b, states[b], blended + b * channels);
            open = open || any(states[b].open);
        }
        save_touched(batch, count, entries);
    }
    for (int b = 0; b < 16; ++b) {
        const BlockPlace at = block_place(frame, place, b);
        if (at.rows > 0 && at.columns > 0) write_block(pass, tile, at, b, place.camera, states[b], blended + b * channels);
    }
    return visits;
}

}  // namespace

void forward(kg4d_frame& frame, const kg4d_scene& scene, const kg4d_images& out) {
    frame.transmittance.reserve(frame.tiles * kTilePixels);
    frame.stop.reserve(frame.tiles * kTilePixels);
    if (frame.has_depth) frame.depth.reserve(frame.tiles * kTilePixels);
    const ForwardPass pass = {frame, scene, out};
    std::atomic<int64_t> visits{0};
    with_channels(frame.blended_channels(), [&](auto constant) {
        constexpr int N = decltype(constant)::value;
        const int64_t channels = N > 0 ? N : frame.blended_channels();
        parallel_for(scene.threads, frame.tiles, [&](int64_t tile) {
            float* scratch = thread_scratch(static_cast<size_t>(channels) * (16 * kLanes + kBatch));
            visits.fetch_add(forward_tile<N>(pass, tile, scratch), std::memory_order_relaxed);
        });
    });
    frame.statistics.forward_visits = visits.load();
}

}  // namespace KG4D_ISA
