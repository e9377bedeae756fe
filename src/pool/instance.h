// An instance: what holds one device share, its KV memory and one model, and plays one role. In production a
// process of its own, run_instance(); tests make several in one process.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "model/image.h"
#include "model/runtime.h"
#include "pool/channel.h"
#include "pool/kv_store.h"
#include "pool/messages.h"
#include "pool/worker.h"
#include "switchyard/result.h"

namespace switchyard::pool {

struct InstanceOptions {
  std::string name;
  Role role = Role::unified;
  std::string fabric = "auto";
  std::uint32_t threads = 0;
  std::uint64_t kv_bytes = 0;
  std::uint32_t chunk_tokens = 256;
  PeerAddress supervisor;
  std::string shared_key;    // of the pool's engines
  bool control_tls = false;  // as all of them
};

// Options that every engine of a pool shares.
EngineOptions pool_engine_options(const std::string& name, const std::string& fabric, std::uint32_t context,
                                  const std::string& shared_key, bool control_tls);

class Instance {
 public:
  using MakeRuntime = std::function<Result<std::unique_ptr<model::Runtime>>(
      std::shared_ptr<const model::ModelImage> image, std::span<std::byte> kv_pool,
      const model::RuntimeOptions&)>;

  // Takes memory, registers it, and says Hello to the supervisor. Errors: of the engine, memory or runtime.
  static Result<std::unique_ptr<Instance>> create(const InstanceOptions& options,
                                                  std::shared_ptr<const model::ModelImage> image,
                                                  const MakeRuntime& make_runtime = make_own_runtime);
  // Ends what is under way; peers see peer_lost. run() must have returned.
  ~Instance();

  // Works until stop(), or until the supervisor is gone.
  void run() { worker_->run(); }
  // From any thread.
  void stop() { worker_->stop(); }

 private:
  static Result<std::unique_ptr<model::Runtime>> make_own_runtime(
      std::shared_ptr<const model::ModelImage> image, std::span<std::byte> kv_pool,
      const model::RuntimeOptions& options) {
    return model::Runtime::create(std::move(image), kv_pool, options);
  }
  Instance() = default;

  // In this order: what is above is used by what is below.
  std::unique_ptr<TransferEngine> engine_;
  std::unique_ptr<KvStore> store_;
  std::unique_ptr<model::Runtime> runtime_;
  std::unique_ptr<Worker> worker_;
  std::shared_ptr<Channel> channel_;
};

// Loads the model and runs an instance until SIGTERM, or until the supervisor is gone. Blocks SIGTERM and
// SIGINT in the calling thread and those that it starts: call it from main.
Status run_instance(const InstanceOptions& options, const std::filesystem::path& model);

}  // namespace switchyard::pool
