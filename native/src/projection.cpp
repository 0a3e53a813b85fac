// Projects every Gaussian into every camera, culls what cannot be seen, finds the colours of what is left where they
// depend on the direction, and checks that all inputs are finite.
#include <atomic>

#include "isa.h"
#include "projection_math.h"
#include "thread_pool.h"
#include "view_colors.h"

namespace KG4D_ISA {
namespace {

using namespace kg4d;

constexpr int64_t kGaussiansPerTask = 256;

// 0 * x summed: stays zero unless some x is NaN or Inf.
bool all_finite(const float* p, int64_t count) {
    vf sum = splat(0.0f);
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) sum = fma(splat(0.0f), load(p + i), sum);
    sum = fma(splat(0.0f), gather(p + i, 1, static_cast<int>(count - i)), sum);
    return bits(sum >= splat(0.0f)) == 0xFFFF;
}

void store_splats(kg4d_render_plan& plan, const kg4d_images& out, int64_t first, int count, const vf* fields,
                  vm visible, vf radius_x, vf radius_y) {
    alignas(64) float lanes[8][kLanes], rx[kLanes], ry[kLanes];
    for (int f = 0; f < 8; ++f) store(lanes[f], fields[f]);
    store(rx, keep(visible, radius_x));
    store(ry, keep(visible, radius_y));
    float* splats = &plan.splats[first].x;
    const uint32_t shown = bits(visible);
    for (int i = 0; i < count; ++i) {
        for (int f = 0; f < 8; ++f) splats[8 * i + f] = lanes[f][i];
        const bool show = (shown >> i & 1) != 0;
        const int64_t at = 2 * (first + i);
        out.means2d[at] = show ? lanes[0][i] : 0.0f;
        out.means2d[at + 1] = show ? lanes[1][i] : 0.0f;
        plan.radii[at] = out.radii[at] = static_cast<int32_t>(rx[i]);
        plan.radii[at + 1] = out.radii[at + 1] = static_cast<int32_t>(ry[i]);
    }
}

// Gaussians that are all too faint to be drawn, as those that live at another time are.
void skip_block(kg4d_render_plan& plan, const kg4d_images& out, int64_t first, int count) {
    for (int64_t camera = 0; camera < plan.cameras; ++camera) {
        const int64_t at = camera * plan.gaussians + first;
        std::memset(&plan.splats[at], 0, count * sizeof plan.splats[at]);
        std::memset(&plan.radii[2 * at], 0, 2 * count * sizeof(int32_t));
        std::memset(out.radii + 2 * at, 0, 2 * count * sizeof(int32_t));
        std::memset(out.means2d + 2 * at, 0, 2 * count * sizeof(float));
    }
}

void project_block(kg4d_render_plan& plan, const kg4d_scene& scene, const kg4d_images& out, int64_t first, int count) {
    const vf plain_opacity = gather(scene.opacities + first, 1, count);  // zero, hence culled, in lanes beyond count
    if (!any(plain_opacity >= splat(kMinAlpha))) return skip_block(plan, out, first, count);
    const Shape shape = scene_shape(scene, first, count);
    const float* means = scene.means + 3 * first;
    const vf mean[3] = {gather(means, 3, count), gather(means + 1, 3, count), gather(means + 2, 3, count)};
    const vf width = splat(static_cast<float>(plan.width)), height = splat(static_cast<float>(plan.height));
    const vf zero = splat(0.0f), clip = splat(scene.radius_clip);
    ColorModel model;
    bool has_model = false;
    for (int64_t camera = 0; camera < plan.cameras; ++camera) {
        const Camera c = make_camera(scene.viewmats + 16 * camera, scene.Ks + 9 * camera,
                                     static_cast<float>(plan.width), static_cast<float>(plan.height));
        const vf z = camera_depth(c, mean);
        vm visible = (z >= splat(scene.near_plane)) & (z <= splat(scene.far_plane)) & (z > zero);
        const Projection p = project(c, shape, mean, visible, scene.eps2d, z);
        const vf opacity = scene.antialiased ? plain_opacity * sqrt(p.det_sharp / p.det) : plain_opacity;
        const vf largest = splat(1e30f);  // beyond, single precision overflows: dropped
        visible = visible & (p.det > zero) & (largest >= p.det) & (opacity >= splat(kMinAlpha));
        const vf log2_opacity = log2(max(opacity, splat(kMinAlpha)));
        // The alpha falls to 1/255 at sqrt(2 ln(255 opacity)) standard deviations.
        const vf extent = min(splat(kMaxExtent), sqrt((log2_opacity - splat(kLog2MinAlpha)) / splat(kHalfLog2E)));
        const vf rx = ceil(extent * sqrt(p.xx)), ry = ceil(extent * sqrt(p.yy));
        const vf x = fma(splat(c.fx), p.u, splat(c.cx)), y = fma(splat(c.fy), p.v, splat(c.cy));
        visible = and_not(visible, (rx <= clip) & (ry <= clip));
        visible = visible & (splat(1e9f) >= max(rx, ry));
        visible = visible & (x + rx > zero) & (width > x - rx) & (y + ry > zero) & (height > y - ry);
        const vf root = splat(std::sqrt(kHalfLog2E));
        const vf a = root * sqrt(p.yy / p.det);
        const vf fields[8] = {x, y, a, zero - a * p.xy / p.yy, root / sqrt(p.yy), log2_opacity, z, opacity};
        const int64_t id = camera * plan.gaussians + first;
        store_splats(plan, out, id, count, fields, visible, rx, ry);
        if (scene.sh_degree == 0 || !any(visible)) continue;
        if (!has_model) load_color_model(scene, first, count, model);
        has_model = true;
        vf color[3];
        color_seen(model, c, mean, color);
        for (int j = 0; j < 3; ++j) scatter(color[j], &plan.colors[3 * id + j], 3, count);
    }
}

}  // namespace

