// The weights area of an instance: berths of equal size, each with one model, and the thread that fills them.
//
// A load copies an image from shared memory in chunks while the instance computes with another model; what is
// ready then is a runtime over the weights in the berth, which shares threads and scratch memory with all
// others. The memory is taken at the start; its pages come when a berth is first filled.
//
// Owned by the worker and used on its loop; the copying thread tells its news through `post`.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <thread>
#include <vector>

#include "memory/arena.h"
#include "model/runtime.h"
#include "pool/image_mappings.h"
#include "pool/orders.h"
#include "pool/stats.h"

namespace switchyard::pool {

using MakeRuntime = std::function<Result<std::unique_ptr<model::Runtime>>(
    std::shared_ptr<const model::ModelImage> image, std::span<std::byte> kv_pool,
    const model::RuntimeOptions& options, std::shared_ptr<model::RuntimeWorkspace> workspace)>;

struct BerthParts {
  std::uint32_t berths = 2;
  std::uint64_t berth_bytes = 0;
  std::span<std::byte> kv_memory;
  model::RuntimeOptions runtime;
  OpenImage open_image;
  MakeRuntime make_runtime;
  std::shared_ptr<model::RuntimeWorkspace> workspace;
  std::function<void(std::function<void()>)> post;  // to the loop
};

class Berths {
 public:
  using Done = std::function<void(const Loaded&)>;

  // Errors: invalid, exhausted.
  static Result<std::unique_ptr<Berths>> create(BerthParts parts);
  // Ends the load that is under way; its Done does not come.
  ~Berths();

  // `done` comes on the loop, from within this call where nothing is to be copied. The model that is to leave
  // must not be in use.
  void load(const LoadModel& order, Done done);
  // Also calls off its load, if that is under way.
  void evict(ModelId model);

  // Null: it is not in a berth.
  model::Runtime* runtime(ModelId model) const;
  bool loading(ModelId model) const { return load_ && load_->order.model == model; }
  std::uint32_t count() const { return static_cast<std::uint32_t>(berths_.size()); }
  std::uint64_t berth_bytes() const { return berth_bytes_; }
  void add_stats(Stats& stats) const;

 private:
  struct Berth {
    std::span<std::byte> memory;
    ModelId model = schedule::kNoModel;  // also while it is being loaded
    std::unique_ptr<model::Runtime> runtime;
  };
  struct Load {
    LoadModel order;
    std::size_t berth = 0;
    Done done;
    std::shared_ptr<std::atomic<bool>> called_off = std::make_shared<std::atomic<bool>>(false);
  };
  struct Copied {
    std::shared_ptr<const model::ModelImage> image;  // placed in the berth
    std::uint64_t bytes = 0;
    Nanos took{};
  };

  explicit Berths(BerthParts parts) : parts_(std::move(parts)), mappings_(parts_.open_image) {}
  void run();
  Result<Copied> copy(const SharedMemoryName& name, std::span<std::byte> berth,
                      const std::atomic<bool>& called_off);
  void copied(Result<Copied> result);
  void end_load(const Status& status, std::uint64_t bytes, Nanos took);

  const BerthParts parts_;
  std::uint64_t berth_bytes_ = 0;
  Arena arena_;
  std::vector<Berth> berths_;
  std::optional<Load> load_;
  std::uint64_t loads_ = 0;
  std::uint64_t failed_loads_ = 0;
  std::uint64_t loaded_bytes_ = 0;
  Nanos load_time_{};

  struct Task {
    SharedMemoryName image;
    std::span<std::byte> berth;
    std::shared_ptr<const std::atomic<bool>> called_off;
  };
  std::mutex mutex_;
  std::condition_variable wake_;
  std::optional<Task> task_;  // for the thread
  ImageMappings mappings_;    // the thread's
  std::atomic<bool> stopping_ = false;
  std::thread thread_;
};

}  // namespace switchyard::pool
