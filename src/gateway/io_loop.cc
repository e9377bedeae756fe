#include "gateway/io_loop.h"

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <exception>

#include "base/log.h"

namespace switchyard::gateway {

IoLoop::IoLoop() : context_(std::make_unique<boost::asio::io_context>(1)) {}

IoLoop::~IoLoop() {
  join();
  release();
}

void IoLoop::start() {
  thread_ = std::thread([this] {
    auto guard = boost::asio::make_work_guard(*context_);
    for (;;) {
      try {
        context_->run();
        return;
      } catch (const std::exception& exception) {
        // A handler let an exception out: a defect, which must not take the other connections with it.
        log::error("gateway: a handler failed: {}", exception.what());
      }
    }
  });
}

bool IoLoop::post(std::function<void()> task) {
  std::lock_guard lock(mutex_);
  if (!open_) return false;
  boost::asio::post(*context_, std::move(task));
  return true;
}

void IoLoop::join() {
  {
    std::lock_guard lock(mutex_);
    if (!open_) return;
    open_ = false;
  }
  context_->stop();
  if (thread_.joinable()) thread_.join();
}

void IoLoop::release() { context_.reset(); }

}  // namespace switchyard::gateway
