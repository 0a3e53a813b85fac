// The kernels that exist once per instruction set: their types, written here once, and the table of one set.
#pragma once

#include "render_plan.h"

namespace kg4d {

using ProjectKernel = bool(kg4d_render_plan&, const kg4d_scene&, const kg4d_images&);  // false: something is not finite
using BinKernel = void(kg4d_render_plan&, const kg4d_scene&);
using ForwardKernel = void(kg4d_render_plan&, const kg4d_scene&, const kg4d_images&);
using BackwardKernel = void(kg4d_render_plan&, const kg4d_scene&, const kg4d_gradients&, float* pair_gradients);
using ProjectBackwardKernel = void(kg4d_render_plan&, const kg4d_scene&, const kg4d_gradients&,
                                   const float* pair_gradients);
using ContributorsKernel = void(const kg4d_render_plan&, int64_t n, const int32_t* cameras, const int32_t* pixels,
                                int64_t k, int threads, int64_t* ids, float* weights);
using ProjectSubsetKernel = void(const kg4d_subset&, float* means2d, float* covs);
using ProjectSubsetBackwardKernel = void(const kg4d_subset&, const float* v_means2d, const float* v_covs,
                                         const kg4d_subset_gradients&);
using SliceKernel = void(const kg4d_spacetime&, const kg4d_slices&);
using SliceBackwardKernel = void(const kg4d_spacetime&, const kg4d_slice_gradients&);
using ImageLossKernel = void(const kg4d_image_pair&, double* errors, float* gradient, float* alpha_gradient);

struct Kernels {
    const char* isa;
    ProjectKernel* project;
    BinKernel* bin;
    ForwardKernel* forward;
    BackwardKernel* backward;
    ProjectBackwardKernel* project_backward;
    ContributorsKernel* contributors;
    ProjectSubsetKernel* project_subset;
    ProjectSubsetBackwardKernel* project_subset_backward;
    SliceKernel* slice;
    SliceBackwardKernel* slice_backward;
    ImageLossKernel* image_loss;
};

// Floats per pair in the gradients that `backward` leaves for `project_backward`: [0] the sum over pixels of
// g = alpha dL/dalpha, [1, 2] of g w, [3, 4, 5] of g w w^T (xx, xy, yy) with w = U d, [6, 7] of |dL/dmean2d|, then the
// gradients of the blended channels.
constexpr int kGeometryGradients = 8;
inline __attribute__((always_inline)) int64_t pair_gradient_stride(int64_t channels) {
    return (kGeometryGradients + channels + 15) / 16 * 16;
}

// How many of the blended channels' gradients are kept per pair.
inline __attribute__((always_inline)) int64_t kept_channels(const kg4d_render_plan& plan,
                                                            const kg4d_gradients& gradients) {
    const bool kept = gradients.features || gradients.absgrad || plan.has_depth || plan.sh_degree > 0;
    return kept ? plan.blended_channels() : 0;
}

}  // namespace kg4d
