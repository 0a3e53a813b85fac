// A run of a tile's splats, brought next to each other and made relative to the tile, with their features.
#pragma once

#include "block_io.h"
#include "render_plan.h"
#include "simd/lanes.h"

namespace KG4D_ISA {

using namespace kg4d;

constexpr int kBatch = 128;  // so many splats with their features stay in the first-level cache
constexpr int kWords = kBatch / 64;

// At pixel centre (X, Y), measured from the tile's corner: u = a X + b Y + p, v = c Y + q, alpha = 2^(l - u^2 - v^2).
struct TileSplat {
    float a, b, p;
    float c, q;
    float log2_opacity;
    float index;  // place in the tile's list
    float unused;
};

// Where blended features come from: per-Gaussian channels, the depth after them if wanted, zeros up to `stride`.
struct FeatureSource {
    const float* features;  // of one camera: [gaussians, channels]
    int64_t channels, stride;
    bool with_depth;
};

KG4D_INLINE FeatureSource feature_source(const kg4d_render_plan& plan, const kg4d_scene& scene, int64_t camera,
                                         int64_t stride) {
    const bool seen = plan.sh_degree > 0, own = seen || scene.features_per_camera;
    const float* features = seen ? plan.colors.data() : scene.features;
    return {features + (own ? camera * plan.gaussians * plan.channels : 0), plan.channels, stride, plan.has_depth};
}

KG4D_INLINE TileSplat relative_to_tile(const Splat& s, float x0, float y0, int64_t index) {
    const float x = s.x - x0, y = s.y - y0;
    return {s.a, s.b, -(s.a * x + s.b * y), s.c, -s.c * y, s.log2_opacity, static_cast<float>(index), 0.0f};
}

template <int N>
KG4D_INLINE void load_features(const FeatureSource& source, const Splat& s, int64_t gaussian, float* row) {
    const float* from = source.features + gaussian * source.channels;
    if (N > 0 && source.channels == N) {  // a copy of known length is a few whole vectors
        std::memcpy(row, from, N * sizeof *row);
        return;
    }
    int64_t k = 0;
    for (; k < source.channels; ++k) row[k] = from[k];
    if (source.with_depth) row[k++] = s.depth;
    for (; k < source.stride; ++k) row[k] = 0.0f;
}

// Lists name splats in no order of memory: what the entry kAhead places on will need is asked for early.
constexpr int64_t kAhead = 12;
KG4D_INLINE void prefetch_splat(const kg4d_render_plan& plan, const FeatureSource& source, int64_t splat,
                                int64_t first_splat) {
    const float* row = source.features + (splat - first_splat) * source.channels;
    prefetch(&plan.splats[splat]);
    for (int64_t k = 0; k < source.channels; k += 16) prefetch(row + k);
    prefetch(row + source.channels - 1);
}

// The camera of a tile and its first pixel.
struct TileOrigin {
    int64_t camera, x, y;
};
KG4D_INLINE TileOrigin tile_origin(const kg4d_render_plan& plan, int64_t tile) {
    const int64_t per_camera = plan.tiles_x * plan.tiles_y, local = tile % per_camera;
    return {tile / per_camera, local % plan.tiles_x * kTile, local / plan.tiles_x * kTile};
}

// Block b of a tile; `rows` or `columns` is 0 when it lies outside the image.
KG4D_INLINE BlockRegion block_region(const kg4d_render_plan& plan, const TileOrigin& tile, int b) {
    const int64_t x = tile.x + 4 * (b % 4), y = tile.y + 4 * (b / 4);
    const auto inside = [](int64_t left) { return static_cast<int>(left < 0 ? 0 : left > 4 ? 4 : left); };
    return {(tile.camera * plan.height + y) * plan.width + x, plan.width, inside(plan.height - y),
            inside(plan.width - x)};
}

// A 16x16 bit matrix (row r in bits 16 (r % 4) of word r / 4), transposed: three-level exchange of off-diagonal
// squares.
KG4D_INLINE void transpose_bits(uint64_t w[4]) {
    const auto exchange = [](uint64_t& high, uint64_t& low, int shift, uint64_t mask) {
        const uint64_t t = ((low >> shift) ^ high) & mask;
        high ^= t;
        low ^= t << shift;
    };
    exchange(w[2], w[0], 8, 0x00FF00FF00FF00FFull);
    exchange(w[3], w[1], 8, 0x00FF00FF00FF00FFull);
    exchange(w[1], w[0], 4, 0x0F0F0F0F0F0F0F0Full);
    exchange(w[3], w[2], 4, 0x0F0F0F0F0F0F0F0Full);
    for (int i = 0; i < 4; ++i) {  // inside a word: rows 2 and 3 against 0 and 1, then odd against even rows
        uint64_t t = ((w[i] >> 2) ^ (w[i] >> 32)) & 0x0000000033333333ull;
        w[i] ^= (t << 2) ^ (t << 32);
        t = ((w[i] >> 1) ^ (w[i] >> 16)) & 0x0000555500005555ull;
        w[i] ^= (t << 1) ^ (t << 16);
    }
}

// Pixel centres of block b relative to the tile's corner.
alignas(64) constexpr float kPixelX[4][16] = {
    {0.5f, 1.5f, 2.5f, 3.5f, 0.5f, 1.5f, 2.5f, 3.5f, 0.5f, 1.5f, 2.5f, 3.5f, 0.5f, 1.5f, 2.5f, 3.5f},
    {4.5f, 5.5f, 6.5f, 7.5f, 4.5f, 5.5f, 6.5f, 7.5f, 4.5f, 5.5f, 6.5f, 7.5f, 4.5f, 5.5f, 6.5f, 7.5f},
    {8.5f, 9.5f, 10.5f, 11.5f, 8.5f, 9.5f, 10.5f, 11.5f, 8.5f, 9.5f, 10.5f, 11.5f, 8.5f, 9.5f, 10.5f, 11.5f},
    {12.5f, 13.5f, 14.5f, 15.5f, 12.5f, 13.5f, 14.5f, 15.5f, 12.5f, 13.5f, 14.5f, 15.5f, 12.5f, 13.5f, 14.5f, 15.5f}};
alignas(64) constexpr float kPixelY[4][16] = {
    {0.5f, 0.5f, 0.5f, 0.5f, 1.5f, 1.5f, 1.5f, 1.5f, 2.5f, 2.5f, 2.5f, 2.5f, 3.5f, 3.5f, 3.5f, 3.5f},
    {4.5f, 4.5f, 4.5f, 4.5f, 5.5f, 5.5f, 5.5f, 5.5f, 6.5f, 6.5f, 6.5f, 6.5f, 7.5f, 7.5f, 7.5f, 7.5f},
    {8.5f, 8.5f, 8.5f, 8.5f, 9.5f, 9.5f, 9.5f, 9.5f, 10.5f, 10.5f, 10.5f, 10.5f, 11.5f, 11.5f, 11.5f, 11.5f},
    {12.5f, 12.5f, 12.5f, 12.5f, 13.5f, 13.5f, 13.5f, 13.5f, 14.5f, 14.5f, 14.5f, 14.5f, 15.5f, 15.5f, 15.5f, 15.5f}};

struct Footprint {
    vf u, v, power;  // alpha = 2^power
};
KG4D_INLINE Footprint footprint(const TileSplat& s, vf X, vf Y) {
    const vf u = fma(splat(s.a), X, fma(splat(s.b), Y, splat(s.p)));
    const vf v = fma(splat(s.c), Y, splat(s.q));
    return {u, v, fnma(u, u, fnma(v, v, splat(s.log2_opacity)))};
}

}  // namespace KG4D_ISA
