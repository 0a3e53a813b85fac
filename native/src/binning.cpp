// Finds, for every visible splat in depth order, the tiles and 4x4 blocks that its alpha = 1/255 ellipse reaches, and
// sorts these pairs into per-tile lists. The order of the lists does not depend on the number of threads.
#include <stdexcept>

#include "isa.h"
#include "simd/lanes.h"
#include "thread_pool.h"

namespace KG4D_ISA {
namespace {

using namespace kg4d;

constexpr int64_t kAhead = 12;  // splats are visited in depth order, which is no order of memory

struct TileRange {
    int x0, x1, y0, y1;
};

KG4D_INLINE int tile_floor(float px) { return static_cast<int>(std::floor(px / kTile)); }
KG4D_INLINE int at_least(int low, int x) { return x < low ? low : x; }
KG4D_INLINE int at_most(int high, int x) { return x > high ? high : x; }

KG4D_INLINE TileRange touched_tiles(const kg4d_render_plan& plan, uint32_t id) {
    const Splat& s = plan.splats[id];
    const float rx = static_cast<float>(plan.radii[2 * id]), ry = static_cast<float>(plan.radii[2 * id + 1]);
    const int columns = static_cast<int>(plan.tiles_x), rows = static_cast<int>(plan.tiles_y);
    return {at_least(0, tile_floor(s.x - rx)), at_most(columns, tile_floor(s.x + rx) + 1),
            at_least(0, tile_floor(s.y - ry)), at_most(rows, tile_floor(s.y + ry) + 1)};
}

// The test of one splat against the sixteen blocks of a tile, one block per lane: is the least |U d|^2 over the pixel
// centres' bounding square within reach? The minimum of the convex quadratic lies at the centre's nearest point in x or
// in y, with the other coordinate moved to its best place inside the square.
struct EllipseTest {
    vf a, b, c, reach, dx_per_dy, dy_per_dx;

    KG4D_ALWAYS_INLINE explicit EllipseTest(const Splat& s)
        : a(splat(s.a)),
          b(splat(s.b)),
          c(splat(s.c)),
          reach(splat(s.log2_opacity - kLog2MinAlpha + 1e-3f)),  // a little wide: rounding must not lose a pixel
          dx_per_dy(splat(-s.b / s.a)),
          dy_per_dx(splat(-s.a * s.b / (s.b * s.b + s.c * s.c))) {}

