// A thread for work that would hold up the I/O thread: tokenising long prompts, asking the pool for its
// state.
//
// Tasks run one after the other, in order. A connection has at most one task here at a time, which bounds the
// queue. post() from any thread; sleeps when there is nothing to do.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

namespace switchyard::gateway {

class Worker {
 public:
  Worker();
  ~Worker();  // ends after the task it is in; tasks that wait are dropped
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  void post(std::function<void()> task);
  void shut_down();

 private:
  void run();

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::function<void()>> tasks_;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace switchyard::gateway
