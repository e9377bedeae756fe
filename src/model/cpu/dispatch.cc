#include <cpuid.h>

#include <cstdlib>
#include <string_view>

#include "model/cpu/kernels.h"

namespace switchyard::model::cpu {

extern const Kernels kScalarKernels;
#if defined(__x86_64__)
extern const Kernels kAvx2Kernels;
extern const Kernels kAvx512Kernels;
#endif

namespace {

#if defined(__x86_64__)
// Clang's __builtin_cpu_supports does not know this one.
bool has_f16c() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
}
#endif

}  // namespace

const Kernels* kernels(Isa isa) {
  if (isa == Isa::scalar) return &kScalarKernels;
#if defined(__x86_64__)
  if (isa == Isa::avx2 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c()) {
    return &kAvx2Kernels;
  }
  if (isa == Isa::avx512 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq")) {
    return &kAvx512Kernels;
  }
#endif
  return nullptr;
}

const Kernels& best_kernels() {
  Isa highest = Isa::avx512;
  if (const char* asked = std::getenv("SWITCHYARD_ISA"); asked != nullptr) {
    if (std::string_view(asked) == "scalar") highest = Isa::scalar;
    if (std::string_view(asked) == "avx2") highest = Isa::avx2;
  }
  for (const Isa isa : {Isa::avx512, Isa::avx2}) {
    if (isa > highest) continue;
    if (const Kernels* found = kernels(isa); found != nullptr) return *found;
  }
  return *kernels(Isa::scalar);
}

}  // namespace switchyard::model::cpu
