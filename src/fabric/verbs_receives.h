// The receives of a rail: a queue that all its paths share. A receive has no buffer; it is what one immediate
// uses up. Those that are used are given back in batches, early: a peer that finds none has to wait.
// Driven by the rail's thread; does not allocate after it was made.
#pragma once

#include <vector>

#include "fabric/verbs_device.h"

namespace switchyard::fabric {

class VerbsReceives {
 public:
  VerbsReceives() = default;  // without a queue
  // Filled with `count` receives of this mark. Errors: exhausted, io.
  static Result<VerbsReceives> create(const VerbsDevice& device, std::uint32_t count, std::uint64_t mark);

  ibv_srq* queue() const { return queue_.get(); }
  void used() { ++used_; }
  bool wants_refill() const { return used_ >= chain_.size(); }
  // Gives back whole batches of what was used. False when the device does not take them.
  bool refill();

 private:
  VerbsHandle<ibv_srq> queue_{nullptr, nullptr};
  std::vector<ibv_recv_wr> chain_;  // one batch; the same every time
  std::uint32_t used_ = 0;
};

}  // namespace switchyard::fabric
