// A pool on one machine: the router, and the instance processes that it routes to.
#pragma once

#include <memory>

#include "pool/config.h"
#include "pool/router.h"
#include "pool/supervisor.h"

namespace switchyard::pool {

class Pool {
 public:
  // Opens the model (building its image if there is none), opens the engine and starts the instances.
  // `program` is this very program, which instances are started with. Errors: the model's, the engine's.
  static Result<std::unique_ptr<Pool>> start(const PoolConfig& config, const std::filesystem::path& program);
  // Ends all requests, then all instances.
  ~Pool();

  Generator& generator() { return *router_; }

  // Errors: timed_out, saying which instances are not ready and why.
  Status wait_ready(TimePoint deadline);

 private:
  Pool() = default;

  std::unique_ptr<TransferEngine> engine_;
  std::unique_ptr<Router> router_;
  std::shared_ptr<Channel> channel_;
  std::unique_ptr<Supervisor> supervisor_;
  std::mutex supervisor_mutex_;  // the router may report before the supervisor stands
};

}  // namespace switchyard::pool
