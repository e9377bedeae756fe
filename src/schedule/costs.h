// How long things take, as far as is known: what policies reckon with. Estimates only; nothing depends on
// their being right but the quality of decisions.
//
// Owned by the caller, outlives the policies. Called on the policy's thread, often: must not allocate.
#pragma once

#include "schedule/types.h"

namespace switchyard::schedule {

class Costs {
 public:
  virtual ~Costs() = default;
  // One prefill of several prompts at once, `tokens` together.
  virtual Nanos prefill(ModelId model, InstanceId instance, std::uint64_t tokens) const = 0;
  // One decode step of `rows` requests with `context` tokens together.
  virtual Nanos step(ModelId model, InstanceId instance, std::uint32_t rows, std::uint64_t context) const = 0;
  // Weights from host memory into a berth.
  virtual Nanos load(ModelId model, InstanceId instance) const = 0;
  // From the last step of one model to the first of another that lies ready in a berth.
  virtual Nanos activate(ModelId model, InstanceId instance) const = 0;
};

}  // namespace switchyard::schedule
