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

struct Expectation : Operation {
  std::shared_ptr<ProcessBound<Counter>> counter;
};

// What `seconds` from now is; none: no deadline. Raises Invalid.
TimePoint deadline_after(std::optional<double> seconds, const char* what);
Nanos duration_of(double seconds, const char* what);

void bind_operations(nanobind::module_& module);

}  // namespace switchyard::python
