// Declares the kernels of the instruction set that is being compiled (their types are in kernels.h).
#pragma once

#include "kernels.h"

namespace KG4D_ISA {

kg4d::ProjectKernel project;
kg4d::BinKernel bin;
kg4d::ForwardKernel forward;
kg4d::BackwardKernel backward;
kg4d::ProjectBackwardKernel project_backward;
kg4d::ContributorsKernel contributors;
kg4d::ProjectSubsetKernel project_subset;
kg4d::ProjectSubsetBackwardKernel project_subset_backward;
kg4d::SliceKernel slice;
kg4d::SliceBackwardKernel slice_backward;
kg4d::ImageLossKernel image_loss;

}  // namespace KG4D_ISA
