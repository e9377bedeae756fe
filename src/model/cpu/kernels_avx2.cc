#include "model/cpu/lanes_avx2.h"
//
#include "model/cpu/attention.h"
#include "model/cpu/elementwise.h"
#include "model/cpu/product.h"

namespace switchyard::model::cpu {

extern const Kernels kAvx2Kernels;
const Kernels kAvx2Kernels = make_kernels<Avx2>(Isa::avx2);

}  // namespace switchyard::model::cpu
