// The C ABI: checks arguments and turns exceptions into status codes.
#include <new>
#include <stdexcept>

#include "dispatch.h"
#include "passes.h"
#include "plan_pool.h"

namespace {

template <class F>
int guarded(const F& body) {
    try {
        return body();
    } catch (const std::bad_alloc&) {
        return KG4D_OUT_OF_MEMORY;
    } catch (const std::length_error&) {
        return KG4D_OUT_OF_MEMORY;
    } catch (...) {
        return KG4D_BAD_ARGUMENT;
    }
}

constexpr int64_t kMost = int64_t{1} << 31;  // Gaussians, splats and tiles have 32-bit indices
constexpr int64_t kMostPixels = 1 << 16;     // along one side of an image

bool in_range(int64_t x, int64_t low, int64_t high) { return x >= low && x <= high; }

bool valid_size(int64_t width, int64_t height) {
    return in_range(width, 1, kMostPixels) && in_range(height, 1, kMostPixels);
}

// A record with the covariances, or the quaternions and scales, of its Gaussians.
template <class Record>
bool has_shape(const Record& r) {
    return r.covariances || (r.quats && r.scales);
}

bool valid(const kg4d_scene& s) {
    if (!in_range(s.gaussians, 0, kMost) || !in_range(s.cameras, 1, 1 << 20)) return false;
    if (!in_range(s.channels, 1, 1 << 16) || !valid_size(s.width, s.height)) return false;
    const int64_t tiles = s.cameras * ((s.width + 15) / 16) * ((s.height + 15) / 16);
    if (s.gaussians * s.cameras >= kMost || tiles >= kMost || s.viewmats == nullptr || s.Ks == nullptr) return false;
    if (s.gaussians > 0 && !(s.means && has_shape(s) && s.opacities && s.features)) return false;
    if (!in_range(s.sh_degree, 0, 3)) return false;
    if (s.sh_degree > 0 && (s.channels != 3 || s.features_per_camera)) return false;
    if (s.sh_degree > 0 && s.gaussians > 0 && s.harmonics == nullptr) return false;
    return s.eps2d >= 0 && s.near_plane >= 0 && s.far_plane >= 0 && s.radius_clip >= 0;  // false for NaN
}

bool valid(const kg4d_subset& s) {
    if (!in_range(s.frames, 1, 1 << 20) || !in_range(s.gaussians, 1, kMost)) return false;
    if (!in_range(s.rows, 0, kMost) || !in_range(s.columns, 0, 1 << 20) || !valid_size(s.width, s.height)) return false;
    if (!(s.means && has_shape(s) && s.viewmats && s.Ks && s.eps2d >= 0)) return false;
    if (s.rows * s.columns > 0 && !(s.ids && s.row_frames)) return false;
    for (int64_t r = 0; r < s.rows; ++r) {
        if (!in_range(s.row_frames[r], 0, s.frames - 1)) return false;
        for (int64_t k = 0; k < s.columns; ++k) {
            if (s.ids[r * s.columns + k] >= s.gaussians) return false;
        }
    }
    return true;
}

bool valid(const kg4d_spacetime& s) {
    if (!in_range(s.gaussians, 0, kMost) || !in_range(s.times, 0, 1 << 20)) return false;
    if (s.gaussians * s.times >= kMost || (s.times > 0 && !s.at) || !(s.least_weight >= 0)) return false;
    return s.gaussians == 0 || (s.means && s.left && s.right && s.scales && s.opacities);
}

bool valid(const kg4d_image_pair& p) {
    return p.prediction && p.target && in_range(p.images, 1, 1 << 24) && valid_size(p.width, p.height) &&
           !p.alpha == !p.target_alpha && in_range(p.channels, 1, 1 << 10) &&
           in_range(p.pixel_stride, p.channels, 1 << 16) && p.data_range > 0;
}

bool matches(const kg4d_render_plan& p, const kg4d_scene& s) {
    return p.complete && p.cameras == s.cameras && p.gaussians == s.gaussians && p.channels == s.channels &&
           p.width == s.width && p.height == s.height && p.sh_degree == s.sh_degree;
}

// Whether the gradients of shapes can be written: of the kind that the record has.
template <class Record, class Gradients>
bool takes_shape(const Record& r, const Gradients& g) {
    return r.covariances ? g.covariances != nullptr : g.quats && g.scales;
}

}  // namespace

