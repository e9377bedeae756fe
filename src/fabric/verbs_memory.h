// Memory that a device knows. May be made and destroyed on any thread; keeps its device open.
#pragma once

#include <memory>

#include "fabric/verbs_device.h"

namespace switchyard::fabric {

class VerbsMemory final : public LocalMemory {
 public:
  // Errors: unsupported (the device or libibverbs cannot take DMA-BUFs), exhausted, io.
  static Result<std::unique_ptr<LocalMemory>> register_range(std::shared_ptr<VerbsDevice> device,
                                                             const MemoryRange& range);

  std::uint64_t remote_address() const override { return address_; }
  std::uint64_t remote_key() const override { return region_->rkey; }
  std::uint32_t local_key() const { return region_->lkey; }
  // Small writes from it may be copied by the CPU when they are posted.
  bool is_on_host() const { return on_host_; }

 private:
  VerbsMemory(std::shared_ptr<VerbsDevice> device, VerbsHandle<ibv_mr> region, std::uint64_t address,
              bool on_host)
      : device_(std::move(device)), region_(std::move(region)), address_(address), on_host_(on_host) {}

  std::shared_ptr<VerbsDevice> device_;
  VerbsHandle<ibv_mr> region_;
  std::uint64_t address_;
  bool on_host_;
};

}  // namespace switchyard::fabric
