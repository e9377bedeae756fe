// An instance: what holds one device share, its KV memory and its weights area, and carries out the orders of
// a dispatcher (pool/orders.h). In production a process of its own, run_instance(); tests make several in one
// process.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "pool/channel.h"
#include "pool/instance_memory.h"
#include "pool/role.h"
#include "pool/worker.h"
#include "switchyard/result.h"

namespace switchyard::pool {

struct InstanceOptions {
  std::string name;
  Role role = Role::unified;  // told to the dispatcher; an instance carries out any order
  std::string fabric = "auto";
  std::uint32_t threads = 0;  // 0: one per core
  std::uint64_t kv_bytes = 0;
  std::uint64_t slab_bytes = 0;
  std::uint32_t berths = 2;
  std::uint64_t berth_bytes = 0;
  PeerAddress supervisor;    // where the dispatcher is
  std::string shared_key;    // of the pool's engines
  bool control_tls = false;  // as all of them
  WorkerLimits limits;
};

// Options that every engine of a pool shares.
EngineOptions pool_engine_options(const std::string& name, const std::string& fabric,
                                  const std::string& shared_key, bool control_tls);

class Instance {
 public:
  // Takes memory, registers it, and says Hello to the dispatcher. `open_image` and `make_runtime` stand for
  // model::ModelImage::parse and model::Runtime::create, which are taken where they are empty. Errors: of the
  // engine, memory or threads.
  static Result<std::unique_ptr<Instance>> create(const InstanceOptions& options, OpenImage open_image = {},
                                                  MakeRuntime make_runtime = {});
  // Ends what is under way; peers see peer_lost. run() must have returned.
  ~Instance();

  // Works until stop(), or until the dispatcher is gone.
  void run() { worker_->run(); }
  // From any thread.
  void stop() { worker_->stop(); }

 private:
  Instance() = default;

  // In this order: what is above is used by what is below.
  std::unique_ptr<TransferEngine> engine_;
  std::unique_ptr<InstanceMemory> memory_;
  std::shared_ptr<Channel> channel_;
  std::unique_ptr<Worker> worker_;
};

// Runs an instance until SIGTERM, or until the dispatcher is gone. Blocks SIGTERM and SIGINT in the calling
// thread and those that it starts: call it from main.
Status run_instance(const InstanceOptions& options);

}  // namespace switchyard::pool
