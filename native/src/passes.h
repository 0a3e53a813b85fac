// The forward and the backward pass as sequences of kernels; arguments have been checked by the caller.
#pragma once

#include "render_plan.h"

namespace kg4d {

// Renders, and leaves in the plan what the backward pass and contributor look-ups need. KG4D_OK or KG4D_NOT_FINITE.
int forward(kg4d_render_plan& plan, const kg4d_scene& scene, const kg4d_images& out);

// Writes all gradients; the plan holds the forward pass of this scene.
void backward(kg4d_render_plan& plan, const kg4d_scene& scene, const kg4d_gradients& gradients);

// Sorts the visible splats of each camera by depth (stable) into plan.order.
void sort_by_depth(kg4d_render_plan& plan, int threads);

}  // namespace kg4d
