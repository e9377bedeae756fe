#include "model/cpu/lanes_avx2.h"
#include "model/cpu/make_kernels.h"

namespace switchyard::model::cpu {

extern const Kernels kAvx2Kernels;
const Kernels kAvx2Kernels = make_kernels<Avx2>(Isa::avx2);

}  // namespace switchyard::model::cpu
