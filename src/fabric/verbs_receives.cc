#include "fabric/verbs_receives.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace switchyard::fabric {
namespace {

constexpr std::uint32_t kBatches = 16;  // in the queue; one of them is missing at most

}  // namespace

Result<VerbsReceives> VerbsReceives::create(const VerbsDevice& device, std::uint32_t count,
                                            std::uint64_t mark) {
  VerbsReceives self;
  ibv_srq_init_attr wanted{};
  wanted.attr.max_wr = count;
  wanted.attr.max_sge = 1;
  self.queue_ = {device.verbs.create_srq(device.domain.get(), &wanted), device.verbs.destroy_srq};
  if (!self.queue_) {
    return fail(errno == ENOMEM ? ErrorCode::exhausted : ErrorCode::io,
                "making a shared queue of {} receives failed: {}", count, strerror(errno));
  }
  self.chain_.resize(std::max(1u, count / kBatches));
  for (std::size_t i = 0; i < self.chain_.size(); ++i) {
    self.chain_[i].wr_id = mark;
    self.chain_[i].next = i + 1 < self.chain_.size() ? &self.chain_[i + 1] : nullptr;
  }
  self.used_ = count;
  if (!self.refill()) return fail(ErrorCode::io, "filling its queue of receives failed: {}", strerror(errno));
  return self;
}

bool VerbsReceives::refill() {
  while (used_ >= chain_.size()) {
    ibv_recv_wr* refused = nullptr;
    const int error = ibv_post_srq_recv(queue_.get(), chain_.data(), &refused);
    if (error != 0) {
      errno = error;
      return false;
    }
    used_ -= static_cast<std::uint32_t>(chain_.size());
  }
  return true;
}

}  // namespace switchyard::fabric
