// The splats that weigh most at chosen pixels, from the lists of the last forward pass.
#include "isa.h"
#include "thread_pool.h"
#include "tile_batch.h"

namespace KG4D_ISA {
namespace {

// Keeps the k heaviest, heaviest first; of equal weights the nearer splat stays in front.
KG4D_INLINE void insert(int64_t id, float weight, int64_t k, int64_t* ids, float* weights) {
    if (!(weight > weights[k - 1])) return;
    int64_t at = k - 1;
    for (; at > 0 && weights[at - 1] < weight; --at) {
        weights[at] = weights[at - 1];
        ids[at] = ids[at - 1];
    }
    weights[at] = weight;
    ids[at] = id;
}

// Sixteen listed splats at a time: their alphas in one vector, then the blending in order.
void pixel_contributors(const kg4d_render_plan& plan, int64_t camera, int64_t x, int64_t y, int64_t k, int64_t* ids,
                        float* weights) {
    const int64_t tile = (camera * plan.tiles_y + y / kTile) * plan.tiles_x + x / kTile;
    const int64_t block = y % kTile / 4 * 4 + x % kTile / 4, lane = y % 4 * 4 + x % 4;
    const float last = plan.last[(tile * 16 + block) * 16 + lane];
    const int64_t begin = plan.tile_start[tile], end = plan.tile_start[tile + 1];
    const float x0 = static_cast<float>(x / kTile * kTile), y0 = static_cast<float>(y / kTile * kTile);
    const vf X = splat(static_cast<float>(x) + 0.5f - x0), Y = splat(static_cast<float>(y) + 0.5f - y0);
    float T = 1.0f;
    alignas(64) float field[6][kLanes], alphas[kLanes];
    int64_t found[kLanes];
    int waiting = 0;
    const auto blend = [&] {
        const vf u = fma(load(field[0]), X, fma(load(field[1]), Y, load(field[2])));
        const vf v = fma(load(field[3]), Y, load(field[4]));
        const vf power = fnma(v, v, fnma(u, u, load(field[5])));
        store(alphas, keep_min_positive(power >= splat(kLog2MinAlpha), exp2(power), splat(kMaxAlpha)));
        for (int i = 0; i < waiting; ++i) {
            insert(found[i], alphas[i] * T, k, ids, weights);
            T -= alphas[i] * T;
        }
        waiting = 0;
    };
    std::memset(field, 0, sizeof field);
    for (int64_t i = begin; i < end && static_cast<float>(i - begin) <= last; ++i) {
        const TileEntry& entry = plan.entries[i];
        if ((entry.touched >> block & 1) == 0) continue;
        const TileSplat s = relative_to_tile(plan.splats[entry.splat], x0, y0, i - begin);
        const float values[6] = {s.a, s.b, s.p, s.c, s.q, s.log2_opacity};
        for (int f = 0; f < 6; ++f) field[f][waiting] = values[f];
        found[waiting++] = entry.splat - camera * plan.gaussians;
        if (waiting == kLanes) blend();
    }
    blend();
}

}  // namespace

void contributors(const kg4d_render_plan& plan, int64_t n, const int32_t* cameras, const int32_t* pixels, int64_t k,
                  int threads, int64_t* ids, float* weights) {
    constexpr int64_t per_task = 32;
    parallel_for(threads, (n + per_task - 1) / per_task, [&](int64_t task) {
        const int64_t end = n < (task + 1) * per_task ? n : (task + 1) * per_task;
        for (int64_t i = task * per_task; i < end; ++i) {
            for (int64_t j = 0; j < k; ++j) ids[i * k + j] = -1, weights[i * k + j] = 0.0f;
            const int64_t camera = cameras[i], x = pixels[2 * i], y = pixels[2 * i + 1];
            const bool inside = x >= 0 && x < plan.width && y >= 0 && y < plan.height;
            if (!inside || camera < 0 || camera >= plan.cameras) continue;
            pixel_contributors(plan, camera, x, y, k, ids + i * k, weights + i * k);
        }
    });
}

}  // namespace KG4D_ISA
