#include "sim/simtest.h"

#include <fmt/format.h>

#include <algorithm>

#include "sim/workload.h"

namespace switchyard::sim {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr Nanos kSettleLimit = seconds(20);  // after the last fault everything ends within
constexpr Nanos kCloseLimit = seconds(1);

class Scenario {
 public:
  explicit Scenario(std::uint64_t seed)
      : seed_(seed), cluster_(seed), random_(cluster_.network().random()), ledger_(cluster_) {}
  SimtestResult run(std::size_t events_shown);

 private:
  void build();
  NodeId start(HostId host, std::optional<transfer::EngineId> id = std::nullopt);
  void arrange_faults();
  void fault();
  void gone(NodeId node, bool with_host);
  void come_back(NodeId node);
  void expect_end_of_operations_to(NodeId node, bool at_once);
  void heal();
  void end();
  void add_up(SimtestResult& result, NodeId node);

  const std::uint64_t seed_;
  Cluster cluster_;
  Random& random_;
  Ledger ledger_;
  std::optional<Workload> workload_;
  WorkloadOptions load_;
  EngineOptions options_;
  std::uint32_t faults_ = 0;
  bool kills_ = false, cuts_ = false, partitions_ = false, links_ = false, pauses_ = false;
  bool healing_ = false;
  TimePoint last_silence_{};  // the latest time at which bytes between hosts, or an engine, stood still
  std::string scenario_;
  SimtestResult result_;
};

void Scenario::build() {
  // Limits are short, so that a run is: their ratios are those that an engine has by default.
  options_.heartbeat_interval = milliseconds(50);
  options_.heartbeat_limit = milliseconds(300);
  options_.connect_limit = milliseconds(500);
  options_.stall_limit = milliseconds(random_.between(50, 300));
  options_.path_rest = milliseconds(random_.between(1, 10));
  options_.max_transfers = random_.chance(0.2) ? 24 : 96;
  options_.max_counters = random_.chance(0.2) ? 8 : 64;
  options_.max_peers = 16;
  options_.message_bytes = 4096;
  options_.message_slots = static_cast<std::uint32_t>(random_.between(1, 8));
  cluster_.wake_high = random_.chance(0.5) ? microseconds(1) : microseconds(30);
  cluster_.step_time = Nanos(random_.between(100, 2000));
  FaultModel& model = cluster_.network().faults;
  model.retries = static_cast<double>(random_.below(100)) / 100;
  model.hangs = static_cast<double>(random_.below(60)) / 100;
  model.ack_lost = static_cast<double>(random_.below(60)) / 100;
  model.late = static_cast<double>(random_.below(80)) / 100;
  model.lands_after_target_removed = random_.chance(0.7);

  const std::uint64_t kind = random_.below(4);  // of rails: with order, without, or a mixture
  const auto hosts = random_.between(2, random_.chance(0.7) ? 4 : 6);
  constexpr std::uint64_t kSpeeds[] = {1'000'000'000, 3'000'000'000, 12'500'000'000, 25'000'000'000};
  // Each port of a host has a subnet of its own: only those with the same number reach each other.
  const bool subnets = random_.chance(0.2);
  std::string rails;
  for (std::uint64_t i = 0; i < hosts; ++i) {
    std::vector<PortOptions> ports;
    const auto count = random_.between(1, 4);
    const std::uint64_t speed = kSpeeds[random_.below(4)];
    for (std::uint64_t j = 0; j < count; ++j) {
      PortOptions port;
      port.ordered = kind == 0 || (kind >= 2 && j % 2 == 1);
      port.fabric = port.ordered ? "connected" : "datagram";
      port.bytes_per_second = random_.chance(0.7) ? speed : kSpeeds[random_.below(4)];
      port.latency = random_.duration(microseconds(1), microseconds(10));
      port.jitter = random_.chance(0.2) ? Nanos::zero() : random_.duration(Nanos(100), microseconds(100));
      port.subnet = subnets ? static_cast<std::uint32_t>(j) : 0;
      port.mtu = random_.chance(0.5) ? 4096 : random_.between(256, 9000);
      port.max_write_bytes = random_.chance(0.5) ? 1 << 20 : random_.between(2048, 64 << 10);
      port.max_outstanding = static_cast<std::uint32_t>(random_.between(4, 128));
      port.window = static_cast<std::uint32_t>(random_.between(2, port.max_outstanding));
      port.tells_speed = random_.chance(0.8);
      ports.push_back(port);
      rails += fmt::format("{}{}{:.0f}G{}", j == 0 ? (i == 0 ? "" : " | ") : " ", port.ordered ? "rc" : "ud",
                           static_cast<double>(port.bytes_per_second) * 8e-9, "");
    }
    cluster_.add_host(ports);
  }
  load_.operations = static_cast<std::uint32_t>(random_.between(20, 160));
  load_.largest = random_.magnitude(1 << 10, 128 << 10);
  load_.duration = random_.duration(milliseconds(2), milliseconds(100));
  load_.cancels = random_.chance(0.3) ? 0 : 0.15;
  load_.deadlines = random_.chance(0.3) ? 0 : 0.3;
  load_.passing_regions = random_.chance(0.7) ? 0 : 0.1;
  if (seed_ % 20 == 7) {
    // Many small ones, so that numbers, slots and generations come round.
    load_.operations = static_cast<std::uint32_t>(random_.between(400, 1000));
    load_.largest = 256;
    load_.per_counter = 400;
  }
  if (seed_ % 8 != 0) {
    cuts_ = random_.chance(0.7);
    kills_ = random_.chance(0.3);
    partitions_ = random_.chance(0.2);
    links_ = random_.chance(0.2);
    pauses_ = random_.chance(0.4);
    faults_ = static_cast<std::uint32_t>(random_.between(1, 10));
  }
  scenario_ =
      fmt::format("{} engines ({}{}), {} operations of up to {} bytes in {:.0f} ms; faults:{}{}{}{}{}", hosts,
                  rails, subnets ? "; subnets" : "", load_.operations, load_.largest,
                  to_seconds(load_.duration) * 1e3, cuts_ ? " cuts" : "", kills_ ? " deaths" : "",
                  partitions_ ? " partitions" : "", links_ ? " control links" : "", pauses_ ? " pauses" : "");
  workload_.emplace(cluster_, ledger_, load_);
  for (HostId host = 0; host < hosts; ++host) start(host);
  cluster_.after_step = [this](NodeId node) { ledger_.look_at_counters(node); };
  cluster_.network().observer = &ledger_;
}

NodeId Scenario::start(HostId host, std::optional<transfer::EngineId> id) {
  options_.name = fmt::format("node {}", cluster_.nodes());
  const NodeId node = cluster_.start(host, options_, id);
  workload_->add_node(node);
  return node;
}

void Scenario::arrange_faults() {
  for (std::uint32_t i = 0; i < faults_; ++i)
    cluster_.network().after(random_.duration(Nanos::zero(), load_.duration * 3 / 2), [this] { fault(); });
}

void Scenario::fault() {
  if (healing_) return;
  Network& network = cluster_.network();
  const auto host = static_cast<HostId>(random_.below(network.hosts()));
  const auto port = static_cast<std::uint32_t>(random_.below(network.host(host).ports.size()));
  const auto node = static_cast<NodeId>(random_.below(cluster_.nodes()));
  auto living = [&] {
    std::size_t count = 0;
    for (NodeId id = 0; id < cluster_.nodes(); ++id) count += cluster_.alive(id);
    return count;
  };
  switch (random_.below(8)) {
    case 0:
    case 1: {
      if (!cuts_) return;
      ledger_.disturbed = true;
      const bool announced = random_.chance(0.5);
      // Once, or several times: the port flaps.
      const auto times = random_.chance(0.3) ? random_.between(2, 6) : 1;
      Nanos at{};
      for (std::uint64_t i = 0; i < times; ++i) {
        const Nanos down = times > 1 ? random_.duration(microseconds(10), milliseconds(20))
                                     : random_.duration(microseconds(10),
                                                        random_.duration(milliseconds(1), milliseconds(500)));
        network.after(at, [this, host, port, announced] {
          if (!healing_) cluster_.network().cut(host, port, announced);
        });
        network.after(at + down, [this, host, port] { cluster_.network().restore(host, port); });
        at += down + random_.duration(microseconds(10), milliseconds(20));
      }
      break;
    }
    case 2:
      network.slow_down(host, port, static_cast<std::uint32_t>(random_.between(3, 60)));
      network.after(random_.duration(milliseconds(1), milliseconds(50)),
                    [this, host, port] { cluster_.network().slow_down(host, port, 100); });
      break;
    case 3:
      network.refuse_posts(host, port, random_.duration(microseconds(10), milliseconds(5)));
      break;
    case 4:
      if (!partitions_) return;
      ledger_.disturbed = true;
      last_silence_ = TimePoint::max();
      network.isolate(host);
      network.after(random_.duration(microseconds(100), milliseconds(600)), [this, host] {
        cluster_.network().rejoin(host);
        last_silence_ = cluster_.now() + milliseconds(100);
      });
      break;
    case 5: {
      if (!links_ || network.connections.empty()) return;
      ledger_.disturbed = true;
      last_silence_ = cluster_.now() + 2 * options_.heartbeat_limit;
      network.connections[random_.below(network.connections.size())]->break_it();
      break;
    }
    case 6: {
      if (!kills_ || !cluster_.alive(node) || living() <= 2) return;
      ledger_.disturbed = true;
      gone(node, random_.chance(0.3));
      break;
    }
    default:
      if (!pauses_ || !cluster_.present(node)) return;
      ledger_.disturbed = true;
      cluster_.pause(
          node, random_.duration(microseconds(10), random_.duration(milliseconds(1), milliseconds(300))));
      last_silence_ = std::max(last_silence_, cluster_.paused_until(node) + milliseconds(50));
      break;
  }
}

void Scenario::gone(NodeId node, bool with_host) {
  const HostId host = cluster_.host_of(node);
  add_up(result_, node);
  if (!with_host && random_.chance(0.3)) {
    cluster_.close(node);
    return;
  }
  if (with_host) {
    for (NodeId other = 0; other < cluster_.nodes(); ++other) {
      if (other != node && cluster_.host_of(other) == host && cluster_.present(other)) return;
    }
    expect_end_of_operations_to(node, false);
    ledger_.node_gone(node);
    cluster_.kill_host(host);
    return;
  }
  expect_end_of_operations_to(node, true);
  ledger_.node_gone(node);
  cluster_.kill(node);
  if (!random_.chance(0.6)) return;
  cluster_.network().after(random_.duration(microseconds(50), milliseconds(200)),
                           [this, node] { come_back(node); });
}

void Scenario::come_back(NodeId node) {
  if (healing_) return;
  const auto id = ledger_.memory(node).address.engine_id;
  start(cluster_.host_of(node), random_.chance(0.5) ? std::optional(id) : std::nullopt);
}

// T6: what living nodes have under way to it ends, at once when a process dies, within the heartbeat limit
// when a host does.
void Scenario::expect_end_of_operations_to(NodeId node, bool at_once) {
  std::vector<OpId> pending;
  for (OpId id = 0; id < ledger_.ops().size(); ++id) {
    const Op& op = ledger_.ops()[id];
    const bool aims = op.kind == Op::Kind::scatter ? false : op.to == node;
    if (aims && op.started && !op.done && !op.abandoned && op.from != node) pending.push_back(id);
  }
  if (pending.empty()) return;
  const TimePoint died = cluster_.now();
  // A dial that has been answered with "later" is repeated after a while.
  const Nanos limit =
      at_once ? milliseconds(50)
              : std::max(options_.heartbeat_limit + options_.heartbeat_interval, options_.connect_limit) +
                    milliseconds(50);
  cluster_.network().after(limit, [this, pending, died, node, at_once] {
    if (last_silence_ >= died) return;
    for (const OpId id : pending) {
      const Op& op = ledger_.ops()[id];
      if (!op.done && !op.abandoned && cluster_.present(op.from)) {
        ledger_.violate("T6: operation {} of node {} has not ended {:.0f} ms after {} {} died", id, op.from,
                        to_seconds(cluster_.now() - died) * 1e3,
                        at_once ? "the process of node" : "the host of node", node);
      }
    }
  });
}

void Scenario::heal() {
  healing_ = true;
  workload_->stop();
  Network& network = cluster_.network();
  for (HostId host = 0; host < network.hosts(); ++host) {
    if (network.host(host).dead) continue;
    network.rejoin(host);
    for (std::uint32_t port = 0; port < network.host(host).ports.size(); ++port) {
      network.restore(host, port);
      network.slow_down(host, port, 100);
    }
  }
}

void Scenario::add_up(SimtestResult& result, NodeId node) {
  if (!cluster_.present(node)) return;
  const EngineMetrics metrics = cluster_.engine(node).metrics();
  result.failovers += metrics.failovers;
  result.requests_sent_again += metrics.requests_sent_again;
  result.repeated_arrivals += metrics.repeated_arrivals;
  result.peers_lost += metrics.peers_lost;
}

void Scenario::end() {
  Network& network = cluster_.network();
  heal();
  if (!cluster_.run_for(kSettleLimit, [this] { return workload_->finished(); })) {
    if (!network.violation())
      ledger_.violate("T10: {:.0f} s after the last fault not everything has ended: {}",
                      to_seconds(kSettleLimit), workload_->describe_unfinished());
    return;
  }
  // What has been delivered is counted soon; what is late may try to land.
  cluster_.run_for(milliseconds(800));
  if (network.violation()) return;
  ledger_.look_at_all_counters_at_the_end();
  for (CounterState& counter : ledger_.counters()) {
    if (counter.counter && cluster_.alive(counter.node)) cluster_.engine(counter.node);
    counter.counter = {};
  }
  cluster_.run_for(milliseconds(1));
  for (NodeId node = 0; node < cluster_.nodes(); ++node) {
    if (!cluster_.alive(node)) continue;
    const EngineMetrics metrics = cluster_.engine(node).metrics();
    if (metrics.transfers_pending != 0 || metrics.counters_used != 0) {
      ledger_.violate("node {} still holds {} transfers and {} counters when all has ended", node,
                      metrics.transfers_pending, metrics.counters_used);
    }
    for (std::size_t rail = 0; rail < metrics.rails.size(); ++rail) {
      if (metrics.rails[rail].outstanding != 0)
        ledger_.violate("rail {} of node {} still has {} writes under way", rail, node,
                        metrics.rails[rail].outstanding);
    }
    add_up(result_, node);
  }
  for (NodeId node = 0; node < cluster_.nodes(); ++node) {
    ledger_.memory(node).target_region = ledger_.memory(node).source_region = {};
    if (cluster_.alive(node)) cluster_.close(node);
  }
  const bool closed = cluster_.run_for(kCloseLimit, [this] {
    for (NodeId node = 0; node < cluster_.nodes(); ++node) {
      if (cluster_.present(node)) return false;
    }
    return true;
  });
  if (!closed && !network.violation())
    ledger_.violate("T10: an engine does not close within {:.0f} s", to_seconds(kCloseLimit));
}

SimtestResult Scenario::run(std::size_t events_shown) {
  Network& network = cluster_.network();
  build();
  workload_->begin();
  arrange_faults();
  cluster_.run_for(load_.duration * 3 / 2);
  if (!network.violation()) end();

  result_.seed = seed_;
  result_.scenario = scenario_;
  result_.violation = network.violation();
  result_.when = network.now();
  result_.trace_hash = network.trace().hash();
  result_.events = network.trace().events();
  if (result_.violation) result_.latest_events = network.trace().latest(events_shown);
  for (const Op& op : ledger_.ops()) {
    result_.operations += op.started;
    result_.operations_ok += op.started && op.done && op.ok;
    result_.operations_failed += op.started && op.done && !op.ok;
  }
  for (HostId host = 0; host < network.hosts(); ++host) {
    for (const Port& port : network.host(host).ports) result_.bytes_landed += port.bytes;
  }
  // Whatever is left ends now, while the memory is still there; nobody judges it any more.
  network.observer = nullptr;
  cluster_.after_step = {};
  for (NodeId node = 0; node < cluster_.nodes(); ++node) {
    ledger_.node_gone(node);
    cluster_.kill(node);
  }
  return std::move(result_);
}

}  // namespace

SimtestResult run_simtest(std::uint64_t seed, std::size_t events_shown) {
  auto scenario = std::make_unique<Scenario>(seed);
  return scenario->run(events_shown);
}

}  // namespace switchyard::sim