extern "C" {

int kg4d_abi_version(void) { return KG4D_ABI_VERSION; }

int64_t kg4d_struct_size(int which) {
    switch (which) {
        case KG4D_SCENE: return sizeof(kg4d_scene);
        case KG4D_IMAGES: return sizeof(kg4d_images);
        case KG4D_GRADIENTS: return sizeof(kg4d_gradients);
        case KG4D_STATISTICS: return sizeof(kg4d_statistics);
        case KG4D_SUBSET: return sizeof(kg4d_subset);
        case KG4D_IMAGE_PAIR: return sizeof(kg4d_image_pair);
        case KG4D_SUBSET_GRADIENTS: return sizeof(kg4d_subset_gradients);
        case KG4D_SPACETIME: return sizeof(kg4d_spacetime);
        case KG4D_SLICES: return sizeof(kg4d_slices);
        case KG4D_SLICE_GRADIENTS: return sizeof(kg4d_slice_gradients);
        default: return -1;
    }
}

const char* kg4d_isa(void) { return kg4d::kernels().isa; }

int kg4d_use_isa(const char* name) { return kg4d::use_isa(name) ? KG4D_OK : KG4D_BAD_ARGUMENT; }

kg4d_render_plan* kg4d_render_plan_new(void) { return kg4d::take_plan(); }

void kg4d_render_plan_free(kg4d_render_plan* plan) {
    if (plan != nullptr) kg4d::return_plan(plan);
}

int kg4d_render_plan_statistics(const kg4d_render_plan* plan, kg4d_statistics* out) {
    if (plan == nullptr || out == nullptr) return KG4D_BAD_ARGUMENT;
    *out = plan->statistics;
    return KG4D_OK;
}

int kg4d_forward(kg4d_render_plan* plan, const kg4d_scene* scene, const kg4d_images* out) {
    if (!plan || !scene || !out || !valid(*scene) || !out->image || !out->alpha) return KG4D_BAD_ARGUMENT;
    if (scene->gaussians > 0 && (!out->means2d || !out->radii)) return KG4D_BAD_ARGUMENT;
    return guarded([&] { return kg4d::forward(*plan, *scene, *out); });
}

int kg4d_backward(kg4d_render_plan* plan, const kg4d_scene* scene, const kg4d_gradients* g) {
    if (!plan || !scene || !g || !valid(*scene)) return KG4D_BAD_ARGUMENT;
    if (!matches(*plan, *scene)) return KG4D_BAD_PLAN;
    if (scene->gaussians > 0 && !(g->means && takes_shape(*scene, *g) && g->opacities && g->means2d_total)) {
        return KG4D_BAD_ARGUMENT;
    }
    return guarded([&] {
        kg4d::backward(*plan, *scene, *g);
        return KG4D_OK;
    });
}

int kg4d_contributors(const kg4d_render_plan* plan, int64_t n, const int32_t* cameras, const int32_t* pixels, int64_t k,
                      int32_t threads, int64_t* ids, float* weights) {
    if (!plan || !in_range(n, 0, 1 << 30) || !in_range(k, 1, 1 << 20)) return KG4D_BAD_ARGUMENT;
    if (n > 0 && !(cameras && pixels && ids && weights)) return KG4D_BAD_ARGUMENT;
    if (!plan->complete) return KG4D_BAD_PLAN;
    return guarded([&] {
        kg4d::kernels().contributors(*plan, n, cameras, pixels, k, threads, ids, weights);
        return KG4D_OK;
    });
}

int kg4d_project_subset(const kg4d_subset* subset, float* means2d, float* covs) {
    if (!subset || !valid(*subset)) return KG4D_BAD_ARGUMENT;
    if (subset->rows * subset->columns > 0 && !(means2d && covs)) return KG4D_BAD_ARGUMENT;
    return guarded([&] {
        kg4d::kernels().project_subset(*subset, means2d, covs);
        return KG4D_OK;
    });
}

int kg4d_project_subset_backward(const kg4d_subset* subset, const float* v_means2d, const float* v_covs,
                                 const kg4d_subset_gradients* out) {
    if (!subset || !valid(*subset) || !out || !out->means || !takes_shape(*subset, *out)) return KG4D_BAD_ARGUMENT;
    return guarded([&] {
        kg4d::kernels().project_subset_backward(*subset, v_means2d, v_covs, *out);
        return KG4D_OK;
    });
}

int kg4d_slice(const kg4d_spacetime* spacetime, const kg4d_slices* out) {
    if (!spacetime || !out || !valid(*spacetime)) return KG4D_BAD_ARGUMENT;
    if (spacetime->gaussians > 0 && !(out->covariances && out->velocities)) return KG4D_BAD_ARGUMENT;
    if (spacetime->gaussians * spacetime->times > 0 && !(out->means && out->opacities)) return KG4D_BAD_ARGUMENT;
    return guarded([&] {
        kg4d::kernels().slice(*spacetime, *out);
        return KG4D_OK;
    });
}

int kg4d_slice_backward(const kg4d_spacetime* spacetime, const kg4d_slice_gradients* g) {
    if (!spacetime || !g || !valid(*spacetime)) return KG4D_BAD_ARGUMENT;
    if (spacetime->gaussians > 0 && !(g->v_means && g->v_left && g->v_right && g->v_scales && g->v_opacities)) {
        return KG4D_BAD_ARGUMENT;
    }
    return guarded([&] {
        kg4d::kernels().slice_backward(*spacetime, *g);
        return KG4D_OK;
    });
}

int kg4d_image_loss(const kg4d_image_pair* pair, double* errors, float* gradient, float* alpha_gradient) {
    if (!pair || !errors || !valid(*pair)) return KG4D_BAD_ARGUMENT;
    return guarded([&] {
        kg4d::kernels().image_loss(*pair, errors, gradient, alpha_gradient);
        return KG4D_OK;
    });
}

}  // extern "C"
