// One end of a path on a rail of libfabric, and what makes such ends.
//
// Each path has an endpoint of its own, so that it can be closed: what a peer still has under way on the
// path, also one that stood still in the middle of a write, finds no endpoint and lands nowhere. Where the
// provider has connected endpoints (ofi_streams.cc: `net`, `tcp`) a path is one of these, one descriptor and
// some twenty kilobytes; the datagram endpoints that libfabric makes of them take several descriptors and
// megabytes each, so they serve only where there is nothing else (ofi_datagrams.cc: `efa`).
//
// Owned by the rail and driven by its thread.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "fabric/ofi_domain.h"

namespace switchyard::fabric {

class OfiPath {
 public:
  enum class State : std::uint8_t { joining, up, broken };

  // After it nothing that comes from the other end lands, and nothing is read for what was posted here.
  virtual ~OfiPath() = default;
  virtual std::vector<std::byte> token() const = 0;
  // Joins it with the end that the token is of. Errors: corrupt, io.
  virtual Status connect(std::span<const std::byte> token) = 0;

  // Writes may be posted while it is up. A broken one has lost its connection: what is under way may never be
  // reported.
  State state() const { return state_; }
  fid_ep* endpoint() const { return endpoint_.get(); }
  fi_addr_t target() const { return target_; }

 protected:
  State state_ = State::joining;
  Fid<fid_ep> endpoint_;
  fi_addr_t target_ = FI_ADDR_UNSPEC;  // of the other end, where the endpoint is not connected
};

class OfiPaths {
 public:
  // `queue` takes the completions of all paths. Both outlive it. Errors: io, exhausted.
  static Result<std::unique_ptr<OfiPaths>> open(std::shared_ptr<OfiDomain> domain, fid_cq* queue);

  virtual ~OfiPaths() = default;
  virtual Result<std::unique_ptr<OfiPath>> make() = 0;
  // Takes connections and notices lost ones; some paths' states change. Cheap where nothing happens.
  virtual void look() {}
};

Result<std::unique_ptr<OfiPaths>> open_ofi_streams(std::shared_ptr<OfiDomain> domain, fid_cq* queue);
Result<std::unique_ptr<OfiPaths>> open_ofi_datagrams(std::shared_ptr<OfiDomain> domain, fid_cq* queue);

}  // namespace switchyard::fabric