bool project(kg4d_render_plan& plan, const kg4d_scene& scene, const kg4d_images& out) {
    const int64_t n = scene.gaussians, total = scene.cameras * n;
    plan.splats.reserve(total);
    plan.radii.reserve(2 * total);
    if (scene.sh_degree > 0) plan.colors.reserve(3 * total);
    const int64_t harmonics = scene.sh_degree > 0 ? 3 * harmonics_count(scene.sh_degree) : 0;
    if (!all_finite(scene.viewmats, 16 * scene.cameras) || !all_finite(scene.Ks, 9 * scene.cameras)) return false;
    if (scene.background && !all_finite(scene.background, scene.cameras * scene.channels)) return false;
    std::atomic<bool> finite{true};
    parallel_for(scene.threads, (n + kGaussiansPerTask - 1) / kGaussiansPerTask, [&](int64_t task) {
        const int64_t begin = task * kGaussiansPerTask;
        const int64_t end = n < begin + kGaussiansPerTask ? n : begin + kGaussiansPerTask;
        bool good = all_finite(scene.means + 3 * begin, 3 * (end - begin)) &&
                    (scene.covariances ? all_finite(scene.covariances + 6 * begin, 6 * (end - begin))
                                       : all_finite(scene.quats + 4 * begin, 4 * (end - begin)) &&
                                             all_finite(scene.scales + 3 * begin, 3 * (end - begin))) &&
                    all_finite(scene.opacities + begin, end - begin);
        for (int64_t set = 0; set < (scene.features_per_camera ? scene.cameras : 1); ++set) {
            good =
                good && all_finite(scene.features + (set * n + begin) * scene.channels, (end - begin) * scene.channels);
        }
        good = good && all_finite(scene.harmonics + begin * harmonics, (end - begin) * harmonics);
        if (!good) finite.store(false, std::memory_order_relaxed);
        for (int64_t first = begin; good && first < end; first += kLanes) {
            project_block(plan, scene, out, first, static_cast<int>(end - first < kLanes ? end - first : kLanes));
        }
    });
    return finite.load();
}

}  // namespace KG4D_ISA
