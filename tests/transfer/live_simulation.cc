#include "transfer/live_simulation.h"

namespace switchyard::testing {
namespace {

constexpr std::chrono::microseconds kPause{20};  // between two looks at the clock

std::vector<sim::PortOptions> ports_of(const std::string& fabric) {
  sim::PortOptions port;
  port.ordered = fabric == "sim_in_order";
  port.jitter = std::chrono::microseconds(5);
  if (fabric != "sim_rails") return {port};
  sim::PortOptions slow = port;
  slow.bytes_per_second /= 4;
  return {port, slow, port};
}

}  // namespace

bool LiveSimulation::knows(const std::string& fabric) {
  return fabric == "sim" || fabric == "sim_in_order" || fabric == "sim_rails";
}

LiveSimulation& LiveSimulation::instance() {
  static LiveSimulation simulation;
  return simulation;
}

LiveSimulation::LiveSimulation()
    : cluster_(1, monotonic_now()), driver_([this](const std::stop_token& stop) { drive(stop); }) {}

LiveSimulation::~LiveSimulation() = default;

void LiveSimulation::drive(const std::stop_token& stop) {
  while (!stop.stop_requested()) {
    {
      const std::lock_guard lock(cluster_.network().mutex);
      // Other threads have submitted what the simulation knows nothing of.
      for (sim::NodeId node = 0; node < cluster_.nodes(); ++node) {
        if (cluster_.present(node)) cluster_.engine(node);
      }
      cluster_.run(monotonic_now());
      if (cluster_.network().violation()) {
        std::fprintf(stderr, "the simulated network: %s\n", cluster_.network().violation()->c_str());
        std::abort();
      }
    }
    std::this_thread::sleep_for(kPause);
  }
}

LiveSimulation::Started LiveSimulation::start(const std::string& fabric, const EngineOptions& options) {
  const std::lock_guard lock(cluster_.network().mutex);
  const sim::NodeId node = cluster_.start(cluster_.add_host(ports_of(fabric)), options);
  // The engine keeps the cluster's place: what it is made of belongs to the simulation.
  Started started;
  started.engine = std::make_unique<TransferEngine>(cluster_.engine(node).shared_from_this());
  started.end = std::shared_ptr<void>(nullptr, [this, node](void*) {
    for (bool gone = false; !gone; std::this_thread::sleep_for(kPause)) {
      const std::lock_guard hold(cluster_.network().mutex);
      gone = !cluster_.present(node);
    }
  });
  return started;
}

}  // namespace switchyard::testing
