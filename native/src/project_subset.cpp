// Projects Gaussians given by index, each in the camera of its frame: what losses on 2D Gaussians ask for.
#include "isa.h"
#include "projection_gradients.h"
#include "thread_pool.h"

namespace KG4D_ISA {
namespace {

using namespace kg4d;

constexpr float kNearest = 0.01f;  // nearer, a Gaussian is never drawn: its depth is taken as this

// Up to sixteen Gaussians of one frame, gathered into lanes, and their projection.
struct Group {
    int64_t flat[kLanes];  // frame * gaussians + gaussian
    int count;
    Camera camera;
    Shape shape;
    vf mean[3], depth;
    Projection projection;

    Group(const kg4d_subset& in, int64_t frame, const int64_t* ids, int64_t left) {
        count = static_cast<int>(left < kLanes ? left : kLanes);
        float means[3 * kLanes], quats[4 * kLanes], scales[3 * kLanes], covariances[6 * kLanes];
        for (int i = 0; i < count; ++i) {
            flat[i] = frame * in.gaussians + (ids[i] < 0 ? 0 : ids[i]);
            std::memcpy(means + 3 * i, in.means + 3 * flat[i], 3 * sizeof(float));
            if (in.covariances) {
                std::memcpy(covariances + 6 * i, in.covariances + 6 * flat[i], 6 * sizeof(float));
                continue;
            }
            std::memcpy(quats + 4 * i, in.quats + 4 * flat[i], 4 * sizeof(float));
            std::memcpy(scales + 3 * i, in.scales + 3 * flat[i], 3 * sizeof(float));
        }
        for (int j = 0; j < 3; ++j) mean[j] = gather(means + j, 3, count);
        camera = make_camera(in.viewmats + 16 * frame, in.Ks + 9 * frame, static_cast<float>(in.width),
                             static_cast<float>(in.height));
        shape = make_shape(quats, scales, in.covariances ? covariances : nullptr, count);
        depth = camera_depth(camera, mean);
        const vf clamped = max(depth, splat(kNearest));
        projection = project(camera, shape, mean, clamped >= splat(kNearest), in.eps2d, clamped);
    }
};

// One task per frame, which takes the frame's Gaussians in the order of the rows: one may be listed many times, and
// its sum must not depend on the threads. Rows of one frame that follow one another are taken as one.
template <class F>
void for_each_group(const kg4d_subset& in, const F& f) {
    parallel_for(in.threads, in.frames, [&](int64_t frame) {
        for (int64_t row = 0; row < in.rows; ++row) {
            if (in.row_frames[row] != frame) continue;
            const int64_t first = row * in.columns;
            while (row + 1 < in.rows && in.row_frames[row + 1] == frame) ++row;
            const int64_t end = (row + 1) * in.columns;
            for (int64_t at = first; at < end; at += kLanes) f(Group(in, frame, in.ids + at, end - at), at);
        }
    });
}

// Adds `width` numbers of each Gaussian of a group to those of all.
void add_rows(const Group& group, const float* rows, int width, float* total) {
    for (int i = 0; i < group.count; ++i) {
        for (int j = 0; j < width; ++j) total[width * group.flat[i] + j] += rows[width * i + j];
    }
}

}  // namespace

void project_subset(const kg4d_subset& in, float* means2d, float* covs) {
    for_each_group(in, [&](const Group& group, int64_t at) {
        const Projection& p = group.projection;
        const Camera& c = group.camera;
        scatter(fma(splat(c.fx), p.u, splat(c.cx)), means2d + 2 * at, 2, group.count);
        scatter(fma(splat(c.fy), p.v, splat(c.cy)), means2d + 2 * at + 1, 2, group.count);
        const vf cov[4] = {p.xx, p.xy, p.xy, p.yy};
        for (int k = 0; k < 4; ++k) scatter(cov[k], covs + 4 * at + k, 4, group.count);
    });
}

void project_subset_backward(const kg4d_subset& in, const float* v_means2d, const float* v_covs,
                             const kg4d_subset_gradients& out) {
    for_each_group(in, [&](const Group& group, int64_t at) {
        const auto read = [&](const float* p, int64_t stride, int k) {
            return p ? gather(p + stride * at + k, stride, group.count) : splat(0.0f);
        };
        const vf v_mean2d[2] = {read(v_means2d, 2, 0), read(v_means2d, 2, 1)};
        const vf cross = splat(0.5f) * (read(v_covs, 4, 1) + read(v_covs, 4, 2));
        const vf v_cov[3] = {read(v_covs, 4, 0), cross, read(v_covs, 4, 3)};
        const vf live = keep(group.depth >= splat(kNearest), splat(1.0f));
        Accumulated sum = {};
        vf moved[3];
        for (int k = 0; k < 3; ++k) moved[k] = live * v_cov[k];
        to_world(group.camera, group.shape, group.mean, group.projection, moved, v_mean2d, splat(0.0f), live, sum,
                 nullptr);
        float means[3 * kLanes], quats[4 * kLanes], scales[3 * kLanes], covariances[6 * kLanes];
        for (int j = 0; j < 3; ++j) scatter(sum.mean[j], means + j, 3, group.count);
        add_rows(group, means, 3, out.means);
        if (in.covariances) {
            write_covariance_gradients(sum.covariance, covariances, group.count);
            add_rows(group, covariances, 6, out.covariances);
        } else {
            write_shape_gradients(group.shape, sum.covariance, quats, scales, group.count);
            add_rows(group, quats, 4, out.quats);
            add_rows(group, scales, 3, out.scales);
        }
    });
}

}  // namespace KG4D_ISA
