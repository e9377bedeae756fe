// What must not be torn down in a forked child: the engine's threads are not there, and its shared memory is
// the parent's. In a child the value is left alone, for ever.
#pragma once

#include <unistd.h>

#include <utility>

namespace switchyard::python {

template <class T>
class ProcessBound {
 public:
  ProcessBound() = default;
  explicit ProcessBound(T value) : value_(std::move(value)) {}
  ProcessBound(ProcessBound&&) = default;
  ProcessBound& operator=(ProcessBound&&) = delete;
  ~ProcessBound() {
    if (!here()) static_cast<void>(new T(std::move(value_)));
  }
  bool here() const { return getpid() == process_; }
  T& operator*() { return value_; }
  const T& operator*() const { return value_; }
  T* operator->() { return &value_; }
  const T* operator->() const { return &value_; }

 private:
  T value_{};
  pid_t process_ = getpid();
};

}  // namespace switchyard::python
