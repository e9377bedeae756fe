// The table of one instruction set's kernels, from the lanes that are included before. For kernel files only.
#pragma once

#include "model/cpu/attention.h"
#include "model/cpu/elementwise.h"
#include "model/cpu/kernels.h"
#include "model/cpu/product.h"

namespace switchyard::model::cpu {
namespace {

template <class S>
constexpr Kernels make_kernels(Isa isa) {
  return {.isa = isa,
          .product = product<S>,
          .attend = attend<S>,
          .merge = merge<S>,
          .finish_attention = finish_attention<S>,
          .rms_norm = rms_norm<S>,
          .group_sums = group_sums<S>,
          .rotate = rotate<S>,
          .store_half = store_half<S>,
          .exponentials = exponentials<S>,
          .fma_chains = fma_chains<S>,
          .read_all = read_all<S>,
          .swiglu = swiglu<S>};
}

}  // namespace
}  // namespace switchyard::model::cpu
