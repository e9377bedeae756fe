// What other threads tell a loop: a bounded queue with one reader.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <mutex>
#include <utility>

#include "switchyard/time.h"

namespace switchyard::pool {

template <class T>
class Mailbox {
 public:
  explicit Mailbox(std::size_t capacity) : capacity_(capacity) {}

  // False when the box is full; `value` is untouched then. Any thread.
  bool put(T&& value) { return put_below(std::move(value), capacity_); }

  // For what must not be refused: news of this process's own operations, whose number is bounded elsewhere.
  void put_always(T&& value) { put_below(std::move(value), SIZE_MAX); }

  // Everything that came, oldest first; waits until `deadline` for the first, not at all if it has passed.
  std::deque<T> take_all(TimePoint deadline) {
    std::unique_lock lock(mutex_);
    if (deadline == TimePoint::max()) {
      arrived_.wait(lock, [this] { return !values_.empty(); });
    } else {
      arrived_.wait_until(lock, deadline, [this] { return !values_.empty(); });
    }
    return std::exchange(values_, {});
  }

 private:
  bool put_below(T&& value, std::size_t limit) {
    {
      const std::lock_guard lock(mutex_);
      if (values_.size() >= limit) return false;
      values_.push_back(std::move(value));
    }
    arrived_.notify_one();
    return true;
  }

  const std::size_t capacity_;
  std::mutex mutex_;
  std::condition_variable arrived_;
  std::deque<T> values_;
};

}  // namespace switchyard::pool
