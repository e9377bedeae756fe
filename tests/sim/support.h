// What the tests of the engine on a simulated network share.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "base/log.h"
#include "sim/cluster.h"

namespace switchyard::sim {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::seconds;

// An engine with memory of its own.
struct Machine {
  NodeId node = 0;
  std::vector<std::byte> memory;
  Region region;
};

class OnCluster : public ::testing::Test {
 protected:
  OnCluster() : cluster_(1) {
    spdlog::set_level(spdlog::level::off);
    options_.heartbeat_interval = milliseconds(50);
    options_.heartbeat_limit = milliseconds(300);
    options_.connect_limit = milliseconds(500);
    options_.stall_limit = milliseconds(200);
    options_.path_rest = milliseconds(5);
    options_.max_peers = 16;
    options_.max_transfers = 512;
  }
  ~OnCluster() override {
    EXPECT_FALSE(cluster_.network().violation()) << *cluster_.network().violation();
    // The regions go before the engines, and the engines before the memory.
    for (auto& machine : machines_) machine->region = {};
    for (NodeId node = 0; node < cluster_.nodes(); ++node) cluster_.kill(node);
  }

  Machine& machine(const std::vector<PortOptions>& ports, std::size_t bytes = 1 << 20) {
    return machine_on(cluster_.add_host(ports), bytes);
  }
  Machine& machine_on(HostId host, std::size_t bytes = 1 << 20) {
    Machine& made = *machines_.emplace_back(std::make_unique<Machine>());
    made.node = cluster_.start(host, options_);
    made.memory.resize(bytes);
    made.region = *engine(made).register_region({made.memory.data(), bytes});
    return made;
  }
  EngineCore& engine(const Machine& machine) { return cluster_.engine(machine.node); }
  PeerAddress address(const Machine& machine) { return engine(machine).address(); }

  struct Outcome {
    int calls = 0;
    Status status;
    TimePoint when{};
    std::string word() const {
      return calls == 0 ? "open" : status ? "ok" : std::string(to_string(status.error().code));
    }
  };
  Done into(Outcome& outcome) {
    return [this, &outcome](const Status& status) {
      ++outcome.calls;
      outcome.status = status;
      outcome.when = cluster_.now();
    };
  }
  Write write_of(const Machine& from, const Machine& to, std::uint64_t offset, std::uint64_t bytes) {
    return {.source = from.region,
            .source_offset = offset,
            .peer = address(to),
            .target = to.region.key(),
            .target_offset = offset,
            .bytes = bytes};
  }
  // Connects, and lets the paths come up.
  void connect(const Machine& from, const Machine& to) {
    Outcome outcome;
    ASSERT_TRUE(engine(from).connect(address(to), into(outcome)));
    ASSERT_TRUE(cluster_.run_for(seconds(2), [&] { return outcome.calls != 0; }));
    ASSERT_EQ(outcome.word(), "ok");
    cluster_.run_for(milliseconds(5));
  }
  bool finishes(const Outcome& outcome, Nanos limit = seconds(30)) {
    return cluster_.run_for(limit, [&] { return outcome.calls != 0; });
  }

  Cluster cluster_;
  EngineOptions options_;
  std::vector<std::unique_ptr<Machine>> machines_;
};

}  // namespace switchyard::sim
