// Engines on a simulated network: starts them, steps them in virtual time, and takes them away again, in the
// ways that processes and hosts go.
//
// An engine is stepped as its worker thread would do it (transfer/worker.cc): as long as there is something
// to do, then when something comes, when a deadline is due, and now and then. The time of its steps is
// virtual as well.
//
// Threads: the test's. Owns the network and the engines; the memory that is registered with an engine has to
// outlive the cluster.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "sim/network.h"
#include "sim/sim_control.h"
#include "sim/sim_fabric.h"
#include "transfer/engine_core.h"

namespace switchyard::sim {

using NodeId = std::uint32_t;

class Cluster {
 public:
  explicit Cluster(std::uint64_t seed) : network_(seed) {}

  Nanos step_time = Nanos(200);   // of a step that found something to do
  Nanos wake_low{}, wake_high{};  // until a sleeping worker runs
  std::function<void(NodeId)> after_step;

  Network& network() { return network_; }
  TimePoint now() const { return network_.now(); }

  HostId add_host(const std::vector<PortOptions>& ports) { return network_.add_host(ports); }
  // Starts an engine with all ports of the host. Options about addresses and rails are set here. `id`: of an
  // engine that was there before and comes back with a new epoch.
  NodeId start(HostId host, EngineOptions options, std::optional<transfer::EngineId> id = std::nullopt);

  // Whoever calls an engine's functions goes through here: it is stepped soon after.
  EngineCore& engine(NodeId node);
  bool alive(NodeId node) const { return nodes_[node].core != nullptr && !nodes_[node].closing; }
  bool present(NodeId node) const { return nodes_[node].core != nullptr; }
  HostId host_of(NodeId node) const { return nodes_[node].host; }
  ProcessId process_of(NodeId node) const { return nodes_[node].process; }
  std::optional<NodeId> node_of(ProcessId process) const;
  std::size_t nodes() const { return nodes_.size(); }

  void kill(NodeId node);
  void kill_host(HostId host);
  // Is not stepped for so long.
  void pause(NodeId node, Nanos duration);
  TimePoint paused_until(NodeId node) const { return nodes_[node].paused_until; }
  // Closes the engine in order; it is gone some steps later.
  void close(NodeId node);

  // Goes on until `until`, or until `done` holds (true), or until a rule is broken.
  bool run(TimePoint until, const std::function<bool()>& done = {});
  bool run_for(Nanos time, const std::function<bool()>& done = {}) { return run(now() + time, done); }

 private:
  struct Node {
    HostId host = 0;
    ProcessId process = 0;
    std::shared_ptr<EngineCore> core;  // null: gone
    SimControl* control = nullptr;
    TimePoint wake_at{}, paused_until{};
    bool closing = false;
  };
  void step(NodeId id);

  Network network_;
  std::vector<Node> nodes_;
  std::uint16_t next_port_ = 1000;
  std::size_t first_ = 0;  // whose turn it is to be stepped first
};

}  // namespace switchyard::sim
