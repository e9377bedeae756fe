// A model cache of fake images, which lie in shared memory from the beginning. Loads can be made to fail, and
// images to be damaged. One thread answers.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>

#include "pool/fake_model.h"
#include "pool/model_cache.h"

namespace switchyard::pool {

class FakeCache final : public ModelCache {
 public:
  ~FakeCache() override {
    post({});
    thread_.join();
  }
  void open(const std::filesystem::path& path, Opened opened, Progress) override {
    post([path, opened] {
      if (path == "broken") return opened(fail(ErrorCode::corrupt, "it is broken"));
      opened(std::make_shared<const FakeImage>(FakeModel{.salt = std::stoull(path.string())}));
    });
  }
  void repair(const std::filesystem::path&, std::string_view hash, Opened opened,
              Progress progress) override {
    post([this, hash = std::string(hash), opened, progress] {
      progress(1, 2);
      ++repairs;
      if (!repairable) return opened(fail(ErrorCode::not_found, "the checkpoint is gone"));
      damaged = lasting_damage.load();
      opened(std::make_shared<const FakeImage>(acquired_.at(hash)));
    });
  }
  void acquire(std::shared_ptr<const model::ModelImage> image, Ready ready) override {
    post([this, image, ready] {
      const FakeModel& fake = static_cast<const FakeImage&>(*image).fake();
      acquired_[std::string(image->hash())] = fake;
      if (failing) return ready(fail(ErrorCode::io, "the disk is gone"));
      if (damaged) return ready(fail(ErrorCode::corrupt, "these are other bytes"));
      class Held final : public CachedImage {
       public:
        explicit Held(SharedMemory memory) : memory_(std::move(memory)) {}
        const SharedMemoryName& memory() const override { return memory_.name(); }

       private:
        SharedMemory memory_;
      };
      ready(std::make_shared<Held>(fake_shared_image(fake)));
    });
  }
  void prefetch(std::shared_ptr<const model::ModelImage>) override {}
  bool holds(std::string_view) const override { return true; }
  void forget(std::string_view) override {}
  Usage usage() const override { return {.budget_bytes = budget}; }

  // Nothing is answered meanwhile.
  void hold(bool held) {
    {
      const std::lock_guard lock(mutex_);
      held_ = held;
    }
    wake_.notify_one();
  }

  std::atomic<std::uint64_t> budget = 1 << 30;
  std::atomic<bool> failing = false;
  std::atomic<bool> damaged = false;  // every image, until it is repaired
  std::atomic<bool> repairable = true;
  std::atomic<bool> lasting_damage = false;  // repairs do not help
  std::atomic<int> repairs = 0;

 private:
  void post(std::function<void()> task) {
    {
      const std::lock_guard lock(mutex_);
      tasks_.push_back(std::move(task));
    }
    wake_.notify_one();
  }
  void run() {
    for (;;) {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [this] { return !tasks_.empty() && !held_; });
      const auto task = std::move(tasks_.front());
      tasks_.pop_front();
      lock.unlock();
      if (!task) return;
      task();
    }
  }

  std::map<std::string, FakeModel> acquired_;  // of the thread
  std::mutex mutex_;
  std::condition_variable wake_;
  bool held_ = false;
  std::deque<std::function<void()>> tasks_;  // an empty one ends the thread
  std::thread thread_{[this] { run(); }};
};

}  // namespace switchyard::pool
