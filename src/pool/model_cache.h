// Model images in memory that instances share: one copy per machine, whatever number of instances.
//
// An image is built once from its checkpoint and kept on disk (model::ModelImage::open). To be loaded into
// berths it is brought into shared memory, within a budget that is never exceeded: the least recently used
// image that nobody holds leaves first. Building and reading happen on threads of the cache's own. What is
// read is compared with the hash that was written with it: a damaged image is never handed out. A
// checkpoint that cannot be used opens a breaker: for a while, longer each time, it is answered with the
// reason instead of being tried again.
//
// Owned by the pool. Any thread may call; no call waits for a file. Each open() and acquire() is answered
// once, on a thread of the cache, never inside a call; callbacks must not block nor destroy the cache.
// Handles may outlive the cache.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string_view>

#include "memory/shared_memory.h"
#include "model/image.h"
#include "switchyard/result.h"
#include "switchyard/time.h"

namespace switchyard::pool {

// An image in shared memory. It cannot leave while a handle exists, which whoever reads it holds; its pages
// go with it, even from those who map it still. Letting go costs next to nothing; the memory is given back by
// a thread of the cache.
class CachedImage {
 public:
  virtual ~CachedImage() = default;
  // A whole image file, for model::ModelImage::parse. Valid while this handle lives.
  virtual const SharedMemoryName& memory() const = 0;
};

// Whether the image, in whole pages, is within a budget at all. Errors: invalid (it has no file),
// out_of_range.
Status check_budget(const model::ModelImage& image, std::uint64_t budget_bytes);
Status check_budget(std::uint64_t image_bytes, std::uint64_t budget_bytes);

class ModelCache {
 public:
  struct Options {
    std::uint64_t budget_bytes = 0;
    Nanos first_pause = std::chrono::seconds(1);  // of a breaker; doubles with each failure
    Nanos longest_pause = std::chrono::minutes(5);
    std::function<TimePoint()> now = monotonic_now;
  };
  using Opened = std::function<void(Result<std::shared_ptr<const model::ModelImage>>)>;
  using Progress = std::function<void(std::uint64_t done, std::uint64_t total)>;
  using Ready = std::function<void(Result<std::shared_ptr<const CachedImage>>)>;

  static std::unique_ptr<ModelCache> create(const Options& options);
  // Waits for the image that is being built, gives up one that is being read, and answers what waits with
  // cancelled. No callback comes after.
  virtual ~ModelCache() = default;

  // Opens a checkpoint, building its image where there is none; one at a time, in order. The result is mapped
  // from disk. A checkpoint that has changed on disk gives another image. Errors: those of ModelImage::open;
  // while the breaker is open, at once the last of them, with when it is tried again; exhausted (too many are
  // waiting), cancelled. `progress` is called while an image is built.
  virtual void open(const std::filesystem::path& checkpoint, Opened opened, Progress progress = {}) = 0;
  // The same after acquire() said that the image of the checkpoint, named by its hash, is corrupt: makes it
  // anew (model::ModelImage::repair). Errors: also of that.
  virtual void repair(const std::filesystem::path& checkpoint, std::string_view image_hash, Opened opened,
                      Progress progress = {}) = 0;
  // Brings an image into shared memory, or finds it there. What has to be read is read one after the other,
  // in the order of the calls, and waits while what is in the way is held. Errors: invalid (an image without
  // a file), out_of_range (larger than the budget), exhausted (too many wait, no memory), corrupt (the file
  // is not what was written: see repair()), io, cancelled.
  virtual void acquire(std::shared_ptr<const model::ModelImage> image, Ready ready) = 0;
  // Brings an image into shared memory when nothing else is to be read, if there is room that nobody has.
  virtual void prefetch(std::shared_ptr<const model::ModelImage> image) = 0;
  // Whether acquire() would find it now.
  virtual bool holds(std::string_view image_hash) const = 0;
  // Lets it leave at once, or as soon as nobody holds it: the model was removed. A later acquire() of one
  // that is still there keeps it.
  virtual void forget(std::string_view image_hash) = 0;

  struct Usage {
    std::uint64_t budget_bytes = 0;
    std::uint64_t used_bytes = 0;  // whole pages
    std::uint64_t held_bytes = 0;  // of it, that cannot leave now
    std::uint32_t images = 0;
    std::uint64_t hits = 0;
    std::uint64_t misses = 0;
    std::uint64_t evictions = 0;
    std::uint64_t waiting = 0;   // images that are to be read
    std::uint64_t failures = 0;  // checkpoints and images that could not be opened or read
    double read_seconds = 0;
    std::uint64_t read_bytes = 0;  // grows while an image is read
  };
  virtual Usage usage() const = 0;
};

}  // namespace switchyard::pool
