// A pool on one machine: the dispatcher, the model cache, and the instance processes.
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

#include "pool/config.h"
#include "pool/dispatcher.h"
#include "pool/model_cache.h"
#include "pool/supervisor.h"

namespace switchyard::pool {

class Pool {
 public:
  // While models are opened: which one, and how far its image is built.
  using Progress = std::function<void(const std::string& model, std::uint64_t done, std::uint64_t total)>;

  // Opens the models (building images where there are none), opens the engine and starts the instances.
  // `program` is this very program, which instances are started with. A model that cannot be opened is served
  // as failed, unless none can. Errors: the models', the engine's, invalid (what does not fit this machine).
  static Result<std::unique_ptr<Pool>> start(const PoolConfig& config, const std::filesystem::path& program,
                                             const Progress& progress = {});
  // Ends all requests, then all instances.
  ~Pool();

  Generator& generator() { return *dispatcher_; }
  Catalogue& catalogue() { return *dispatcher_; }
  // Errors: timed_out, saying which instances are not ready and why.
  Status wait_ready(TimePoint deadline) { return dispatcher_->wait_ready(deadline); }

 private:
  Pool() = default;
  void housekeeping();

  std::unique_ptr<TransferEngine> engine_;
  std::unique_ptr<ModelCache> cache_;
  std::unique_ptr<Dispatcher> dispatcher_;
  std::shared_ptr<Channel> channel_;
  std::unique_ptr<Supervisor> supervisor_;
  std::mutex supervisor_mutex_;  // the dispatcher may report before the supervisor stands
  std::thread housekeeper_;
  std::mutex stop_mutex_;
  std::condition_variable stop_wanted_;
  bool stopping_ = false;
};

}  // namespace switchyard::pool
