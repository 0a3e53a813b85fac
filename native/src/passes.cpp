#include "passes.h"

#include <chrono>

#include "dispatch.h"

namespace kg4d {
namespace {

class Stopwatch {
public:
    double lap() {
        const auto now = std::chrono::steady_clock::now();
        const double seconds = std::chrono::duration<double>(now - start_).count();
        start_ = now;
        return seconds;
    }

private:
    std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace

int forward(kg4d_render_plan& plan, const kg4d_scene& scene, const kg4d_images& out) {
    plan.complete = false;
    plan.cameras = scene.cameras, plan.gaussians = scene.gaussians, plan.channels = scene.channels;
    plan.width = scene.width, plan.height = scene.height;
    plan.tiles_x = (scene.width + kTile - 1) / kTile;
    plan.tiles_y = (scene.height + kTile - 1) / kTile;
    plan.tiles = scene.cameras * plan.tiles_x * plan.tiles_y;
    plan.has_depth = out.depth != nullptr;
    plan.sh_degree = scene.sh_degree;
    plan.statistics = {};
    Stopwatch watch;
    if (!kernels().project(plan, scene, out)) return KG4D_NOT_FINITE;
    plan.statistics.projection = watch.lap();
    sort_by_depth(plan, scene.threads);
    kernels().bin(plan, scene);
    plan.statistics.pairs = plan.pairs;
    plan.statistics.binning = watch.lap();
    kernels().forward(plan, scene, out);
    plan.statistics.forward = watch.lap();
    plan.complete = true;
    return KG4D_OK;
}

void backward(kg4d_render_plan& plan, const kg4d_scene& scene, const kg4d_gradients& gradients) {
    static thread_local Buffer<float> pair_gradients;
    const int64_t stride = pair_gradient_stride(kept_channels(plan, gradients));
    pair_gradients.reserve(plan.pairs * stride);
    Stopwatch watch;
    kernels().backward(plan, scene, gradients, pair_gradients.data());
    plan.statistics.backward = watch.lap();
    kernels().project_backward(plan, scene, gradients, pair_gradients.data());
    plan.statistics.projection_backward = watch.lap();
}

}  // namespace kg4d
