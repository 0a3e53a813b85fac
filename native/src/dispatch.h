// Which instruction set runs: the fastest that this machine has, unless another one is asked for.
#pragma once

#include "kernels.h"

namespace kg4d {

// The kernels of the set in use.
const Kernels& kernels();

// Switches to the set of that name; false when it was not built or this machine does not have it. Null is allowed.
bool use_isa(const char* name);

}  // namespace kg4d
