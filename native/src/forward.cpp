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

// The splats of one batch and, per block, which of them reach it (bit i of word i / 64) and which changed a pixel.
struct ForwardBatch {
    alignas(64) TileSplat splats[kBatch];
    uint64_t reach[16][kWords];
    uint64_t touched[16][kWords];
};

void load_batch(const kg4d_frame& frame, const FeatureSource& source, const TilePlace& place, const TileEntry* entries,
                int count, ForwardBatch& batch, float* features) {
    const float x0 = static_cast<float>(place.x), y0 = static_cast<float>(place.y);
    const int64_t first_splat = place.camera * frame.gaussians;
    for (int i = 0; i < count; ++i) {
        const Splat& s = frame.splats[entries[i].splat];
        batch.splats[i] = relative_to_tile(s, x0, y0);
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

// A block between two batches.
struct BlockState {
    vf transmittance, stop;
    vm active;
    bool done;
};

// Walks one block through one batch; returns the number of splats looked at. `first` is the batch's place in the tile.
template <int N>
KG4D_INLINE int64_t blend_block(ForwardBatch& batch, const float* features, int64_t channels, int b, int64_t first,
                                BlockState& state, vf* blended) {
    const vf X = load(kPixelX[b % 4]), Y = load(kPixelY[b / 4]);
    vf T = state.transmittance, stop = state.stop;
    vm active = state.active;
    vf local[N > 0 ? N : 1];
    vf* sum = N > 0 ? local : blended;
    for (int k = 0; k < N; ++k) sum[k] = blended[k];
    int64_t visits = 0;
    for (int w = 0; w < kWords && any(active); ++w) {
        uint64_t left = batch.reach[b][w], touched = 0;
        visits += __builtin_popcountll(left);
        while (left != 0) {
            const int bit = __builtin_ctzll(left), i = 64 * w + bit;
            left &= left - 1;
            const Footprint f = footprint(batch.splats[i], X, Y);
            vm hit = (f.power >= splat(kLog2MinAlpha)) & active;
            vf alpha = keep(hit, min(exp2(f.power), splat(kMaxAlpha)));
            vf next = fnma(alpha, T, T);
            const vm ends = next <= splat(kMinTransmittance);
            if (__builtin_expect(any(ends), 0)) {
                active = and_not(active, ends);
                hit = and_not(hit, ends);
                stop = select(ends, splat(static_cast<float>(first + i)), stop);
                alpha = keep(hit, alpha);
                next = fnma(alpha, T, T);
                if (!any(active)) {
                    visits -= __builtin_popcountll(left);
                    left = 0;
                }
            }
            touched |= static_cast<uint64_t>(any(hit)) << bit;
            const vf weight = alpha * T;
            T = next;
            const float* row = features + i * (N > 0 ? N : channels);
            for (int64_t k = 0; k < (N > 0 ? N : channels); ++k) sum[k] = fma(weight, splat(row[k]), sum[k]);
        }
        batch.touched[b][w] = touched;
    }
    for (int k = 0; k < N; ++k) blended[k] = sum[k];
    state.transmittance = T, state.stop = stop, state.active = active;
    return visits;
}

void write_block(const ForwardPass& pass, int64_t tile, const BlockPlace& at, int b, int64_t camera,
                 const BlockState& state, vf* blended) {
    kg4d_frame& frame = pass.frame;
    const int64_t channels = frame.channels, first = (tile * 16 + b) * 16;
    const vf T = state.transmittance, alpha = splat(1.0f) - T;
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
        states[b] = {splat(1.0f), select(inside, splat(kNeverStopped), splat(-1.0f)), inside, !any(inside)};
    }
    for (int64_t k = 0; k < 16 * channels; ++k) blended[k] = splat(0.0f);
    const int64_t end = frame.tile_start[tile + 1];
    int64_t visits = 0;
    bool open = true;
    for (int64_t begin = frame.tile_start[tile]; begin < end && open; begin += kBatch) {
        const int count = static_cast<int>(end - begin < kBatch ? end - begin : kBatch);
        TileEntry* entries = &frame.entries[begin];
        load_batch(frame, source, place, entries, count, batch, features);
        open = false;
        for (int b = 0; b < 16; ++b) {
            if (states[b].done) continue;
            visits += blend_block<N>(batch, features, channels, b, begin - frame.tile_start[tile], states[b],
                                     blended + b * channels);
            states[b].done = !any(states[b].active);
            open = open || !states[b].done;
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
