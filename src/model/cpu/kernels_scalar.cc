#include "model/cpu/lanes_scalar.h"
//
#include "model/cpu/attention.h"
#include "model/cpu/elementwise.h"
#include "model/cpu/product.h"

namespace switchyard::model::cpu {

extern const Kernels kScalarKernels;
const Kernels kScalarKernels = make_kernels<Scalar>(Isa::scalar);

}  // namespace switchyard::model::cpu
