// What a forward pass computes and keeps: projected splats, the tiles they touch, and per-pixel state for backward.
#pragma once

#include <cstdint>

#include "buffer.h"
#include "kg4d_kernels.h"

namespace kg4d {

constexpr int kTile = 16;  // a tile is 16 x 16 pixels = 16 blocks of 4 x 4
constexpr int kTilePixels = kTile * kTile;
constexpr int kMaxChunks = 64;  // ranges of the depth order that are binned in parallel

constexpr float kMinAlpha = 1.0f / 255.0f;
constexpr float kMaxAlpha = 0.999f;
constexpr float kMinTransmittance = 1e-4f;
constexpr float kLog2MinAlpha = -7.99435344f;  // log2(1/255)
constexpr float kHalfLog2E = 0.721347520f;     // exp(-s/2) = 2^(-kHalfLog2E s)
constexpr float kMaxExtent = 3.33f;            // half extent of a splat in standard deviations, at most

// A Gaussian as one camera sees it. With d = pixel - (x, y), its alpha there is 2^(log2_opacity - |U d|^2), where
// U = [a b; 0 c] is the Cholesky factor of kHalfLog2E times the inverse 2D covariance.
struct Splat {
    float x, y;
    float a, b, c;
    float log2_opacity;
    float depth;
    float opacity;  // compensated when antialiased
};

// A splat in one tile. Bit i of `blocks`: its ellipse reaches block i. Bit i of `touched`: it came before all pixels of
// that block had ended.
struct TileEntry {
    uint32_t splat;  // camera * gaussians + gaussian
    uint32_t pair;   // position in Gaussian-major order, where its gradient goes
    uint16_t blocks, touched;
};

struct Pair {  // the same in Gaussian-major order
    uint32_t tile;
    uint32_t blocks;
};

}  // namespace kg4d

struct kg4d_render_plan {
    int64_t cameras = 0, gaussians = 0, channels = 0, width = 0, height = 0;
    int64_t tiles_x = 0, tiles_y = 0, tiles = 0;  // `tiles` counts those of all cameras
    int64_t pairs = 0;
    bool has_depth = false;
    int32_t sh_degree = 0;
    bool complete = false;  // holds a whole forward pass

    kg4d::Buffer<kg4d::Splat> splats;             // [cameras, gaussians]
    kg4d::Buffer<int32_t> radii;                  // [cameras, gaussians, 2]
    kg4d::Buffer<float> colors;                   // [cameras, gaussians, 3] as seen; only with sh_degree > 0
    kg4d::Buffer<uint32_t> order, order_scratch;  // visible splats, by camera, then by depth
    kg4d::Buffer<uint32_t> keys, keys_scratch;
    int64_t visible = 0;
    kg4d::Buffer<uint32_t> first_pair, pair_count;  // [cameras, gaussians]
    kg4d::Buffer<kg4d::Pair> chunk_pairs[kg4d::kMaxChunks];
    kg4d::Buffer<uint32_t> chunk_counts;    // [chunks, tiles]
    kg4d::Buffer<kg4d::TileEntry> entries;  // by tile, then by depth
    kg4d::Buffer<int64_t> tile_start;       // [tiles + 1]

    // Per pixel in block order: [tiles, 16 blocks, 16 pixels].
    kg4d::Buffer<float> transmittance;
    kg4d::Buffer<float> last;   // index in the tile of the last splat looked at before the pixel ended; -1: none
    kg4d::Buffer<float> depth;  // expected depth, only when has_depth

    kg4d_statistics statistics = {};

    int64_t blended_channels() const { return channels + (has_depth ? 1 : 0); }
};
