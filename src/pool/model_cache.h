// Model images in memory that instances share: one copy per machine, whatever number of instances.
//
// An image is built once from its checkpoint and kept on disk (model::ModelImage::open). To be loaded into
// berths it is brought into shared memory, within a budget that is never exceeded: the least recently used
// image that nobody holds leaves first. Building and reading happen on threads of the cache's own. A
// checkpoint that cannot be used opens a breaker: for a while, longer each time, it is answered with the
// reason instead of being tried again.
//
// Owned by the pool. Any thread may call; callbacks run on the cache's threads, never inside a call, and must
// not block. Handles may outlive the cache.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "memory/shared_memory.h"
#include "model/image.h"
#include "switchyard/result.h"
#include "switchyard/time.h"

namespace switchyard::pool {

// An image in shared memory. It cannot leave while a handle exists.
class CachedImage {
 public:
  virtual ~CachedImage() = default;
  // A whole image file, for model::ModelImage::parse.
  virtual const SharedMemoryName& memory() const = 0;
};

class ModelCache {
 public:
  struct Options {
    std::uint64_t budget_bytes = 0;
    Nanos first_pause = std::chrono::seconds(1);  // of a breaker; doubles with each failure
    Nanos longest_pause = std::chrono::minutes(5);
  };
  using Opened = std::function<void(Result<std::shared_ptr<const model::ModelImage>>)>;
  using Progress = std::function<void(std::uint64_t done, std::uint64_t total)>;
  using Ready = std::function<void(Result<std::shared_ptr<const CachedImage>>)>;

  static std::unique_ptr<ModelCache> create(const Options& options);
  virtual ~ModelCache() = default;  // waits for the file that is being worked on; no callback comes after

  // Opens a checkpoint, building its image where there is none; one at a time, in order. The result is mapped
  // from disk. Errors: those of ModelImage::open, exhausted (too many are waiting), unavailable-like errors
  // of an open breaker with its reason and when it is tried again.
  virtual void open(const std::filesystem::path& checkpoint, Opened opened, Progress progress = {}) = 0;
  // Brings an image into shared memory, or finds it there. Waits while all that is in the way is held;
  // errors: out_of_range (larger than the budget), exhausted (too many wait), io.
  virtual void acquire(std::shared_ptr<const model::ModelImage> image, Ready ready) = 0;
  // Whether acquire() would find it now.
  virtual bool holds(std::string_view image_hash) const = 0;
  // Lets it leave first, or at once where nobody holds it: the model was removed.
  virtual void forget(std::string_view image_hash) = 0;

  struct Usage {
    std::uint64_t budget_bytes = 0;
    std::uint64_t used_bytes = 0;
    std::uint64_t held_bytes = 0;  // of it, that cannot leave now
    std::uint32_t images = 0;
    std::uint64_t hits = 0;
    std::uint64_t misses = 0;
    std::uint64_t evictions = 0;
    std::uint64_t failures = 0;
    double read_seconds = 0;
    std::uint64_t read_bytes = 0;
  };
  virtual Usage usage() const = 0;
};

}  // namespace switchyard::pool
