// Sums the pair gradients of each Gaussian and takes them through the projection to means, shapes, opacities,
// features, harmonics and, if wanted, camera matrices. See projection_math.h for the names.
#include "isa.h"
#include "projection_gradients.h"
#include "thread_pool.h"
#include "view_colors.h"

namespace KG4D_ISA {
namespace {

using namespace kg4d;

constexpr int64_t kGaussiansPerTask = 256;
constexpr int kPoseGradients = 12;  // three rows of R and t

// Sums of sixteen Gaussians in one camera, one Gaussian per lane.
struct ScreenSums {
    alignas(64) float geometry[kGeometryGradients][kLanes];
    alignas(64) float depth[kLanes];
    alignas(64) float color[3][kLanes];  // only where colours depend on the camera
    bool any;
};

template <bool by_view>  // whether colours depend on the camera
void sum_pairs(const kg4d_render_plan& plan, const kg4d_scene& scene, const kg4d_gradients& out, const float* pairs,
               int64_t camera, int64_t first, int count, ScreenSums& sums) {
    const int64_t channels = plan.channels, stride = pair_gradient_stride(kept_channels(plan, out));
    const int64_t total_splats = plan.cameras * plan.gaussians;
    std::memset(&sums, 0, sizeof sums);
    float* total = thread_scratch(stride);
    for (int i = 0; i < count; ++i) {
        const int64_t id = camera * plan.gaussians + first + i;
        const uint32_t n = plan.pair_count[id];
        const float* ahead = pairs + (id + kLanes < total_splats ? plan.first_pair[id + kLanes] : 0) * stride;
        for (int64_t k = 0; k < 2 * stride; k += 16) prefetch(ahead + k);
        float* v_features =
            out.features && !by_view ? out.features + (scene.features_per_camera ? id : first + i) * channels : nullptr;
        const bool fresh = scene.features_per_camera || camera == 0;
        if (v_features && fresh) std::memset(v_features, 0, channels * sizeof(float));
        if (n == 0) continue;
        sums.any = true;
        const float* row = pairs + plan.first_pair[id] * stride;
        for (int64_t k = 0; k < stride; k += kLanes) {
            vf sum = load(row + k);
            for (uint32_t j = 1; j < n; ++j) sum = sum + load(row + j * stride + k);
            store(total + k, sum);
        }
        for (int k = 0; k < kGeometryGradients; ++k) sums.geometry[k][i] = total[k];
        for (int64_t k = 0; v_features && k < channels; ++k) v_features[k] += total[kGeometryGradients + k];
        for (int k = 0; by_view && k < 3; ++k) sums.color[k][i] = total[kGeometryGradients + k];
        if (plan.has_depth) sums.depth[i] = total[kGeometryGradients + channels];
    }
}

// dL/dmean2d from the splat's U and the sums of g w, plus what flows in from outside; also writes both outputs.
void mean2d_gradient(const kg4d_gradients& out, int64_t id, int count, const vf* U, const ScreenSums& sums, vf* v) {
    const vf scale = splat(1.0f / kHalfLog2E), gu = load(sums.geometry[1]), gv = load(sums.geometry[2]);
    v[0] = U[0] * gu * scale;
    v[1] = fma(U[1], gu, U[2] * gv) * scale;
    for (int axis = 0; axis < 2; ++axis) {
        if (out.means2d) v[axis] = v[axis] + gather(out.means2d + 2 * id + axis, 2, count);
        scatter(v[axis], out.means2d_total + 2 * id + axis, 2, count);
        if (out.absgrad) scatter(load(sums.geometry[6 + axis]) * scale, out.absgrad + 2 * id + axis, 2, count);
    }
}

// Adds the gradient of sqrt(det_sharp / det), on which the opacity was scaled, to that of the 2D covariance.
KG4D_INLINE void compensation_gradient(const Projection& p, vf eps, vf v_compensation, vf compensation, vf* s) {
    const vf ratio = compensation * compensation, half = v_compensation / max(compensation, splat(1e-6f)) * splat(0.5f);
    const vf factor = half / p.det;
    s[0] = fma(factor, (p.yy - eps) - ratio * p.yy, s[0]);
    s[1] = fma(factor, (ratio - splat(1.0f)) * p.xy, s[1]);
    s[2] = fma(factor, (p.xx - eps) - ratio * p.xx, s[2]);
}

template <bool by_view>
void backward_block(const kg4d_render_plan& plan, const kg4d_scene& scene, const kg4d_gradients& out,
                    const float* pairs, int64_t first, int count, vf* poses) {
    const Shape shape = scene_shape(scene, first, count);
    const float* means = scene.means + 3 * first;
    const vf mean[3] = {gather(means, 3, count), gather(means + 1, 3, count), gather(means + 2, 3, count)};
    const vf zero = splat(0.0f), one = splat(1.0f), eps = splat(scene.eps2d);
    Accumulated sum = {};
    ColorModel model, v_model;
    bool has_model = false;
    if constexpr (by_view) v_model = {};
    for (int64_t camera = 0; camera < plan.cameras; ++camera) {
        const int64_t id = camera * plan.gaussians + first;
        ScreenSums sums;
        sum_pairs<by_view>(plan, scene, out, pairs, camera, first, count, sums);
        const float* splats = &plan.splats[id].x;
        const vf U[3] = {gather(splats + 2, 8, count), gather(splats + 3, 8, count), gather(splats + 4, 8, count)};
        alignas(64) float seen[kLanes] = {};
        for (int i = 0; i < count; ++i) seen[i] = plan.radii[2 * (id + i)] > 0 ? 1.0f : 0.0f;
        const vm visible = load(seen) > zero;
        vf v_mean2d[2];
        const vf safe_U[3] = {keep(visible, U[0]), keep(visible, U[1]), keep(visible, U[2])};
        mean2d_gradient(out, id, count, safe_U, sums, v_mean2d);
        if (!sums.any && out.means2d == nullptr) continue;
        const Camera c = make_camera(scene.viewmats + 16 * camera, scene.Ks + 9 * camera,
                                     static_cast<float>(plan.width), static_cast<float>(plan.height));
        const Projection p = project(c, shape, mean, visible, scene.eps2d, camera_depth(c, mean));
        // dL/dcovariance = U^T (sum of g w w^T) U / (2 k^2) with k = kHalfLog2E.
        const vf scale = splat(0.5f / (kHalfLog2E * kHalfLog2E));
        const vf muu = load(sums.geometry[3]), muv = load(sums.geometry[4]), mvv = load(sums.geometry[5]);
        const vf col_u = fma(muu, safe_U[1], muv * safe_U[2]), col_v = fma(muv, safe_U[1], mvv * safe_U[2]);
        vf s[3] = {scale * safe_U[0] * safe_U[0] * muu, scale * safe_U[0] * col_u,
                   scale * fma(safe_U[1], col_u, safe_U[2] * col_v)};
        const vf opacity = select(visible, gather(splats + 7, 8, count), one);
        vf v_opacity = load(sums.geometry[0]) / opacity;
        if (scene.antialiased) {
            const vf compensation = select(visible, sqrt(p.det_sharp / p.det), one);
            const vf plain = gather(scene.opacities + first, 1, count);
            compensation_gradient(p, eps, keep(visible, v_opacity * plain), compensation, s);
            v_opacity = v_opacity * compensation;
        }
        for (vf& part : s) part = keep(visible, part);
        sum.opacity = sum.opacity + keep(visible, v_opacity);
        vf* pose = poses ? poses + camera * kPoseGradients : nullptr;
        to_world(c, shape, mean, p, s, v_mean2d, load(sums.depth), keep(visible, one), sum, pose);
        if constexpr (by_view) {
            if (!has_model) load_color_model(scene, first, count, model);
            has_model = true;
            const vf v_color[3] = {load(sums.color[0]), load(sums.color[1]), load(sums.color[2])};
            color_backward(model, c, mean, v_color, v_model, sum.mean, pose);
        }
    }
    for (int j = 0; j < 3; ++j) scatter(sum.mean[j], out.means + 3 * first + j, 3, count);
    scatter(sum.opacity, out.opacities + first, 1, count);
    if constexpr (by_view) {
        const int total = 3 * harmonics_count(plan.sh_degree);
        for (int j = 0; out.features && j < 3; ++j) scatter(v_model.base[j], out.features + 3 * first + j, 3, count);
        if (out.harmonics) store_each(v_model.harmonics, total, count, out.harmonics + total * first);
    }
    if (scene.covariances) write_covariance_gradients(sum.covariance, out.covariances + 6 * first, count);
    else write_shape_gradients(shape, sum.covariance, out.quats + 4 * first, out.scales + 3 * first, count);
}

// Adds up the poses' gradients of all tasks, in order.
void write_poses(const kg4d_render_plan& plan, const vf* partial, int64_t tasks, float* viewmats) {
    for (int64_t camera = 0; camera < plan.cameras; ++camera) {
        vf sum[16];
        for (int k = 0; k < 16; ++k) sum[k] = splat(0.0f);
        for (int64_t task = 0; task < tasks; ++task) {
            for (int k = 0; k < kPoseGradients; ++k) {
                sum[k] = sum[k] + partial[(task * plan.cameras + camera) * kPoseGradients + k];
            }
        }
        store(viewmats + 16 * camera, sum_each<16>(sum));
    }
}

}  // namespace

void project_backward(kg4d_render_plan& plan, const kg4d_scene& scene, const kg4d_gradients& out,
                      const float* pair_gradients) {
    const int64_t n = plan.gaussians, tasks = (n + kGaussiansPerTask - 1) / kGaussiansPerTask;
    const int64_t pose_size = plan.cameras * kPoseGradients;
    Buffer<vf> partial;
    if (out.viewmats) {
        vf* p = partial.reserve(tasks * pose_size);
        for (int64_t k = 0; k < tasks * pose_size; ++k) p[k] = splat(0.0f);
    }
    parallel_for(scene.threads, tasks, [&](int64_t task) {
        const int64_t begin = task * kGaussiansPerTask;
        const int64_t end = n < begin + kGaussiansPerTask ? n : begin + kGaussiansPerTask;
        for (int64_t first = begin; first < end; first += kLanes) {
            const int count = static_cast<int>(end - first < kLanes ? end - first : kLanes);
            const auto block = plan.sh_degree > 0 ? backward_block<true> : backward_block<false>;
            block(plan, scene, out, pair_gradients, first, count, out.viewmats ? &partial[task * pose_size] : nullptr);
        }
    });
    if (out.viewmats) write_poses(plan, partial.data(), tasks, out.viewmats);
}

}  // namespace KG4D_ISA
