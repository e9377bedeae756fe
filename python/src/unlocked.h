// A scope without the interpreter's lock (GIL): for whatever waits, or takes a lock of its own.
//
// Python before 3.14 ends a daemon thread that wants the lock back after the interpreter has begun to end: by
// pthread_exit, whose unwinding ends the whole process at the first C++ function that lets nothing through.
// Such a thread sleeps here instead, until the process is gone.
#pragma once

#include <Python.h>
#include <cxxabi.h>
#include <unistd.h>

namespace switchyard::python {

class Unlocked {
 public:
  Unlocked() : state_(PyEval_SaveThread()) {}
  ~Unlocked() {
    try {
      PyEval_RestoreThread(state_);
    } catch (abi::__forced_unwind&) {
      for (;;) pause();
    }
  }
  Unlocked(const Unlocked&) = delete;
  Unlocked& operator=(const Unlocked&) = delete;

 private:
  PyThreadState* state_;
};

}  // namespace switchyard::python
