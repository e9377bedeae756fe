// One operation of an engine as Python sees it: pending, then ended with a status, once. Waited for by
// threads (wait) and by asyncio loops (notify).
#pragma once

#include <nanobind/nanobind.h>

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "event_queue.h"
#include "exported.h"
#include "process_bound.h"
#include "switchyard/transfer.h"

namespace switchyard::python {

// The side that the engine knows; the Done it is given keeps it alive. Takes no GIL.
class Outcome {
 public:
  void end(const Status& status);
  bool ended() const;
  // With ended() only.
  const Status& status() const { return *status_; }
  // False when it has not ended by then.
  bool wait_until(TimePoint deadline);
  // Puts the token into the queue when it has ended, at once if it has.
  void notify(std::shared_ptr<EventQueue> queue, std::uint64_t token);

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<Status> status_;
  std::vector<std::pair<std::shared_ptr<EventQueue>, std::uint64_t>> watchers_;
};

// The Python classes. Operation itself is what can only be waited for.
struct Operation {
  std::shared_ptr<Outcome> outcome = std::make_shared<Outcome>();

  Done done() const {
    return [outcome = outcome](const Status& status) { outcome->end(status); };
  }
  std::function<void()> drained() const {
    return [outcome = outcome] { outcome->end({}); };
  }
};

struct TransferOperation : Operation {
  Transfer transfer;
};

// A counter that knows which expectation was armed last: withdrawing an earlier one, which has ended, does
// nothing to its successor. Any thread, without the GIL.
class ExpectedCounter {
 public:
  explicit ExpectedCounter(Counter counter) : counter_(std::move(counter)) {}
  const Counter& counter() const { return counter_; }
  // As Counter::expect and Counter::cancel.
  Status expect(const Operation& expectation, std::uint64_t transfers, TimePoint deadline);
  void cancel(const Operation& expectation);

 private:
  Counter counter_;
  std::unique_ptr<std::mutex> mutex_ = std::make_unique<std::mutex>();
  std::weak_ptr<Outcome> armed_;
};

struct Expectation : Operation {
  std::shared_ptr<ProcessBound<ExpectedCounter>> counter;
};

// Ends a watch, then lets go of the memory that the word is in.
class Watch {
 public:
  Watch(Watcher watcher, Exported memory) : watcher_(std::move(watcher)), memory_(std::move(memory)) {}
  ~Watch() { close(); }
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;
  // With the GIL.
  void close();

 private:
  ProcessBound<Watcher> watcher_;
  Exported memory_;
};

// What `seconds` from now is; none: no deadline. Raises Invalid.
TimePoint deadline_after(std::optional<double> seconds, const char* what);
Nanos duration_of(double seconds, const char* what);

void bind_operations(nanobind::module_& module);

}  // namespace switchyard::python
