#include "event_bindings.h"

#include <nanobind/stl/shared_ptr.h>

#include <mutex>
#include <variant>

#include "errors.h"
#include "event_queue.h"
#include "unlocked.h"

namespace switchyard::python {

namespace {

// (completed tokens, notices); a notice is (token, "message", sender, bytes), (token, "lost", peer, error) or
// (token, "changed", before, now).
nb::tuple take(EventQueue& queue) {
  EventQueue::Events events = queue.take();
  nb::list completed;
  for (const std::uint64_t token : events.completed) completed.append(token);
  nb::list notices;
  for (auto& notice : events.notices) {
    if (auto* message = std::get_if<EventQueue::Message>(&notice)) {
      notices.append(nb::make_tuple(message->token, "message", std::move(message->from),
                                    nb::bytes(message->bytes.data(), message->bytes.size())));
    } else if (auto* loss = std::get_if<EventQueue::Loss>(&notice)) {
      notices.append(nb::make_tuple(loss->token, "lost", std::move(loss->peer), to_exception(loss->why)));
    } else {
      auto& change = std::get<EventQueue::Change>(notice);
      std::uint64_t before, now;
      {
        std::lock_guard lock(change.word->mutex);
        change.word->queued = false;
        before = change.word->before;
        now = change.word->now;
      }
      notices.append(nb::make_tuple(change.token, "changed", before, now));
    }
  }
  return nb::make_tuple(completed, notices);
}

}  // namespace

void bind_events(nb::module_& module) {
  nb::class_<EventQueue>(module, "EventQueue",
                         "Internal: what engines' workers have to tell a loop or a thread.")
      .def(nb::init<>())
      .def("fileno", &EventQueue::fd, "Readable when there is something to take.")
      .def("take", &take,
           nb::sig("def take(self) -> tuple[list[int], list[tuple[int, str, typing.Any, typing.Any]]]"),
           "All that is there.")
      .def(
          "wait",
          [](std::shared_ptr<EventQueue> self) {
            Unlocked unlocked;
            return self->wait();
          },
          "Blocks until there is something to take; False once closed.")
      .def("close", &EventQueue::close);
}

}  // namespace switchyard::python
