// The gateway's one I/O thread.
//
// Owned by the gateway; sinks that the pool still holds share it, and may post to it after its end: then
// nothing happens. post() may be called by any thread and costs one lock and, when the thread sleeps, one
// wake-up.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <thread>

namespace boost::asio {
class io_context;
}

namespace switchyard::gateway {

class IoLoop {
 public:
  IoLoop();
  ~IoLoop();
  IoLoop(const IoLoop&) = delete;
  IoLoop& operator=(const IoLoop&) = delete;

  boost::asio::io_context& context() { return *context_; }
  void start();
  // Runs `task` on the I/O thread. False, and the task is dropped, when the loop has ended.
  bool post(std::function<void()> task);
  // Ends the thread after the handler it is in; nothing is posted from now on. Not from the I/O thread.
  void join();
  // After join(): destroys the context and the handlers that wait in it.
  void release();

 private:
  std::mutex mutex_;
  bool open_ = true;
  std::unique_ptr<boost::asio::io_context> context_;
  std::thread thread_;
};

}  // namespace switchyard::gateway
