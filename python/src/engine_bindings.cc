// The engine's methods as Python calls them.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/unique_ptr.h>

#include "engine.h"
#include "engine_docs.h"
#include "errors.h"
#include "metrics.h"
#include "submission.h"
#include "unlocked.h"

namespace switchyard::python {

using namespace nb::literals;

namespace {

using CounterHandle = std::shared_ptr<ProcessBound<ExpectedCounter>>;

// switchyard._core.Counter.
struct PyCounter {
  CounterHandle counter;
};

ExpectedCounter& here(const PyCounter& self) {
  if (!self.counter->here())
    raise(ErrorCode::invalid, "the counter belongs to the process this one was forked from");
  return **self.counter;
}

Expectation expect(const PyCounter& self, std::uint64_t transfers, std::optional<double> timeout) {
  Expectation expectation;
  const TimePoint deadline = deadline_after(timeout, "expect");
  expectation.counter = self.counter;
  ExpectedCounter& counter = here(self);
  Status armed;
  {
    Unlocked unlocked;
    armed = counter.expect(expectation, transfers, deadline);
  }
  unwrap(std::move(armed));
  return expectation;
}

void construct(PyEngine* self, std::string name, std::string fabric, std::string control_host,
               std::uint16_t control_port, std::size_t message_bytes, std::uint32_t message_slots,
               std::size_t message_backlog, std::uint32_t max_transfers, std::uint32_t max_counters,
               std::uint32_t max_peers, double heartbeat_interval, double heartbeat_limit,
               double connect_limit, double stall_limit, double path_rest, nb::bytes shared_key, bool tls,
               std::string certificate_file, std::string key_file, std::string ca_file) {
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
  options.engine.stall_limit = duration_of(stall_limit, "stall_limit");
  options.engine.path_rest = duration_of(path_rest, "path_rest");
  options.engine.shared_key.assign(shared_key.c_str(), shared_key.size());
  options.engine.tls = {.enabled = tls,
                        .certificate_file = std::move(certificate_file),
                        .key_file = std::move(key_file),
                        .ca_file = std::move(ca_file)};
  new (self) PyEngine(options);
}

}  // namespace

void bind_engine(nb::module_& module) {
  nb::class_<PyCounter>(module, "Counter", nb::is_weak_referenceable(), docs::kCounter)
      .def_prop_ro(
          "id", [](const PyCounter& self) { return here(self).counter().id(); }, "Its name, for peers.")
      .def_prop_ro(
          "arrived", [](const PyCounter& self) { return here(self).counter().arrived(); },
          "Transfers that have arrived since it was made.")
      .def("expect", &expect, "transfers"_a, "timeout"_a = nb::none(), docs::kExpect)
      .def(
          "wait",
          [](nb::object self, std::uint64_t transfers, std::optional<double> timeout) {
            return nb::module_::import_("switchyard._waiting")
                .attr("arrival")(std::move(self), transfers, timeout);
          },
          "transfers"_a, "timeout"_a = nb::none(),
          nb::sig("def wait(self, transfers: int, timeout: float | None = None) -> "
                  "collections.abc.Coroutine[typing.Any, typing.Any, None]"),
          docs::kCounterWait);

  const EngineOptions standard;
  nb::class_<PyEngine> engine(module, "Engine", nb::is_weak_referenceable(),
                              "The engine; use switchyard.Engine.");
  engine
      .def("__init__", &construct, nb::kw_only(), "name"_a = standard.name, "fabric"_a = standard.fabric,
           "control_host"_a = standard.control_host, "control_port"_a = standard.control_port,
           "message_bytes"_a = standard.message_bytes, "message_slots"_a = standard.message_slots,
           "message_backlog"_a = PyEngine::Options{}.message_backlog,
           "max_transfers"_a = standard.max_transfers, "max_counters"_a = standard.max_counters,
           "max_peers"_a = standard.max_peers,
           "heartbeat_interval"_a = to_seconds(standard.heartbeat_interval),
           "heartbeat_limit"_a = to_seconds(standard.heartbeat_limit),
           "connect_limit"_a = to_seconds(standard.connect_limit),
           "stall_limit"_a = to_seconds(standard.stall_limit), "path_rest"_a = to_seconds(standard.path_rest),
           "shared_key"_a = nb::bytes(""), "tls"_a = false, "certificate_file"_a = "", "key_file"_a = "",
           "ca_file"_a = "")
      .def_prop_ro(
          "name", [](const PyEngine& self) { return self.name(); }, "For log lines.")
      .def_prop_ro(
          "address", [](const PyEngine& self) { return self.address(); }, "Where peers reach it.")
      .def_prop_ro("closed", &PyEngine::closed, "True after close().")
      .def("register", &PyEngine::register_memory, "memory"_a, docs::kRegister)
      .def("register_dmabuf", &PyEngine::register_dmabuf, "address"_a, "nbytes"_a, "dmabuf"_a, nb::kw_only(),
           "offset"_a = 0, "owner"_a.none() = nb::none(), docs::kRegisterDmabuf)
      .def(
          "make_counter", [](PyEngine& self) { return PyCounter{self.make_counter()}; },
          "A new counter at zero. Raises Exhausted.")
      .def("send", &PyEngine::send, "peer"_a, "message"_a, nb::kw_only(), "timeout"_a = nb::none(),
           nb::sig("def send(self, peer: PeerAddress, message: typing_extensions.Buffer, *, "
                   "timeout: float | None = None) -> Transfer"),
           docs::kSend)
      .def("connect", &PyEngine::connect, "peer"_a, docs::kConnect)
      .def(
          "metrics", [](PyEngine& self) { return to_dict(self.metrics()); },
          nb::sig("def metrics(self) -> dict[str, typing.Any]"), docs::kMetrics)
      .def("_watch", &PyEngine::watch, "memory"_a, "offset"_a, "queue"_a, "token"_a)
      .def("_close", &PyEngine::close)
      .def("_deliver_messages", &PyEngine::deliver_messages, "queue"_a.none(), "token"_a)
      .def("_deliver_losses", &PyEngine::deliver_losses, "queue"_a.none(), "token"_a);
  bind_submitting(engine);

  module.def(
      "make_shared_key",
      [] {
        const std::string key = unwrap(make_shared_key());
        return nb::bytes(key.data(), key.size());
      },
      "32 random bytes, for Engine(shared_key=...).");
}

}  // namespace switchyard::python
