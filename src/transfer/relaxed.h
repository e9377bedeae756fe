// A number that one thread changes and others look at: relaxed atomic, copyable, for metrics.
#pragma once

#include <atomic>

namespace switchyard::transfer {

template <class T>
class Relaxed {
 public:
  Relaxed(T value = {}) : value_(value) {}  // NOLINT: a number
  Relaxed(const Relaxed& other) : value_(other.get()) {}
  Relaxed& operator=(const Relaxed& other) {
    set(other.get());
    return *this;
  }
  T get() const { return value_.load(std::memory_order_relaxed); }
  void set(T value) { value_.store(value, std::memory_order_relaxed); }
  // By the one thread that changes it: no locked instruction.
  void add(T value) { set(get() + value); }
  void subtract(T value) { set(get() - value); }

 private:
  std::atomic<T> value_;
};

}  // namespace switchyard::transfer
