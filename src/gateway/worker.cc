#include "gateway/worker.h"

#include <exception>

#include "base/log.h"

namespace switchyard::gateway {

Worker::Worker() : thread_([this] { run(); }) {}

Worker::~Worker() { shut_down(); }

void Worker::post(std::function<void()> task) {
  {
    std::lock_guard lock(mutex_);
    if (stop_) return;
    tasks_.push_back(std::move(task));
  }
  wake_.notify_one();
}

void Worker::shut_down() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_one();
  if (thread_.joinable()) thread_.join();
}

void Worker::run() {
  for (;;) {
    std::function<void()> task;
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [this] { return stop_ || !tasks_.empty(); });
      if (stop_) return;
      task = std::move(tasks_.front());
      tasks_.pop_front();
    }
    try {
      task();
    } catch (const std::exception& exception) {
      log::error("gateway: a background task failed: {}", exception.what());
    }
  }
}

}  // namespace switchyard::gateway
