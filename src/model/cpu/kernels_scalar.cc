#include "model/cpu/lanes_scalar.h"
#include "model/cpu/make_kernels.h"

namespace switchyard::model::cpu {

extern const Kernels kScalarKernels;
const Kernels kScalarKernels = make_kernels<Scalar>(Isa::scalar);

}  // namespace switchyard::model::cpu
