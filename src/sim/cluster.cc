#include "sim/cluster.h"

#include <fmt/format.h>

#include <algorithm>

namespace switchyard::sim {
namespace {

// As transfer/worker.cc naps.
constexpr Nanos kRefusedNap = std::chrono::microseconds(50);
constexpr Nanos kWatchNap = std::chrono::microseconds(100);
constexpr Nanos kBusySleep = std::chrono::milliseconds(1);
constexpr Nanos kIdleSleep = std::chrono::milliseconds(20);
constexpr Nanos kControlInterval = std::chrono::microseconds(20);

}  // namespace

NodeId Cluster::start(HostId host, EngineOptions options, std::optional<transfer::EngineId> id) {
  const ProcessId process = network_.add_process(host);
  Random& random = network_.random();
  EngineParts parts;
  for (std::uint32_t i = 0; i < network_.host(host).ports.size(); ++i) {
    parts.rails.push_back({.fabric = network_.port(host, i).options.fabric,
                           .device = fmt::format("port{}", i),
                           .rail = SimFabric::open(network_, process, i)});
  }
  options.control_host = network_.host(host).name;
  auto control =
      std::make_unique<SimControl>(network_, process,
                                   SimControl::Options{.port = next_port_++,
                                                       .max_links = options.max_peers,
                                                       .message_bytes = options.message_bytes,
                                                       .heartbeat_interval = options.heartbeat_interval,
                                                       .heartbeat_limit = options.heartbeat_limit,
                                                       .connect_limit = options.connect_limit});
  Node node{.host = host, .process = process, .control = control.get(), .wake_at = now()};
  parts.control = std::move(control);
  const std::uint64_t high = random.next();
  parts.id = id.value_or(transfer::EngineId{high, random.next()});
  parts.epoch = random.next();
  auto core = EngineCore::assemble(options, std::move(parts));
  if (core) {
    node.core = std::move(*core);
  } else {
    network_.violate(fmt::format("an engine cannot be started: {}", core.error().message));
  }
  nodes_.push_back(std::move(node));
  return static_cast<NodeId>(nodes_.size() - 1);
}

EngineCore& Cluster::engine(NodeId id) {
  Node& node = nodes_[id];
  node.wake_at = std::min(node.wake_at, now());
  return *node.core;
}

std::optional<NodeId> Cluster::node_of(ProcessId process) const {
  for (NodeId id = 0; id < nodes_.size(); ++id) {
    if (nodes_[id].process == process) return id;
  }
  return std::nullopt;
}

void Cluster::kill(NodeId id) {
  Node& node = nodes_[id];
  if (!node.core) return;
  network_.kill_process(node.process);
  node.core.reset();
  node.control = nullptr;
}

void Cluster::kill_host(HostId host) {
  network_.kill_host(host);
  for (NodeId id = 0; id < nodes_.size(); ++id) {
    if (nodes_[id].host == host) kill(id);
  }
}

void Cluster::pause(NodeId id, Nanos duration) {
  Node& node = nodes_[id];
  network_.note(Event::process_paused, node.process, static_cast<std::uint64_t>(duration.count()));
  node.paused_until = std::max(node.paused_until, now() + duration);
}

void Cluster::close(NodeId id) {
  Node& node = nodes_[id];
  if (!node.core || node.closing) return;
  network_.note(Event::process_stopped, node.process);
  node.closing = true;
  engine(id).stop_worker();
}

void Cluster::step(NodeId id) {
  Network::Process& process = network_.process(nodes_[id].process);
  process.woken = false;
  process.cpu = Nanos::zero();
  // Callbacks may start nodes.
  const std::shared_ptr<EngineCore> core = nodes_[id].core;
  nodes_[id].wake_at = TimePoint::max();
  const bool busy = core->step(now());
  network_.note(Event::stepped, nodes_[id].process, busy);
  if (after_step) after_step(id);
  Node& node = nodes_[id];
  if (core->finished()) {
    network_.process(node.process).alive = false;
    node.core.reset();
    node.control = nullptr;
    return;
  }
  const Nanos spent = network_.process(node.process).cpu;
  TimePoint next = now() + step_time + spent;
  if (!busy) {
    Nanos nap = core->has_outstanding() ? kBusySleep : kIdleSleep;
    if (core->has_watches()) nap = std::min(nap, kWatchNap);
    if (core->has_refused_posts()) nap = std::min(nap, kRefusedNap);
    if (node.control->readable()) nap = std::min(nap, kControlInterval);
    next = std::clamp(core->next_deadline(), next, std::max(next, now() + nap));
  }
  // What came meanwhile, or was asked of it in its callbacks, wakes it at once.
  if (network_.process(node.process).woken || node.wake_at <= now()) next = now() + step_time + spent;
  network_.process(node.process).woken = false;
  node.wake_at = next;
}

bool Cluster::run(TimePoint until, const std::function<bool()>& done) {
  while (!network_.violation()) {
    if (done && done()) return true;
    TimePoint next = network_.next_event();
    for (const Node& node : nodes_) {
      if (node.core) next = std::min(next, std::max(node.wake_at, node.paused_until));
    }
    if (next > until) {
      network_.advance(until);
      return false;
    }
    network_.advance(next);
    for (Node& node : nodes_) {
      Network::Process& process = network_.process(node.process);
      if (!node.core || !std::exchange(process.woken, false)) continue;
      node.wake_at = std::min(node.wake_at, now() + network_.random().duration(wake_low, wake_high));
    }
    ++first_;
    for (std::size_t i = 0, count = nodes_.size(); i < count; ++i) {
      const auto id = static_cast<NodeId>((first_ + i) % count);
      const Node& node = nodes_[id];
      if (node.core && node.wake_at <= now() && node.paused_until <= now()) step(id);
    }
  }
  return false;
}

}  // namespace switchyard::sim