    KG4D_ALWAYS_INLINE vf squared_distance(vf dx, vf dy) const {
        const vf u = fma(a, dx, b * dy), v = c * dy;
        return fma(u, u, v * v);
    }
    KG4D_ALWAYS_INLINE uint32_t blocks(vf left, vf top) const {
        const vf right = left + splat(3.0f), bottom = top + splat(3.0f), zero = splat(0.0f);
        const vf near_x = clamp(zero, left, right), near_y = clamp(zero, top, bottom);
        const vf best_y = clamp(near_x * dy_per_dx, top, bottom), best_x = clamp(near_y * dx_per_dy, left, right);
        return bits(min(squared_distance(near_x, best_y), squared_distance(best_x, near_y)) <= reach);
    }
};

alignas(64) const float kBlockLeft[16] = {0.5f, 4.5f, 8.5f, 12.5f, 0.5f, 4.5f, 8.5f, 12.5f,
                                          0.5f, 4.5f, 8.5f, 12.5f, 0.5f, 4.5f, 8.5f, 12.5f};
alignas(64) const float kBlockTop[16] = {0.5f, 0.5f, 0.5f, 0.5f, 4.5f,  4.5f,  4.5f,  4.5f,
                                         8.5f, 8.5f, 8.5f, 8.5f, 12.5f, 12.5f, 12.5f, 12.5f};

// The pairs of one splat, appended at `out`; returns how many.
KG4D_INLINE uint32_t list_pairs(const kg4d_render_plan& plan, uint32_t id, const TileRange& range, Pair* out,
                                uint32_t* tile_counts) {
    const Splat& s = plan.splats[id];
    const EllipseTest test(s);
    const uint32_t first_tile = static_cast<uint32_t>(id / plan.gaussians * plan.tiles_x * plan.tiles_y);
    uint32_t count = 0;
    for (int ty = range.y0; ty < range.y1; ++ty) {
        const vf top = load(kBlockTop) + splat(static_cast<float>(ty * kTile) - s.y);
        for (int tx = range.x0; tx < range.x1; ++tx) {
            const uint32_t blocks = test.blocks(load(kBlockLeft) + splat(static_cast<float>(tx * kTile) - s.x), top);
            const uint32_t tile = first_tile + static_cast<uint32_t>(ty * plan.tiles_x + tx), hit = blocks != 0;
            out[count] = {tile, blocks};  // written always, kept only when hit: no branch to mispredict
            count += hit;
            tile_counts[tile] += hit;
        }
    }
    return count;
}

// Pairs of the splats [begin, end) of the depth order; returns their number.
int64_t bin_chunk(kg4d_render_plan& plan, int64_t begin, int64_t end, Buffer<Pair>& pairs, uint32_t* tile_counts) {
    std::memset(tile_counts, 0, static_cast<size_t>(plan.tiles) * sizeof *tile_counts);
    int64_t count = 0;
    pairs.reserve(static_cast<size_t>(end - begin) * 4);
    for (int64_t i = begin; i < end; ++i) {
        const uint32_t id = plan.order[i];
        const uint32_t next = plan.order[i + kAhead < plan.visible ? i + kAhead : i];
        prefetch(&plan.splats[next]);
        prefetch(&plan.radii[2 * next]);
        prefetch_to_write(&plan.first_pair[next]);
        prefetch_to_write(&plan.pair_count[next]);
        const TileRange r = touched_tiles(plan, id);
        pairs.grow(count + static_cast<size_t>(r.x1 - r.x0) * (r.y1 - r.y0), count);
        plan.first_pair[id] = static_cast<uint32_t>(count);
        plan.pair_count[id] = list_pairs(plan, id, r, &pairs[count], tile_counts);
        count += plan.pair_count[id];
    }
    return count;
}

// Turns counts per (chunk, tile) into the first position of each, tile by tile; fills tile_start.
void place_chunks(kg4d_render_plan& plan, int64_t chunks) {
    int64_t position = 0;
    for (int64_t tile = 0; tile < plan.tiles; ++tile) {
        plan.tile_start[tile] = position;
        for (int64_t chunk = 0; chunk < chunks; ++chunk) {
            uint32_t& count = plan.chunk_counts[chunk * plan.tiles + tile];
            const uint32_t n = count;
            count = static_cast<uint32_t>(position);
            position += n;
        }
    }
    plan.tile_start[plan.tiles] = position;
}

}  // namespace

void bin(kg4d_render_plan& plan, const kg4d_scene& scene) {
    const int64_t total = plan.cameras * plan.gaussians;
    const int64_t chunks = scene.threads <= 1 ? 1 : (4 * scene.threads < kMaxChunks ? 4 * scene.threads : kMaxChunks);
    const auto chunk_begin = [&](int64_t chunk) { return plan.visible * chunk / chunks; };
    plan.first_pair.reserve(total);
    std::memset(plan.pair_count.reserve(total), 0, total * sizeof(uint32_t));
    plan.chunk_counts.reserve(chunks * plan.tiles);
    plan.tile_start.reserve(plan.tiles + 1);
    int64_t chunk_pairs[kMaxChunks], first_pair[kMaxChunks];
    parallel_for(scene.threads, chunks, [&](int64_t chunk) {
        chunk_pairs[chunk] = bin_chunk(plan, chunk_begin(chunk), chunk_begin(chunk + 1), plan.chunk_pairs[chunk],
                                       &plan.chunk_counts[chunk * plan.tiles]);
    });
    plan.pairs = 0;
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
        first_pair[chunk] = plan.pairs;
        plan.pairs += chunk_pairs[chunk];
    }
    if (plan.pairs > INT32_MAX) throw std::length_error("more pairs than 32-bit positions can name");
    place_chunks(plan, chunks);
    plan.entries.reserve(plan.pairs);
    parallel_for(scene.threads, chunks, [&](int64_t chunk) {
        uint32_t* position = &plan.chunk_counts[chunk * plan.tiles];
        const Pair* pair = plan.chunk_pairs[chunk].data();
        for (int64_t i = chunk_begin(chunk); i < chunk_begin(chunk + 1); ++i) {
            const uint32_t id = plan.order[i];
            const uint32_t next = plan.order[i + kAhead < plan.visible ? i + kAhead : i];
            prefetch_to_write(&plan.first_pair[next]);
            prefetch(&plan.pair_count[next]);
            plan.first_pair[id] += static_cast<uint32_t>(first_pair[chunk]);
            for (uint32_t j = 0; j < plan.pair_count[id]; ++j, ++pair) {
                plan.entries[position[pair->tile]++] = {id, plan.first_pair[id] + j,
                                                        static_cast<uint16_t>(pair->blocks), 0};
            }
        }
    });
}

}  // namespace KG4D_ISA
