#include "operation.h"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>

#include <algorithm>
#include <chrono>
#include <cmath>

#include "errors.h"
#include "unlocked.h"

namespace switchyard::python {

using namespace nb::literals;

namespace {

constexpr Nanos kSignalInterval = std::chrono::milliseconds(50);  // between looks for Ctrl-C
constexpr double kLongest = 1e9;                                  // seconds; beyond is for ever

void wait(const Operation& self, std::optional<double> timeout) {
  const TimePoint deadline = deadline_after(timeout, "wait");
  for (;;) {
    bool ended;
    {
      Unlocked unlocked;
      const TimePoint slice = monotonic_now() + kSignalInterval;
      ended = self.outcome->wait_until(std::min(deadline, slice));
    }
    if (ended) break;
    if (PyErr_CheckSignals() != 0) throw nb::python_error();
    if (monotonic_now() >= deadline) {
      PyErr_SetString(PyExc_TimeoutError, "the operation is still under way");
      throw nb::python_error();
    }
  }
  if (!self.outcome->status()) throw Raised(self.outcome->status().error());
}

nb::object error(const Operation& self) {
  if (!self.outcome->ended() || self.outcome->status()) return nb::none();
  return to_exception(self.outcome->status().error());
}

Operation cancel_transfer(TransferOperation& self) {
  Operation drained;
  Unlocked unlocked;
  self.transfer.cancel(drained.drained());
  return drained;
}

void cancel_expectation(Expectation& self) {
  Unlocked unlocked;
  if (self.counter->here()) (**self.counter).cancel(self);
}

}  // namespace

void Outcome::end(const Status& status) {
  std::vector<std::pair<std::shared_ptr<EventQueue>, std::uint64_t>> watchers;
  {
    std::lock_guard lock(mutex_);
    if (status_) return;
    status_ = status;
    watchers.swap(watchers_);
    changed_.notify_all();
  }
  for (auto& [queue, token] : watchers) queue->completed(token);
}

Status ExpectedCounter::expect(const Operation& expectation, std::uint64_t transfers, TimePoint deadline) {
  const std::lock_guard lock(*mutex_);
  auto armed = counter_.expect(transfers, deadline, expectation.done());
  if (armed) armed_ = expectation.outcome;
  return armed;
}

void ExpectedCounter::cancel(const Operation& expectation) {
  const std::lock_guard lock(*mutex_);
  if (armed_.lock() == expectation.outcome) counter_.cancel();
}

bool Outcome::ended() const {
  std::lock_guard lock(mutex_);
  return status_.has_value();
}

bool Outcome::wait_until(TimePoint deadline) {
  std::unique_lock lock(mutex_);
  return changed_.wait_until(lock, deadline, [&] { return status_.has_value(); });
}

void Outcome::notify(std::shared_ptr<EventQueue> queue, std::uint64_t token) {
  {
    std::lock_guard lock(mutex_);
    if (!status_) {
      watchers_.emplace_back(std::move(queue), token);
      return;
    }
  }
  queue->completed(token);
}

void Watch::close() {
  if (!watcher_.here()) return;
  {
    Unlocked unlocked;
    *watcher_ = {};
  }
  memory_ = {};
}

Nanos duration_of(double seconds, const char* what) {
  if (!(seconds >= 0) || seconds > kLongest) {
    raise(ErrorCode::invalid, "{}: {} is no duration in seconds", what, seconds);
  }
  return std::chrono::duration_cast<Nanos>(std::chrono::duration<double>(seconds));
}

TimePoint deadline_after(std::optional<double> seconds, const char* what) {
  if (!seconds || *seconds > kLongest) return TimePoint::max();
  return monotonic_now() + duration_of(*seconds, what);
}

void bind_operations(nb::module_& module) {
  nb::class_<Operation>(module, "Operation", nb::is_weak_referenceable(),
                        "Something that an engine does. Ends once, in success or with an Error.\n\n"
                        "`await` it in asyncio, or call wait(). Dropping it neither cancels nor delays it.")
      .def(
          "done", [](const Operation& self) { return self.outcome->ended(); }, "True when it has ended.")
      .def("error", &error, nb::sig("def error(self) -> Exception | None"),
           "What it ended with: None on success, and while it is under way.")
      .def("wait", &wait, "timeout"_a = nb::none(),
           "Blocks this thread, without the interpreter's lock, until the operation has ended.\n\n"
           "timeout: seconds. Raises TimeoutError (the built-in one) when they are over, after which the "
           "operation\n"
           "goes on; raises the operation's own Error if that is how it ended. Ctrl-C interrupts.")
      .def(
          "__await__",
          [](nb::object self) {
            return nb::module_::import_("switchyard._waiting").attr("ending")(std::move(self));
          },
          nb::sig("def __await__(self) -> collections.abc.Generator[typing.Any, None, None]"),
          "In asyncio: suspends the task until the operation has ended; raises its Error.")
      .def(
          "_notify",
          [](const Operation& self, std::shared_ptr<EventQueue> queue, std::uint64_t token) {
            self.outcome->notify(std::move(queue), token);
          },
          "queue"_a, "token"_a, "Puts the token into the queue when the operation has ended.");

  nb::class_<TransferOperation, Operation>(module, "Transfer", "A submitted transfer.")
      .def("cancel", &cancel_transfer,
           "Stops the transfer. It ends with Cancelled, or with whatever had already happened.\n\n"
           "Returns an Operation that ends when no byte of this transfer lands any more (it has drained): "
           "from\n"
           "then on its target may be used for something else.");

  nb::class_<Watch>(module, "Watch", "The engine's side of a switchyard.Watcher.")
      .def("close", &Watch::close);

  nb::class_<Expectation, Operation>(module, "Expectation", "A number of arrivals that a counter waits for.")
      .def("cancel", &cancel_expectation,
           "Withdraws the expectation: it ends with Cancelled unless it has ended.");
}

}  // namespace switchyard::python
