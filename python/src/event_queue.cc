#include "event_queue.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "errors.h"

namespace switchyard::python {

EventQueue::EventQueue() : fd_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (fd_ < 0) raise(ErrorCode::exhausted, "eventfd: {}", strerror(errno));
}

EventQueue::~EventQueue() { ::close(fd_); }

void EventQueue::ring() {
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(fd_, &one, sizeof one);
}

void EventQueue::completed(std::uint64_t token) {
  bool first;
  {
    std::lock_guard lock(mutex_);
    first = events_.completed.empty() && events_.notices.empty();
    events_.completed.push_back(token);
  }
  if (first) ring();
}

bool EventQueue::put(Notice notice, std::size_t bytes, std::size_t backlog) {
  bool first;
  {
    std::lock_guard lock(mutex_);
    if (events_.notices.size() >= backlog || (bytes != 0 && bytes_ + bytes > kBacklogBytes)) return false;
    first = events_.completed.empty() && events_.notices.empty();
    events_.notices.push_back(std::move(notice));
    bytes_ += bytes;
  }
  if (first) ring();
  return true;
}

bool EventQueue::message(std::uint64_t token, const PeerAddress& from, std::span<const std::byte> bytes,
                         std::size_t backlog) {
  return put(Message{token, from, std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size())},
             bytes.size(), backlog);
}

bool EventQueue::lost(std::uint64_t token, const PeerAddress& peer, const Error& why, std::size_t backlog) {
  return put(Loss{token, peer, why}, 0, backlog);
}

void EventQueue::changed(std::uint64_t token, const std::shared_ptr<Word>& word, std::uint64_t before,
                         std::uint64_t now) {
  {
    std::lock_guard lock(word->mutex);
    word->now = now;
    if (word->queued) return;
    word->queued = true;
    word->before = before;
  }
  put(Change{token, word}, 0, ~std::size_t{0});
}

EventQueue::Events EventQueue::take() {
  std::uint64_t count = 0;
  [[maybe_unused]] const ssize_t got = ::read(fd_, &count, sizeof count);
  Events taken;
  std::lock_guard lock(mutex_);
  std::swap(taken, events_);
  bytes_ = 0;
  return taken;
}

bool EventQueue::wait() {
  while (!closed_.load()) {
    {
      std::lock_guard lock(mutex_);
      if (!events_.completed.empty() || !events_.notices.empty()) return true;
    }
    pollfd descriptor{fd_, POLLIN, 0};
    ::poll(&descriptor, 1, -1);
    // Rung for something that was taken since: quiet again, unless something has come.
    std::uint64_t count = 0;
    if (!closed_.load()) [[maybe_unused]]
      const ssize_t got = ::read(fd_, &count, sizeof count);
  }
  return false;
}

void EventQueue::close() {
  closed_.store(true);
  ring();
}

}  // namespace switchyard::python
