// Declarations of the kernels of the instruction set that is being compiled (see kernels.h).
#pragma once

#include "kernels.h"

namespace KG4D_ISA {

bool project(kg4d_frame&, const kg4d_scene&, const kg4d_images&);
void bin(kg4d_frame&, const kg4d_scene&);
void forward(kg4d_frame&, const kg4d_scene&, const kg4d_images&);
void backward(kg4d_frame&, const kg4d_scene&, const kg4d_gradients&, float* pair_gradients);
void project_backward(kg4d_frame&, const kg4d_scene&, const kg4d_gradients&, const float* pair_gradients);
void contributors(const kg4d_frame&, int64_t n, const int32_t* cameras, const int32_t* pixels, int64_t k, int threads,
                  int64_t* ids, float* weights);
void project_chosen(const kg4d_chosen&, float* means2d, float* covs);
void project_chosen_backward(const kg4d_chosen&, const float* v_means2d, const float* v_covs, float* v_means,
                             float* v_quats, float* v_scales);
void l1_ssim(const kg4d_image_pair&, double* l1, double* ssim, float* gradient);
void l1_ssim_backward(const kg4d_image_pair&, const float* ssim_gradient, float l1_weight, float ssim_weight,
                      float* gradient);
double fma_rate();

}  // namespace KG4D_ISA
