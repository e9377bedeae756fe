// The engine's methods as Python calls them.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/unique_ptr.h>

#include "engine.h"
#include "errors.h"
#include "metrics.h"
#include "pages.h"

namespace switchyard::python {

using namespace nb::literals;

namespace {

using CounterHandle = std::shared_ptr<ProcessBound<Counter>>;

// switchyard._core.Counter.
struct PyCounter {
  CounterHandle counter;
};

Counter& here(const PyCounter& self) {
  if (!self.counter->here())
    raise(ErrorCode::invalid, "the counter belongs to the process this one was forked from");
  return **self.counter;
}

Expectation expect(const PyCounter& self, std::uint64_t transfers, std::optional<double> timeout) {
  Expectation expectation;
  const TimePoint deadline = deadline_after(timeout, "expect");
  expectation.counter = self.counter;
  Counter& counter = here(self);
  Status armed;
  {
    nb::gil_scoped_release release;
    armed = counter.expect(transfers, deadline, expectation.done());
  }
  unwrap(std::move(armed));
  return expectation;
}

void construct(PyEngine* self, std::string name, std::string fabric, std::string control_host,
               std::uint16_t control_port, std::size_t message_bytes, std::uint32_t message_slots,
               std::size_t message_backlog, std::uint32_t max_transfers, std::uint32_t max_counters,
               std::uint32_t max_peers, double heartbeat_interval, double heartbeat_limit,
               double connect_limit) {
  PyEngine::Options options;
  options.message_backlog = message_backlog;
  options.engine.name = std::move(name);
  options.engine.fabric = std::move(fabric);
  options.engine.control_host = std::move(control_host);
  options.engine.control_port = control_port;
  options.engine.message_bytes = message_bytes;
  options.engine.message_slots = message_slots;
  options.engine.max_transfers = max_transfers;
  options.engine.max_counters = max_counters;
  options.engine.max_peers = max_peers;
  options.engine.heartbeat_interval = duration_of(heartbeat_interval, "heartbeat_interval");
  options.engine.heartbeat_limit = duration_of(heartbeat_limit, "heartbeat_limit");
  options.engine.connect_limit = duration_of(connect_limit, "connect_limit");
  new (self) PyEngine(options);
}

SubmitOptions submit_options(std::optional<CounterId> counter, std::optional<double> timeout) {
  return {.counter = counter, .deadline = deadline_after(timeout, "timeout")};
}

TransferOperation write(PyEngine& self, const PyRegion& source, const PeerAddress& peer,
                        const RegionKey& target, std::uint64_t source_offset, std::uint64_t target_offset,
                        std::optional<std::uint64_t> nbytes, std::optional<CounterId> counter,
                        std::optional<double> timeout) {
  const std::uint64_t rest =
      source_offset <= source.key().bytes ? source.key().bytes - source_offset : std::uint64_t{0};
  return self.write({.source_offset = source_offset,
                     .peer = peer,
                     .target = target,
                     .target_offset = target_offset,
                     .bytes = nbytes.value_or(rest),
                     .options = submit_options(counter, timeout)},
                    source);
}

TransferOperation write_pages(PyEngine& self, const PyRegion& source, nb::handle source_pages,
                              const PeerAddress& peer, const RegionKey& target, nb::handle target_pages,
                              std::uint64_t page_bytes, std::uint64_t source_offset,
                              std::optional<std::uint64_t> source_stride, std::uint64_t target_offset,
                              std::optional<std::uint64_t> target_stride, std::optional<CounterId> counter,
                              std::optional<double> timeout) {
  return self.write_pages({.source_offset = source_offset,
                           .source_stride = source_stride.value_or(page_bytes),
                           .source_pages = read_pages(source_pages, "source_pages"),
                           .peer = peer,
                           .target = target,
                           .target_offset = target_offset,
                           .target_stride = target_stride.value_or(page_bytes),
                           .target_pages = read_pages(target_pages, "target_pages"),
                           .page_bytes = page_bytes,
                           .options = submit_options(counter, timeout)},
                          source);
}

}  // namespace

void bind_engine(nb::module_& module) {
  nb::class_<PyCounter>(
      module, "Counter", nb::is_weak_referenceable(),
      "Counts transfers of peers that named it and have arrived in full. Freed with its last handle\n"
      "(an Expectation is one too).")
      .def_prop_ro(
          "id", [](const PyCounter& self) { return here(self).id(); }, "Its name, for peers.")
      .def_prop_ro(
          "arrived", [](const PyCounter& self) { return here(self).arrived(); },
          "Transfers that have arrived since it was made.")
      .def("expect", &expect, "transfers"_a, "timeout"_a = nb::none(),
           "Returns an Operation that ends when `transfers` transfers in all have arrived since the counter "
           "was made,\n"
           "those before this call included; all their bytes are visible then.\n\n"
           "timeout: seconds, after which it ends with TimedOut. One expectation at a time (Invalid); "
           "afterwards the\n"
           "next may be armed, with a larger total.")
      .def(
          "wait",
          [](nb::object self, std::uint64_t transfers, std::optional<double> timeout) {
            return nb::module_::import_("switchyard._waiting")
                .attr("arrival")(std::move(self), transfers, timeout);
          },
          "transfers"_a, "timeout"_a = nb::none(),
          nb::sig("def wait(self, transfers: int, timeout: float | None = None) -> "
                  "collections.abc.Coroutine[typing.Any, typing.Any, None]"),
          "In asyncio: `await counter.wait(n)` is `await counter.expect(n)`, and withdraws the expectation "
          "when the\n"
          "task is cancelled. Elsewhere: counter.expect(n).wait().");

  const EngineOptions standard;
  nb::class_<PyEngine>(module, "Engine", nb::is_weak_referenceable(), "The engine; use switchyard.Engine.")
      .def("__init__", &construct, nb::kw_only(), "name"_a = standard.name, "fabric"_a = standard.fabric,
           "control_host"_a = standard.control_host, "control_port"_a = standard.control_port,
           "message_bytes"_a = standard.message_bytes, "message_slots"_a = standard.message_slots,
           "message_backlog"_a = PyEngine::Options{}.message_backlog,
           "max_transfers"_a = standard.max_transfers, "max_counters"_a = standard.max_counters,
           "max_peers"_a = standard.max_peers,
           "heartbeat_interval"_a = to_seconds(standard.heartbeat_interval),
           "heartbeat_limit"_a = to_seconds(standard.heartbeat_limit),
           "connect_limit"_a = to_seconds(standard.connect_limit))
      .def_prop_ro(
          "name", [](const PyEngine& self) { return self.name(); }, "For log lines.")
      .def_prop_ro(
          "address", [](const PyEngine& self) { return self.address(); }, "Where peers reach it.")
      .def_prop_ro("closed", &PyEngine::closed, "True after close().")
      .def("register", &PyEngine::register_memory, "memory"_a,
           "Registers the memory of an object for reading by this engine and writing by peers; returns its "
           "Region.\n\n"
           "The object has the buffer protocol (NumPy array, bytearray, mmap, memoryview) or DLPack\n"
           "(`__dlpack__`, in host memory), is writable and contiguous; it stays alive with the region. "
           "Costs\n"
           "system calls: do it at start, not per request. Raises Denied (read-only), Invalid (gaps, empty, "
           "neither\n"
           "protocol), Unsupported (memory of a device), Exhausted.")
      .def(
          "make_counter", [](PyEngine& self) { return PyCounter{self.make_counter()}; },
          "A new counter at zero. Raises Exhausted.")
      .def(
          "write", &write, "source"_a, "peer"_a, "target"_a, nb::kw_only(), "source_offset"_a = 0,
          "target_offset"_a = 0, "nbytes"_a = nb::none(), "counter"_a = nb::none(), "timeout"_a = nb::none(),
          "Writes one run of bytes of a region of this engine into a region of a peer.\n\n"
          "source: Region. peer: PeerAddress. target: RegionKey. Offsets and nbytes are bytes; nbytes "
          "defaults to\n"
          "the rest of the source. counter: CounterId of the peer, counted once when all bytes have landed.\n"
          "timeout: seconds until it ends with TimedOut.\n\n"
          "Ends when the bytes are visible at the peer. The source must not change until then. Raises, "
          "without\n"
          "having sent anything: Invalid, OutOfRange, Denied (a key or address of an engine that is gone),\n"
          "Exhausted (wait for transfers to end), PeerLost, Unsupported.")
      .def(
          "write_pages", &write_pages, "source"_a, "source_pages"_a, "peer"_a, "target"_a, "target_pages"_a,
          nb::kw_only(), "page_bytes"_a, "source_offset"_a = 0, "source_stride"_a = nb::none(),
          "target_offset"_a = 0, "target_stride"_a = nb::none(), "counter"_a = nb::none(),
          "timeout"_a = nb::none(),
          "Writes pages: page i is read at source_offset + source_pages[i] * source_stride and lands at\n"
          "target_offset + target_pages[i] * target_stride, as one transfer.\n\n"
          "The lists are arrays of whole numbers (buffer protocol or DLPack; uint32 is copied in one go) or\n"
          "sequences of ints, of equal length; pages of the target may not repeat. Strides default to\n"
          "page_bytes. The rest is as with write().")
      .def("send", &PyEngine::send, "peer"_a, "message"_a, nb::kw_only(), "timeout"_a = nb::none(),
           nb::sig("def send(self, peer: PeerAddress, message: typing_extensions.Buffer, *, "
                   "timeout: float | None = None) -> Transfer"),
           "Sends a small message (anything with the buffer protocol; copied) to the handler of on_message() "
           "there.\n\n"
           "Ends when the peer's engine has it. Messages are not ordered. Raises as write() does; OutOfRange "
           "when\n"
           "it is longer than message_bytes.")
      .def("connect", &PyEngine::connect, "peer"_a,
           "Starts a connection, and watches the peer's life from now on. Ends when it stands. Submitting "
           "anything\n"
           "connects as well. The way to a peer that was lost and lives all the same (its host stood still).")
      .def(
          "metrics", [](PyEngine& self) { return to_dict(self.metrics()); },
          nb::sig("def metrics(self) -> dict[str, typing.Any]"),
          "What the engine has done and has under way, as a dict of numbers; `rails` is a list of one for "
          "each rail.")
      .def("_close", &PyEngine::close)
      .def("_deliver_messages", &PyEngine::deliver_messages, "queue"_a.none(), "token"_a)
      .def("_deliver_losses", &PyEngine::deliver_losses, "queue"_a.none(), "token"_a);
}

}  // namespace switchyard::python
