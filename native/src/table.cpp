// The kernels of one instruction set as a table.
#include "isa.h"

#define KG4D_TEXT_OF(x) #x
#define KG4D_TEXT(x) KG4D_TEXT_OF(x)

namespace KG4D_ISA {

extern const kg4d::Kernels kernels;
const kg4d::Kernels kernels = {KG4D_TEXT(KG4D_ISA),
                               project,
                               bin,
                               forward,
                               backward,
                               project_backward,
                               contributors,
                               project_subset,
                               project_subset_backward,
                               slice,
                               slice_backward,
                               image_loss};

}  // namespace KG4D_ISA
