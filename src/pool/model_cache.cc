// Three threads: one opens checkpoints, one brings images into memory and lets them leave, one calls back.
#include "pool/model_cache.h"

#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/log.h"
#include "base/units.h"
#include "model/describe.h"
#include "pool/checkpoint_breaker.h"

namespace switchyard::pool {
namespace {

using Image = std::shared_ptr<const model::ModelImage>;

constexpr std::size_t kMostOpens = 256;
constexpr std::size_t kMostAcquires = 4096;  // callbacks that wait
constexpr std::size_t kMostPrefetches = 4096;

std::uint64_t whole_pages(std::uint64_t bytes) {
  const auto page = static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
  return (bytes + page - 1) / page * page;
}

std::uint64_t memory_of(const model::ModelImage& image) { return whole_pages(image.file().size()); }

struct Entry {
  std::string hash;
  std::uint64_t bytes = 0;  // whole pages
  SharedMemory memory;
  std::uint32_t holders = 0;
  std::uint64_t last_used = 0;
  bool forgotten = false;  // leaves when nobody holds it
};

// What the threads and the handles share.
class Core : public std::enable_shared_from_this<Core> {
 public:
  explicit Core(const ModelCache::Options& options)
      : options_(options), breaker_(options.first_pause, options.longest_pause) {}

  struct Open {
    std::string checkpoint;
    std::string damaged;  // hash of the image that is to be repaired; empty: none
    ModelCache::Opened opened;
    ModelCache::Progress progress;
  };

  void open(Open open);
  void acquire(Image image, ModelCache::Ready ready);
  void prefetch(Image image);
  bool holds(std::string_view hash) const;
  void forget(std::string_view hash);
  ModelCache::Usage usage() const;
  void release(Entry& entry);

  void open_checkpoints();
  void bring_images();
  void call_back();
  // In this order: the other two threads have ended when the callbacks do.
  void stop();
  void stop_calling_back();

 private:
  struct Load {
    Image image;
    std::uint64_t bytes = 0;  // whole pages
    std::vector<ModelCache::Ready> ready;
  };

  Result<Image> open_image(const Open& open);
  // The rest holds mutex_, but for read().
  void tell(std::function<void()> callback);
  void hand(const std::shared_ptr<Entry>& entry, ModelCache::Ready ready);
  bool begins_to_leave(std::shared_ptr<Entry> entry);  // false: somebody holds it
  std::optional<Load> next_prefetch();
  bool can_make_room() const;
  void make_room();
  Result<SharedMemory> read(const model::ModelImage& image);
  void finish_load(Load load, Result<SharedMemory> memory);

  const ModelCache::Options options_;
  mutable std::mutex mutex_;
  std::condition_variable opens_changed_;
  std::condition_variable images_changed_;
  std::condition_variable callbacks_changed_;
  bool stopping_ = false;
  bool callbacks_end_ = false;

  std::deque<Open> opens_;
  CheckpointBreaker breaker_;
  std::map<std::string, std::shared_ptr<Entry>, std::less<>> entries_;  // by hash
  std::deque<Load> loads_;                                              // each hash once
  std::deque<Image> prefetches_;
  Load* reading_ = nullptr;
  std::size_t acquires_ = 0;                     // callbacks in loads_ and reading_
  std::vector<std::shared_ptr<Entry>> leaving_;  // still in used_
  std::uint64_t used_ = 0;
  std::uint64_t uses_ = 0;
  ModelCache::Usage counts_;  // only what is counted up
  std::deque<std::function<void()>> callbacks_;
};

class Handle final : public CachedImage {
 public:
  Handle(std::weak_ptr<Core> core, std::shared_ptr<Entry> entry)
      : core_(std::move(core)), entry_(std::move(entry)) {}
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  ~Handle() override {
    if (const auto core = core_.lock()) core->release(*entry_);
  }
  const SharedMemoryName& memory() const override { return entry_->memory.name(); }

