// A few render plans wait here for reuse, so that their memory need not be asked for and touched anew in every step.
#pragma once

#include "render_plan.h"

namespace kg4d {

// A plan that holds no forward pass; null when memory is exhausted.
kg4d_render_plan* take_plan();

// Gives a plan back.
void return_plan(kg4d_render_plan* plan);

}  // namespace kg4d
