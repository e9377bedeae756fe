#include "sim/network.h"

#include <fmt/format.h>

#include <algorithm>

#include "sim/sim_control.h"
#include "sim/sim_fabric.h"

namespace switchyard::sim {

Network::Network(std::uint64_t seed) : random_(seed) {}
Network::~Network() = default;

void Network::at(TimePoint when, std::function<void()> action) {
  std::uint32_t index = 0;
  if (free_actions_.empty()) {
    index = static_cast<std::uint32_t>(actions_.size());
    actions_.push_back(std::move(action));
  } else {
    index = free_actions_.back();
    free_actions_.pop_back();
    actions_[index] = std::move(action);
  }
  queue_.push_back({std::max(when, now_), scheduled_++, index});
  std::push_heap(queue_.begin(), queue_.end(), later);
}

TimePoint Network::next_event() const { return queue_.empty() ? TimePoint::max() : queue_.front().when; }

void Network::advance(TimePoint when) {
  while (!queue_.empty() && queue_.front().when <= when) {
    std::pop_heap(queue_.begin(), queue_.end(), later);
    const Item item = queue_.back();
    queue_.pop_back();
    now_ = item.when;
    const std::function<void()> action = std::move(actions_[item.action]);
    free_actions_.push_back(item.action);
    action();
  }
  now_ = std::max(now_, when);
}

void Network::violate(std::string what) {
  if (!violation_) violation_ = std::move(what);
}

HostId Network::add_host(const std::vector<PortOptions>& ports) {
  const auto id = static_cast<HostId>(hosts_.size());
  Host& host = hosts_.emplace_back();
  host.name = fmt::format("10.0.{}.{}", id / 250, id % 250 + 1);
  for (const PortOptions& port : ports) host.ports.push_back({.options = port});
  return id;
}

ProcessId Network::add_process(HostId host) {
  const auto id = static_cast<ProcessId>(processes_.size());
  processes_.push_back({.host = host});
  note(Event::process_started, id, host);
  return id;
}

HostId Network::host_named(const std::string& name) const {
  for (HostId id = 0; id < hosts_.size(); ++id) {
    if (hosts_[id].name == name) return id;
  }
  return kNone;
}

bool Network::joined(HostId a, HostId b) const {
  if (hosts_[a].dead || hosts_[b].dead) return false;
  return a == b || (!hosts_[a].isolated && !hosts_[b].isolated);
}

void Network::cut(HostId id, std::uint32_t index, bool announced) {
  Port& cut = port(id, index);
  if (!cut.up) return;
  note(Event::port_down, id, index, announced);
  cut.up = false;
  cut.announced = announced;
  cut.down_since = now_;
}

void Network::restore(HostId id, std::uint32_t index) {
  Port& back = port(id, index);
  if (back.up) return;
  note(Event::port_up, id, index);
  back.up = true;
  back.sent = std::max(back.sent, now_);
}

void Network::slow_down(HostId id, std::uint32_t index, std::uint32_t percent) {
  note(Event::port_slow, id, index, percent);
  port(id, index).percent = std::max(percent, 1u);
}

void Network::refuse_posts(HostId id, std::uint32_t index, Nanos duration) {
  note(Event::port_refuses, id, index, static_cast<std::uint64_t>(duration.count()));
  port(id, index).refuses_until = now_ + duration;
}

void Network::isolate(HostId id) {
  if (std::exchange(hosts_[id].isolated, true)) return;
  note(Event::host_isolated, id);
  for (Port& port : hosts_[id].ports) {
    if (port.up) port.down_since = now_;
  }
}

void Network::rejoin(HostId id) {
  if (!std::exchange(hosts_[id].isolated, false)) return;
  note(Event::host_joined, id);
}

void Network::kill_host(HostId id) {
  isolate(id);
  note(Event::host_died, id);
  hosts_[id].dead = true;
  for (ProcessId process = 0; process < processes_.size(); ++process) {
    if (processes_[process].host == id) kill_process(process);
  }
}

void Network::kill_process(ProcessId id) {
  if (!std::exchange(processes_[id].alive, false)) return;
  note(Event::process_killed, id);
  for (auto& fabric : fabrics) {
    if (fabric->process() == id) fabric->stop();
  }
  for (auto& connection : connections) connection->process_ended(id);
  std::erase_if(listeners, [&](const auto& each) { return each.second->process() == id; });
}

}  // namespace switchyard::sim