 private:
  std::weak_ptr<Core> core_;
  std::shared_ptr<Entry> entry_;
};

void Core::tell(std::function<void()> callback) {
  callbacks_.push_back(std::move(callback));
  callbacks_changed_.notify_one();
}

void Core::open(Open open) {
  const std::lock_guard lock(mutex_);
  Status status = breaker_.check(open.checkpoint, options_.now());
  if (status && opens_.size() >= kMostOpens) {
    status =
        fail(ErrorCode::exhausted, "{} waits behind {} checkpoints that are to be opened; try again later",
             open.checkpoint, opens_.size());
  }
  if (!status) {
    return tell([opened = std::move(open.opened), error = status.error()] { opened(pass(error)); });
  }
  opens_.push_back(std::move(open));
  opens_changed_.notify_one();
}

Result<Image> Core::open_image(const Open& open) {
  const auto progress = [this, &open](std::uint64_t done, std::uint64_t total) {
    {
      const std::lock_guard lock(mutex_);
      if (stopping_) throw std::runtime_error("the model cache is closing");
    }
    if (open.progress) open.progress(done, total);
  };
  try {
    return open.damaged.empty() ? model::ModelImage::open(open.checkpoint, progress)
                                : model::ModelImage::repair(open.checkpoint, open.damaged, progress);
  } catch (const std::exception& error) {
    return fail(ErrorCode::exhausted, "{}: {}", open.checkpoint, error.what());
  }
}

void Core::open_checkpoints() {
  std::unique_lock lock(mutex_);
  while (true) {
    opens_changed_.wait(lock, [this] { return stopping_ || !opens_.empty(); });
    if (stopping_) break;
    Open open = std::move(opens_.front());
    opens_.pop_front();
    // It may have failed for somebody else who asked before.
    Status allowed = breaker_.check(open.checkpoint, options_.now());
    Result<Image> image = Image();
    if (allowed) {
      lock.unlock();
      image = open_image(open);
      lock.lock();
      if (image) {
        breaker_.succeeded(open.checkpoint);
      } else {
        ++counts_.failures;
        breaker_.failed(open.checkpoint, image.error(), options_.now());
      }
    } else {
      image = pass(allowed.error());
    }
    tell([opened = std::move(open.opened), image = std::move(image)] { opened(image); });
  }
  for (Open& open : opens_) {
    tell([opened = std::move(open.opened)] {
      opened(fail(ErrorCode::cancelled, "the model cache is closing"));
    });
  }
  opens_.clear();
}

void Core::acquire(Image image, ModelCache::Ready ready) {
  const std::string hash(image->hash());
  const std::uint64_t bytes = memory_of(*image);
  const std::lock_guard lock(mutex_);
  if (const auto found = entries_.find(hash); found != entries_.end()) {
    ++counts_.hits;
    return hand(found->second, std::move(ready));
  }
  ++counts_.misses;
  std::optional<Error> refusal;
  if (const Status fits = check_budget(*image, options_.budget_bytes); !fits) {
    refusal = fits.error();
  } else if (acquires_ >= kMostAcquires) {
    refusal = Error{ErrorCode::exhausted,
                    fmt::format("{} others wait for the model cache; try again later", acquires_)};
  }
  if (refusal) {
    return tell([ready = std::move(ready), error = *std::move(refusal)] { ready(pass(error)); });
  }
  ++acquires_;
  if (reading_ != nullptr && reading_->image->hash() == hash) {
    reading_->ready.push_back(std::move(ready));
    return;
  }
  const auto load =
      std::ranges::find_if(loads_, [&](const Load& each) { return each.image->hash() == hash; });
  if (load != loads_.end()) {
    load->ready.push_back(std::move(ready));
    return;
  }
  loads_.push_back({.image = std::move(image), .bytes = bytes});
  loads_.back().ready.push_back(std::move(ready));
  images_changed_.notify_one();
}

void Core::prefetch(Image image) {
  const std::lock_guard lock(mutex_);
  if (prefetches_.size() >= kMostPrefetches) return;
  prefetches_.push_back(std::move(image));
  images_changed_.notify_one();
}

std::optional<Core::Load> Core::next_prefetch() {
  while (!prefetches_.empty()) {
    Image image = std::move(prefetches_.front());
    prefetches_.pop_front();
    const std::uint64_t bytes = memory_of(*image);
    if (bytes == 0 || bytes > options_.budget_bytes - used_ || entries_.contains(image->hash())) continue;
    return Load{.image = std::move(image), .bytes = bytes};
  }
  return std::nullopt;
}

void Core::hand(const std::shared_ptr<Entry>& entry, ModelCache::Ready ready) {
  ++entry->holders;
  entry->last_used = ++uses_;
  entry->forgotten = false;
  tell(
      [ready = std::move(ready), handle = std::make_shared<const Handle>(weak_from_this(), entry)]() mutable {
        ready(std::shared_ptr<const CachedImage>(std::exchange(handle, nullptr)));
      });
}

void Core::release(Entry& entry) {
  const std::lock_guard lock(mutex_);
  entry.last_used = ++uses_;
  if (--entry.holders != 0) return;
  if (entry.forgotten) begins_to_leave(entries_.find(entry.hash)->second);
  images_changed_.notify_one();
}

bool Core::holds(std::string_view hash) const {
  const std::lock_guard lock(mutex_);
  return entries_.find(hash) != entries_.end();
}

void Core::forget(std::string_view hash) {
  const std::lock_guard lock(mutex_);
  std::erase_if(prefetches_, [&](const Image& image) { return image->hash() == hash; });
  const auto found = entries_.find(hash);
  if (found == entries_.end()) return;
  found->second->forgotten = true;
  if (begins_to_leave(found->second)) images_changed_.notify_one();
}

bool Core::begins_to_leave(std::shared_ptr<Entry> entry) {
  if (entry->holders != 0) return false;
  ++counts_.evictions;
  entries_.erase(entry->hash);
  leaving_.push_back(std::move(entry));
  return true;
}

bool Core::can_make_room() const {
  if (loads_.empty()) return false;
  std::uint64_t possible = options_.budget_bytes - used_;
  for (const auto& [hash, entry] : entries_) possible += entry->holders == 0 ? entry->bytes : 0;
  return possible >= loads_.front().bytes;
}

void Core::make_room() {
  std::uint64_t room = options_.budget_bytes - used_;
  while (room < loads_.front().bytes) {
    std::shared_ptr<Entry> oldest;
    for (const auto& [hash, entry] : entries_) {
      if (entry->holders == 0 && (!oldest || entry->last_used < oldest->last_used)) oldest = entry;
    }
    room += oldest->bytes;  // can_make_room() saw enough of them
    begins_to_leave(oldest);
  }
}

void Core::bring_images() {
  std::unique_lock lock(mutex_);
  while (true) {
    images_changed_.wait(lock, [this] {
      return stopping_ || !leaving_.empty() || can_make_room() || (loads_.empty() && !prefetches_.empty());
    });
    if (stopping_) break;
    if (leaving_.empty() && !loads_.empty()) make_room();
    if (!leaving_.empty()) {
      const auto leaving = std::exchange(leaving_, {});
      lock.unlock();
      // A handle that lets go this moment may have the entry a little longer, but not the memory; nor have
      // the instances that mapped it.
      for (const auto& entry : leaving) entry->memory.discard();
      lock.lock();
      for (const auto& entry : leaving) used_ -= entry->bytes;
      continue;
    }
    Load load;
    if (loads_.empty()) {
      auto prefetch = next_prefetch();
      if (!prefetch) continue;
      load = *std::move(prefetch);
    } else {
      load = std::move(loads_.front());
      loads_.pop_front();
    }
    reading_ = &load;
    used_ += load.bytes;
    lock.unlock();
    const TimePoint start = monotonic_now();
    auto memory = read(*load.image);
    const double seconds = to_seconds(monotonic_now() - start);
    lock.lock();
    counts_.read_seconds += seconds;
    reading_ = nullptr;
    if (!memory) used_ -= load.bytes;
    finish_load(std::move(load), std::move(memory));
  }
  for (Load& load : loads_) finish_load(std::move(load), fail(ErrorCode::cancelled, "closing"));
  loads_.clear();
}

Result<SharedMemory> Core::read(const model::ModelImage& image) {
  const std::size_t size = image.file().size();
  auto memory = SharedMemory::create("switchyard-image", size);
  if (!memory) return memory;
  const auto go_on = [this](std::uint64_t count) {
    const std::lock_guard lock(mutex_);
    counts_.read_bytes += count;
    return !stopping_;
  };
  if (auto status = image.copy_file(memory->span(), go_on); !status) {
    return fail_at(fmt::format("the model image {}", image.hash()), status.error());
  }
  // Header and index, too, are still those that were opened.
  const auto parsed = model::ModelImage::parse(memory->span());
  if (!parsed) {
    return fail(ErrorCode::corrupt, "the model image {}: {}", image.hash(), parsed.error().message);
  }
  if ((*parsed)->hash() != image.hash()) {
    return fail(ErrorCode::corrupt, "the file of the model image {} holds another one now", image.hash());
  }
  return memory;
}

void Core::finish_load(Load load, Result<SharedMemory> memory) {
  acquires_ -= load.ready.size();
  if (!memory) {
    const bool cancelled = memory.error().code == ErrorCode::cancelled;
    if (!cancelled) ++counts_.failures;
    for (auto& ready : load.ready) {
      tell([ready = std::move(ready), error = memory.error()] { ready(pass(error)); });
    }
    return;
  }
  const auto entry = std::make_shared<Entry>();
  entry->hash = load.image->hash();
  entry->bytes = load.bytes;
  entry->memory = *std::move(memory);
  entries_.emplace(entry->hash, entry);
  for (auto& ready : load.ready) hand(entry, std::move(ready));
}

ModelCache::Usage Core::usage() const {
  const std::lock_guard lock(mutex_);
  ModelCache::Usage usage = counts_;
  usage.budget_bytes = options_.budget_bytes;
  usage.used_bytes = used_;
  usage.held_bytes = reading_ != nullptr ? reading_->bytes : 0;
  usage.images = static_cast<std::uint32_t>(entries_.size());
  usage.waiting = loads_.size();
  for (const auto& [hash, entry] : entries_) usage.held_bytes += entry->holders != 0 ? entry->bytes : 0;
  return usage;
}

void Core::call_back() {
  std::unique_lock lock(mutex_);
  while (true) {
    callbacks_changed_.wait(lock, [this] { return callbacks_end_ || !callbacks_.empty(); });
    if (callbacks_.empty()) return;
    auto callback = std::move(callbacks_.front());
    callbacks_.pop_front();
    lock.unlock();
    callback();
    callback = nullptr;  // what it holds may call the cache when it goes
    lock.lock();
  }
}

void Core::stop() {
  const std::lock_guard lock(mutex_);
  stopping_ = true;
  opens_changed_.notify_all();
  images_changed_.notify_all();
}

void Core::stop_calling_back() {
  const std::lock_guard lock(mutex_);
  callbacks_end_ = true;
  callbacks_changed_.notify_all();
}

class Cache final : public ModelCache {
 public:
  explicit Cache(const Options& options)
      : core_(std::make_shared<Core>(options)),
        opener_([core = core_.get()] { core->open_checkpoints(); }),
        bringer_([core = core_.get()] { core->bring_images(); }),
        caller_([core = core_.get()] { core->call_back(); }) {}
  Cache(const Cache&) = delete;
  Cache& operator=(const Cache&) = delete;

