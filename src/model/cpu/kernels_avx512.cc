#include "model/cpu/lanes_avx512.h"
#include "model/cpu/make_kernels.h"

namespace switchyard::model::cpu {

extern const Kernels kAvx512Kernels;
const Kernels kAvx512Kernels = make_kernels<Avx512>(Isa::avx512);

}  // namespace switchyard::model::cpu
