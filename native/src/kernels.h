// The kernels that exist once per instruction set, and how one set is reached.
#pragma once

#include "frame.h"

namespace kg4d {

struct Kernels {
    const char* isa;
    bool (*project)(kg4d_frame&, const kg4d_scene&, const kg4d_images&);  // false: something is not finite
    void (*bin)(kg4d_frame&, const kg4d_scene&);
    void (*forward)(kg4d_frame&, const kg4d_scene&, const kg4d_images&);
    void (*backward)(kg4d_frame&, const kg4d_scene&, const kg4d_gradients&, float* pair_gradients);
    void (*project_backward)(kg4d_frame&, const kg4d_scene&, const kg4d_gradients&, const float* pair_gradients);
    void (*contributors)(const kg4d_frame&, int64_t n, const int32_t* cameras, const int32_t* pixels, int64_t k,
                         int threads, int64_t* ids, float* weights);
    void (*project_chosen)(const kg4d_chosen&, float* means2d, float* covs);
    void (*project_chosen_backward)(const kg4d_chosen&, const float* v_means2d, const float* v_covs, float* v_means,
                                    float* v_quats, float* v_scales);
    void (*l1_ssim)(const kg4d_image_pair&, double* l1, double* ssim, float* gradient);
    void (*l1_ssim_backward)(const kg4d_image_pair&, const float* ssim_gradient, float l1_weight, float ssim_weight,
                             float* gradient);
    double (*fma_rate)();
};

// Floats per pair in the gradients that `backward` leaves for `project_backward`: [0] the sum over pixels of
// g = alpha dL/dalpha, [1, 2] of g w, [3, 4, 5] of g w w^T (xx, xy, yy) with w = U d, [6, 7] of |dL/dmean2d|, then the
// gradients of the blended channels.
constexpr int kGeometryGradients = 8;
inline __attribute__((always_inline)) int64_t pair_gradient_stride(int64_t channels) {
    return (kGeometryGradients + channels + 15) / 16 * 16;
}

// How many of the blended channels' gradients are kept per pair.
inline __attribute__((always_inline)) int64_t kept_channels(const kg4d_frame& frame, const kg4d_gradients& gradients) {
    return gradients.features || gradients.absgrad || frame.has_depth ? frame.blended_channels() : 0;
}

// Sorts the visible splats of each camera by depth (stable) into frame.order.
void sort_by_depth(kg4d_frame& frame, int threads);

}  // namespace kg4d