  ~Cache() override {
    core_->stop();
    opener_.join();
    bringer_.join();
    core_->stop_calling_back();
    caller_.join();
  }

  void open(const std::filesystem::path& checkpoint, Opened opened, Progress progress) override {
    core_->open({checkpoint.lexically_normal().string(), {}, std::move(opened), std::move(progress)});
  }
  void repair(const std::filesystem::path& checkpoint, std::string_view image_hash, Opened opened,
              Progress progress) override {
    core_->open({checkpoint.lexically_normal().string(), std::string(image_hash), std::move(opened),
                 std::move(progress)});
  }
  void acquire(Image image, Ready ready) override { core_->acquire(std::move(image), std::move(ready)); }
  void prefetch(Image image) override { core_->prefetch(std::move(image)); }
  bool holds(std::string_view image_hash) const override { return core_->holds(image_hash); }
  void forget(std::string_view image_hash) override { core_->forget(image_hash); }
  Usage usage() const override { return core_->usage(); }

 private:
  std::shared_ptr<Core> core_;
  std::thread opener_;
  std::thread bringer_;
  std::thread caller_;
};

}  // namespace

Status check_budget(std::uint64_t image_bytes, std::uint64_t budget_bytes) {
  if (image_bytes <= budget_bytes) return {};
  return fail(
      ErrorCode::out_of_range,
      "its image of {} does not fit the model cache of {}: set model_cache to {} or more and start again",
      format_bytes(image_bytes), format_bytes(budget_bytes), setting_for(image_bytes));
}

Status check_budget(const model::ModelImage& image, std::uint64_t budget_bytes) {
  const std::uint64_t bytes = memory_of(image);
  if (bytes == 0) return fail(ErrorCode::invalid, "the image {} has no file to read", image.hash());
  return check_budget(bytes, budget_bytes);
}

std::unique_ptr<ModelCache> ModelCache::create(const Options& options) {
  return std::make_unique<Cache>(options);
}

}  // namespace switchyard::pool
