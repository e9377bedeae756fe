// Rules of the transfer engine that need exact timing, on a simulated network.
#include "support.h"

namespace switchyard::sim {
namespace {

class Rules : public OnCluster {
 protected:
  // Keeps so many writes of a size under way for a while; bytes per second of virtual time.
  double throughput(const Machine& from, const Machine& to, std::uint64_t bytes, int depth, Nanos time) {
    std::uint64_t written = 0;
    bool going = true;
    int under_way = 0;
    std::function<void()> submit = [&] {
      ++under_way;
      ASSERT_TRUE(engine(from).write(write_of(from, to, 0, bytes), [&](const Status& status) {
        EXPECT_TRUE(status);
        --under_way;
        if (!going) return;
        written += bytes;
        submit();
      }));
    };
    for (int i = 0; i < depth; ++i) submit();
    // Time for the speeds to be measured.
    cluster_.run_for(time / 2);
    written = 0;
    cluster_.run_for(time);
    const double result = static_cast<double>(written) / to_seconds(time);
    going = false;
    EXPECT_TRUE(cluster_.run_for(seconds(10), [&] { return under_way == 0; }));
    return result;
  }
};

TEST_F(Rules, AWriteArrivesAndIsCounted) {
  Machine &a = machine({PortOptions{}, PortOptions{}}), &b = machine({PortOptions{}});
  for (std::size_t i = 0; i < a.memory.size(); ++i) a.memory[i] = static_cast<std::byte>(i * 7 + i / 251);
  auto counter = engine(b).make_counter();
  Outcome reached, done;
  ASSERT_TRUE(counter->expect(1, TimePoint::max(), into(reached)));
  Write write = write_of(a, b, 0, 1 << 20);
  write.options.counter = counter->id();
  ASSERT_TRUE(engine(a).write(write, into(done)));
  ASSERT_TRUE(finishes(done));
  EXPECT_EQ(done.word(), "ok");
  ASSERT_TRUE(finishes(reached));
  EXPECT_EQ(a.memory, b.memory);
}

// T6
TEST_F(Rules, ADeadProcessEndsItsTransfersAtOnceAndADeadHostWithinTheHeartbeatLimit) {
  PortOptions slow{.bytes_per_second = 1'000'000};
  for (const bool host : {false, true}) {
    Machine &a = machine({slow}), &b = machine({slow});
    connect(a, b);
    Outcome done;
    ASSERT_TRUE(engine(a).write(write_of(a, b, 0, 1 << 20), into(done)));
    cluster_.run_for(milliseconds(10));
    ASSERT_EQ(done.calls, 0);
    const TimePoint died = cluster_.now();
    b.region = {};
    if (host) {
      cluster_.kill_host(cluster_.host_of(b.node));
    } else {
      cluster_.kill(b.node);
    }
    ASSERT_TRUE(finishes(done));
    EXPECT_EQ(done.word(), "peer_lost");
    if (host) {
      EXPECT_GE(done.when - died, options_.heartbeat_limit - options_.heartbeat_interval);
      EXPECT_LE(done.when - died, options_.heartbeat_limit + options_.heartbeat_interval / 2);
    } else {
      EXPECT_LE(done.when - died, microseconds(200));
    }
  }
}

TEST_F(Rules, AProcessThatStartsAgainIsAnotherPeer) {
  Machine &a = machine({PortOptions{}}), &b = machine({PortOptions{}});
  connect(a, b);
  const PeerAddress old = address(b);
  const RegionKey key = b.region.key();
  b.region = {};
  const HostId host = cluster_.host_of(b.node);
  cluster_.kill(b.node);
  cluster_.run_for(milliseconds(1));  // the death is noticed
  const NodeId again = cluster_.start(host, options_, old.engine_id);
  Outcome connected, refused;
  ASSERT_TRUE(engine(a).connect(cluster_.engine(again).address(), into(connected)));
  ASSERT_TRUE(finishes(connected));
  EXPECT_EQ(connected.word(), "ok");
  auto late = engine(a).write({.source = a.region, .peer = old, .target = key, .bytes = 8}, into(refused));
  ASSERT_FALSE(late);
  EXPECT_EQ(late.error().code, ErrorCode::denied);
}

// T8
TEST_F(Rules, PeersWithFourRailsAndOneShareWhatTheSlowerSideHas) {
  const PortOptions fast{.bytes_per_second = 25'000'000'000}, quarter{.bytes_per_second = 6'250'000'000};
  Machine &a = machine({quarter, quarter, quarter, quarter}), &b = machine({fast});
  connect(a, b);
  EXPECT_GT(throughput(a, b, 1 << 20, 8, milliseconds(5)), 0.9 * 25e9);
  connect(b, a);
  EXPECT_GT(throughput(b, a, 1 << 20, 8, milliseconds(5)), 0.9 * 25e9);
}

TEST_F(Rules, RailsOfDifferentSpeedsCarryTheirShares) {
  for (const bool ordered : {false, true}) {
    for (const bool tells : {true, false}) {
      const PortOptions fast{.bytes_per_second = 12'500'000'000, .ordered = ordered, .tells_speed = tells};
      PortOptions slow = fast;
      slow.bytes_per_second /= 4;
      Machine &a = machine({fast, slow}), &b = machine({fast, slow});
      connect(a, b);
      EXPECT_GT(throughput(a, b, 1 << 20, 16, milliseconds(20)), 0.9 * 15.6e9) << ordered << tells;
    }
  }
}

TEST_F(Rules, ARailThatGetsSlowerGetsLess) {
  Machine &a = machine({PortOptions{}, PortOptions{}}), &b = machine({PortOptions{}, PortOptions{}});
  connect(a, b);
  EXPECT_GT(throughput(a, b, 1 << 20, 16, milliseconds(5)), 0.9 * 25e9);
  cluster_.network().slow_down(cluster_.host_of(a.node), 1, 25);
  EXPECT_GT(throughput(a, b, 1 << 20, 16, milliseconds(20)), 0.9 * 15.6e9);
}

// T9
TEST_F(Rules, ARailThatDiesCostsBandwidthAndIsUsedAgain) {
  for (const bool announced : {true, false}) {
    Machine &a = machine({PortOptions{}, PortOptions{}}), &b = machine({PortOptions{}, PortOptions{}});
    connect(a, b);
    const double both = throughput(a, b, 1 << 20, 8, milliseconds(5));
    EXPECT_GT(both, 0.9 * 25e9);
    std::vector<Outcome> done(8);
    for (Outcome& each : done) ASSERT_TRUE(engine(a).write(write_of(a, b, 0, 1 << 20), into(each)));
    cluster_.run_for(microseconds(100));
    cluster_.network().cut(cluster_.host_of(b.node), 1, announced);
    for (Outcome& each : done) {
      ASSERT_TRUE(finishes(each));
      EXPECT_EQ(each.word(), "ok");
    }
    EXPECT_GT(engine(a).metrics().failovers, 0u);
    const double one = throughput(a, b, 1 << 20, 8, milliseconds(50));
    EXPECT_GT(one, 0.85 * 12.5e9);
    EXPECT_LT(one, 1.05 * 12.5e9);
    cluster_.network().restore(cluster_.host_of(b.node), 1);
    cluster_.run_for(64 * options_.path_rest + options_.stall_limit);
    EXPECT_GT(throughput(a, b, 1 << 20, 8, milliseconds(5)), 0.9 * 25e9);
  }
}

// T9: pairs of rails that no network joins are tried, and get no work.
TEST_F(Rules, APathThatNeverDeliversIsNeverUp) {
  options_.connect_limit = seconds(1);  // enough for an attempt that the cut outlasts, and another
  for (const bool ordered : {true, false}) {
    PortOptions one{.ordered = ordered}, two{.subnet = 1, .ordered = ordered};
    Machine &a = machine({one, two}), &b = machine({one, two});
    connect(a, b);
    std::vector<Outcome> done(64);
    for (Outcome& each : done) ASSERT_TRUE(engine(a).write(write_of(a, b, 0, 1 << 20), into(each)));
    cluster_.run_for(microseconds(100));
    // The last path breaks, and comes back after several rounds over all pairs.
    const HostId host = cluster_.host_of(b.node);
    cluster_.network().cut(host, 0, false);
    cluster_.network().cut(host, 1, false);
    cluster_.run_for(milliseconds(400));
    cluster_.network().restore(host, 1);
    for (Outcome& each : done) {
      ASSERT_TRUE(finishes(each));
      EXPECT_EQ(each.word(), "ok") << (each.status ? "" : each.status.error().message);
    }
    const EngineMetrics metrics = engine(a).metrics();
    ASSERT_EQ(metrics.peers.size(), 1u);
    for (const auto& path : metrics.peers[0].paths) {
      if (path.local_rail == path.remote_rail) continue;
      EXPECT_FALSE(path.up);
      EXPECT_EQ(path.bytes_written, 0u);
      EXPECT_EQ(path.failovers, 0u);
    }
  }
}

// The fastest rails are paired first, and here no network joins these.
TEST_F(Rules, WhenThePlannedPairsLeadNowhereOthersAreTried) {
  PortOptions fast{.bytes_per_second = 25'000'000'000}, slow{.bytes_per_second = 1'000'000'000};
  PortOptions fast_there = fast, slow_there = slow;
  slow.subnet = fast_there.subnet = 1;
  Machine &a = machine({fast, slow}), &b = machine({fast_there, slow_there});
  Outcome done;
  ASSERT_TRUE(engine(a).write(write_of(a, b, 0, 1 << 20), into(done)));
  ASSERT_TRUE(finishes(done));
  EXPECT_EQ(done.word(), "ok") << (done.status ? "" : done.status.error().message);
}

// Transfers are numbered in the order in which they are posted; those on the slow rail arrive when hundreds
// of later ones have.
TEST_F(Rules, CountedTransfersThatFallFarBehindHoldUpNothingForLong) {
  for (const std::uint32_t window : {8u, 24u, 64u}) {
    const PortOptions fast{.window = window};
    PortOptions slow = fast;
    slow.latency = milliseconds(1);
    slow.jitter = milliseconds(3);
    Machine &a = machine({fast, slow}), &b = machine({fast, slow});
    connect(a, b);
    auto counter = engine(b).make_counter();
    constexpr int kWrites = 4000, kDepth = 300;
    int begun = 0, ended = 0;
    std::function<void()> submit = [&] {
      if (begun == kWrites) return;
      ++begun;
      Write write = write_of(a, b, 0, 8);
      write.options.counter = counter->id();
      ASSERT_TRUE(engine(a).write(write, [&](const Status& status) {
        EXPECT_TRUE(status);
        ++ended;
        submit();
      }));
    };
    for (int i = 0; i < kDepth; ++i) submit();
    EXPECT_TRUE(cluster_.run_for(seconds(5), [&] { return ended == kWrites; })) << window << ": " << ended;
    cluster_.run_for(milliseconds(10));
    EXPECT_EQ(counter->arrived(), static_cast<std::uint64_t>(kWrites));
  }
}

// T12
TEST_F(Rules, LatencyOvertakesBulk) {
  PortOptions port{.bytes_per_second = 1'250'000'000};
  Machine &a = machine({port}), &b = machine({port});
  connect(a, b);
  // About 100 ms of bulk.
  std::vector<Outcome> bulk(128);
  for (Outcome& each : bulk) ASSERT_TRUE(engine(a).write(write_of(a, b, 0, 1 << 20), into(each)));
  cluster_.run_for(milliseconds(1));
  Outcome urgent;
  Write write = write_of(a, b, 0, 4096);
  write.options.priority = Priority::latency;
  const TimePoint submitted = cluster_.now();
  ASSERT_TRUE(engine(a).write(write, into(urgent)));
  ASSERT_TRUE(finishes(urgent));
  EXPECT_EQ(urgent.word(), "ok");
  // No more than what the rail itself has in its queue.
  EXPECT_LE(urgent.when - submitted, milliseconds(5));
  EXPECT_EQ(bulk.back().calls, 0);
  for (Outcome& each : bulk) ASSERT_TRUE(finishes(each));
}

}  // namespace
}  // namespace switchyard::sim
