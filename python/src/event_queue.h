// What has happened on engines' worker threads and waits for Python: the worker puts it here without the
// interpreter's lock, and rings a descriptor when the queue was empty, so that any number of events costs one
// wake-up. The reader is an asyncio loop (which watches the descriptor) or a thread that waits.
//
// Owner: shared by its reader and everything that will put something. Threads: all, but for one reader.
// Bounds: an operation is here at most once for each time it is waited for, a watched word once;
// messages stop at the backlog.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <variant>
#include <vector>

#include "switchyard/transfer.h"

namespace switchyard::python {

class EventQueue {
 public:
  struct Message {
    std::uint64_t token;
    PeerAddress from;
    std::string bytes;
  };
  struct Loss {
    std::uint64_t token;
    PeerAddress peer;
    Error why;
  };
  // Of a watched word. Changes that nobody has taken yet become one.
  struct Word {
    std::mutex mutex;
    bool queued = false;
    std::uint64_t before = 0;
    std::uint64_t now = 0;
  };
  struct Change {
    std::uint64_t token;
    std::shared_ptr<Word> word;
  };
  using Notice = std::variant<Message, Loss, Change>;
  struct Events {
    std::vector<std::uint64_t> completed;
    std::vector<Notice> notices;
  };

  static constexpr std::size_t kBacklogBytes = 64 << 20;

  EventQueue();
  ~EventQueue();
  EventQueue(const EventQueue&) = delete;
  EventQueue& operator=(const EventQueue&) = delete;

  void completed(std::uint64_t token);
  // False when `backlog` messages, or kBacklogBytes, wait already: this one is dropped.
  bool message(std::uint64_t token, const PeerAddress& from, std::span<const std::byte> bytes,
               std::size_t backlog);
  bool lost(std::uint64_t token, const PeerAddress& peer, const Error& why, std::size_t backlog);

  void changed(std::uint64_t token, const std::shared_ptr<Word>& word, std::uint64_t before,
               std::uint64_t now);

  int fd() const { return fd_; }
  Events take();
  // Waits until there is something to take, or close(). False when it was closed.
  bool wait();
  void close();

 private:
  bool put(Notice notice, std::size_t bytes, std::size_t backlog);
  void ring();

  int fd_ = -1;
  std::mutex mutex_;
  Events events_;
  std::size_t bytes_ = 0;  // of messages
  std::atomic<bool> closed_{false};
};

}  // namespace switchyard::python
