// Other forms of Done than a callback: a flag that may be polled and waited for, and something to co_await.
#pragma once

#include <atomic>
#include <condition_variable>
#include <coroutine>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>

#include "switchyard/transfer.h"

namespace switchyard {

// Takes one Done. Cheap to copy; all copies are the same flag. Any thread; not to be waited for on the worker
// thread, which would have to set it.
class Completion {
 public:
  Done done() {
    return [state = state_](const Status& status) {
      {
        std::lock_guard lock(state->mutex);
        state->status = status;
      }
      state->ready.store(true, std::memory_order_release);
      state->changed.notify_all();
    };
  }
  // For cancel(): completes with success once the transfer has drained.
  std::function<void()> drained() {
    return [done = done()] { done(Status{}); };
  }
  bool ready() const { return state_->ready.load(std::memory_order_acquire); }
  // The outcome. timed_out when it does not come by then; it may still come later.
  Status wait(TimePoint deadline) const {
    std::unique_lock lock(state_->mutex);
    if (!state_->changed.wait_until(lock, deadline, [&] { return state_->status.has_value(); }))
      return tl::unexpected(Error{ErrorCode::timed_out, "it did not complete in time"});
    return *state_->status;
  }

 private:
  struct State {
    std::mutex mutex;
    std::condition_variable changed;
    std::atomic<bool> ready{false};
    std::optional<Status> status;
  };
  std::shared_ptr<State> state_ = std::make_shared<State>();
};

// co_await awaitable([&](Done done) { return engine.write(write, std::move(done)); })
//
// Starts the operation and gives its outcome as a Status, the error of a refused submission included. The
// coroutine goes on on the worker thread, where it must not block, or at once when nothing was started. An
// operation always ends, and so does the wait: give it a deadline to bound how long.
template <class Start>
class Awaitable {
 public:
  explicit Awaitable(Start start) : start_(std::move(start)) {}
  bool await_ready() const noexcept { return false; }
  bool await_suspend(std::coroutine_handle<> waiter) {
    auto state = state_;  // `this` may be gone as soon as the coroutine goes on
    auto started = start_([state, waiter](const Status& status) {
      state->status = status;
      // The second of the two goes on: Done may come before the coroutine stands still.
      if (state->meeting.exchange(true, std::memory_order_acq_rel)) waiter.resume();
    });
    if (!started) {
      state->status = tl::unexpected(started.error());
      return false;
    }
    return !state->meeting.exchange(true, std::memory_order_acq_rel);
  }
  Status await_resume() { return std::move(state_->status); }

 private:
  struct State {
    std::atomic<bool> meeting{false};
    Status status;
  };
  Start start_;
  std::shared_ptr<State> state_ = std::make_shared<State>();
};

template <class Start>
Awaitable<Start> awaitable(Start start) {
  return Awaitable<Start>(std::move(start));
}

}  // namespace switchyard
