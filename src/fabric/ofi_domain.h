// What a rail of libfabric is made of below its paths: the provider that was chosen, its domain, and memory
// that is registered there. Memory keeps the domain; the rail and its paths come and go above it.
//
// Threads: register_memory and the destruction of memory may happen on any thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "fabric/fabric.h"
#include "fabric/ofi_handles.h"

namespace switchyard::fabric {

std::string ofi_text(long code);  // of a libfabric error, of either sign

// The provider as it is found at `host`, with connected endpoints where it has them (OfiPaths says why).
// Errors: unsupported.
Result<Info> find_ofi_provider(const std::string& provider, const std::string& host);

struct OfiDomain {
  std::string shown;  // the rail's name, for messages
  Info info;
  Fid<fid_fabric> fabric;
  Fid<fid_domain> domain;
  std::atomic<std::uint64_t> next_key{1};

  // Errors: unsupported, io.
  static Result<std::shared_ptr<OfiDomain>> open(const std::string& provider, const std::string& shown,
                                                 const std::string& host);
  // tl::unexpected with what failed and why.
  tl::unexpected<Error> failed(std::string_view what, long code) const;
};

class OfiMemory final : public LocalMemory {
 public:
  // Errors: unsupported (memory of a device), exhausted, io.
  static Result<std::unique_ptr<LocalMemory>> register_range(std::shared_ptr<OfiDomain> domain,
                                                             const MemoryRange& range);

  std::uint64_t remote_address() const override { return address_; }
  std::uint64_t remote_key() const override { return fi_mr_key(region_.get()); }
  void* descriptor() const { return fi_mr_desc(region_.get()); }

 private:
  OfiMemory(std::shared_ptr<OfiDomain> keep, Fid<fid_mr> region, std::uint64_t address)
      : keep_(std::move(keep)), region_(std::move(region)), address_(address) {}

  std::shared_ptr<OfiDomain> keep_;  // the domain outlives its regions
  Fid<fid_mr> region_;
  std::uint64_t address_;
};

}  // namespace switchyard::fabric
