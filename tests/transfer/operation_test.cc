// Operations beside plain writes, and engines with several rails: scatter, signal, watch, priorities,
// awaiting.
#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>

#include <atomic>
#include <coroutine>
#include <numeric>

#include "switchyard/completion.h"
#include "transfer/support.h"

namespace switchyard::testing {
namespace {

class Operations : public OnFabric {};
INSTANTIATE_TEST_SUITE_P(All, Operations, rail_sets(), fabric_name);

TEST_P(Operations, ScatterGivesEverybodyItsSliceAndCountsThere) {
  constexpr std::size_t kPeers = 5, kSlice = 70'001;
  Side from = side(kPeers * kSlice);
  fill(from.bytes(), 3);
  std::vector<Side> peers;
  std::vector<Counter> counters;
  std::vector<PeerGroup::Member> members;
  Scatter scatter{.source = from.region};
  for (std::size_t i = 0; i < kPeers; ++i) {
    peers.push_back(side(kSlice + 8));
    counters.push_back(*peers[i].engine->make_counter());
    members.push_back({peers[i].address(), peers[i].key()});
    scatter.slices.push_back(
        {.source_offset = i * kSlice, .target_offset = 8, .bytes = kSlice, .counter = counters[i].id()});
  }
  scatter.slices[2] = {};  // nothing for this one
  scatter.slices[3].bytes = 0;
  scatter.group = PeerGroup(members);
  for (int round = 1; round <= 20; ++round) {
    Outcome sent;
    ASSERT_TRUE(from.engine->scatter(scatter, sent.done()));
    ASSERT_EQ(sent.word(), "ok");
    for (std::size_t i = 0; i < kPeers; ++i) {
      Outcome counted;
      ASSERT_TRUE(counters[i].expect(i == 2 ? 0 : round, soon(), counted.done()));
      ASSERT_EQ(counted.word(), "ok");
      for (std::size_t at = 0; at < kSlice; ++at)
        ASSERT_EQ(peers[i].memory[8 + at], i == 2 || i == 3 ? std::byte{0} : pattern(3, i * kSlice + at));
      EXPECT_EQ(counters[i].arrived(), i == 2 ? 0u : static_cast<unsigned>(round));
    }
  }
  EXPECT_EQ(from.engine->metrics().transfers_pending, 0u);
}

TEST_P(Operations, ScatterChecksEverythingBeforeItSendsAnything) {
  Side from = side(1000), to = side(1000);
  PeerGroup group({{to.address(), to.key()}, {to.address(), to.key()}});
  Scatter scatter{.source = from.region, .group = group, .slices = {{0, 0, 10, {}}}};
  EXPECT_EQ(from.engine->scatter(scatter, {}).error().code, ErrorCode::invalid);
  scatter.slices = {{0, 0, 10, {}}, {0, 995, 10, {}}};
  EXPECT_EQ(from.engine->scatter(scatter, {}).error().code, ErrorCode::out_of_range);
  scatter.slices = {{0, 0, 10, {}}, {995, 0, 10, {}}};
  EXPECT_EQ(from.engine->scatter(scatter, {}).error().code, ErrorCode::out_of_range);
  scatter.slices = {{0, 0, 10, CounterId{0, 0, 77}}, {0, 0, 10, {}}};
  EXPECT_EQ(from.engine->scatter(scatter, {}).error().code, ErrorCode::denied);
  EXPECT_EQ(from.engine->metrics().transfers_pending, 0u);
  // A group without members, or without slices, is done at once.
  scatter = {.source = from.region};
  Outcome done;
  ASSERT_TRUE(from.engine->scatter(scatter, done.done()));
  EXPECT_EQ(done.word(), "ok");
}

TEST_P(Operations, ARefusedSubmissionTakesNoPeersPlace) {
  EngineOptions few;
  few.max_peers = 2;
  few.max_transfers = 3;
  Side from = side(64, few), a = side(64), b = side(64), c = side(64);
  // The worker is here, so that nothing ends meanwhile.
  Outcome over;
  ASSERT_TRUE(from.engine->post([&, done = over.done()] {
    for (int i = 0; i < 3; ++i) EXPECT_TRUE(from.engine->write(whole(from, a), {}));
    auto refused = from.engine->write(whole(from, b), {});
    EXPECT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ErrorCode::exhausted);
    done({});
  }));
  EXPECT_EQ(over.word(), "ok");
  EXPECT_TRUE(eventually([&] { return from.engine->metrics().transfers_pending == 0; }));
  // Its second member has no address.
  PeerAddress nowhere = c.address();
  nowhere.control_port = 0;
  PeerGroup group({{b.address(), b.key()}, {nowhere, c.key()}});
  Scatter scatter{.source = from.region, .group = group, .slices = {{0, 0, 10, {}}, {0, 0, 10, {}}}};
  EXPECT_EQ(from.engine->scatter(scatter, {}).error().code, ErrorCode::invalid);
  Outcome sent;
  auto transfer = from.engine->write(whole(from, c), sent.done());
  ASSERT_TRUE(transfer) << transfer.error().message;
  EXPECT_EQ(sent.word(), "ok");
}

TEST_P(Operations, ACancelledScatterDrainsAsAWhole) {
  Side from = side(4 << 20), a = side(4 << 20), b = side(4 << 20);
  PeerGroup group({{a.address(), a.key()}, {b.address(), b.key()}});
  for (int round = 0; round < 10; ++round) {
    Scatter scatter{
        .source = from.region, .group = group, .slices = {{0, 0, 4 << 20, {}}, {0, 0, 4 << 20, {}}}};
    Outcome sent, drained;
    auto transfer = from.engine->scatter(scatter, sent.done());
    ASSERT_TRUE(transfer);
    transfer->cancel(drained.plain());
    ASSERT_EQ(drained.word(), "ok");
    ASSERT_TRUE(sent.word() == "cancelled" || sent.word() == "ok");
    EXPECT_EQ(sent.calls(), 1);
    fill(a.bytes(), 50 + round);
    fill(b.bytes(), 60 + round);
    EXPECT_TRUE(filled(a.bytes(), 50 + round));
    EXPECT_TRUE(filled(b.bytes(), 60 + round));
  }
  EXPECT_TRUE(eventually([&] { return from.engine->metrics().transfers_pending == 0; }));
}

TEST_P(Operations, SignalsCountWithoutBytes) {
  Side a = side(64), b = side(64);
  auto counter = b.engine->make_counter();
  ASSERT_TRUE(counter);
  std::vector<Outcome> sent(1000);
  for (auto& outcome : sent) {
    ASSERT_TRUE(a.engine->signal({.peer = b.address(), .counter = counter->id()}, outcome.done()));
  }
  Outcome counted;
  ASSERT_TRUE(counter->expect(sent.size(), soon(), counted.done()));
  EXPECT_EQ(counted.word(), "ok");
  for (auto& outcome : sent) EXPECT_EQ(outcome.word(), "ok");
  EXPECT_EQ(counter->arrived(), sent.size());
  EXPECT_EQ(b.engine->metrics().repeated_arrivals, 0u);
  EXPECT_EQ(b.engine->metrics().stray_arrivals, 0u);
  EXPECT_EQ(a.engine->signal({.peer = b.address(), .counter = {0, 0, 5}}, {}).error().code,
            ErrorCode::denied);
}

TEST_P(Operations, AnEngineWritesToItself) {
  Side a = side(3 << 20);
  fill(a.bytes(), 9);
  auto counter = a.engine->make_counter();
  ASSERT_TRUE(counter);
  for (int i = 1; i <= 300; ++i) {
    Write write = whole(a, a);
    write.bytes = 1 << 20;
    write.target_offset = 2 << 20;
    write.options.counter = counter->id();
    Outcome sent, counted;
    ASSERT_TRUE(a.engine->write(write, sent.done()));
    ASSERT_TRUE(counter->expect(i, soon(), counted.done()));
    ASSERT_EQ(sent.word(), "ok");
    ASSERT_EQ(counted.word(), "ok");
  }
  EXPECT_TRUE(std::equal(a.memory.begin(), a.memory.begin() + (1 << 20), a.memory.begin() + (2 << 20)));
}

TEST_P(Operations, AllRailsCarryAShareOfALongWrite) {
  Side a = side(32 << 20), b = side(32 << 20);
  fill(a.bytes(), 11);
  auto counter = b.engine->make_counter();
  ASSERT_TRUE(counter);
  for (int i = 1; i <= 4; ++i) {
    Write write = whole(a, b);
    write.options.counter = counter->id();
    Outcome sent, counted;
    ASSERT_TRUE(a.engine->write(write, sent.done()));
    ASSERT_TRUE(counter->expect(i, soon(), counted.done()));
    ASSERT_EQ(sent.word(), "ok");
    ASSERT_EQ(counted.word(), "ok");
    ASSERT_TRUE(filled(b.bytes(), 11));
  }
  const EngineMetrics metrics = a.engine->metrics();
  std::uint64_t sum = 0;
  for (const auto& rail : metrics.rails) {
    EXPECT_GT(rail.bytes_written, 1u << 20) << rail.fabric;
    sum += rail.bytes_written;
  }
  EXPECT_EQ(sum, 4 * ((32ull << 20) + 16)) << "and each byte once, with one arrival record each time";
  ASSERT_EQ(metrics.peers.size(), 1u);
  EXPECT_TRUE(std::any_of(metrics.peers[0].paths.begin(), metrics.peers[0].paths.end(),
                          [](const auto& path) { return path.up && path.bytes_written > 0; }));
}

TEST_P(Operations, UrgentTransfersOvertake) {
  Side a = side(64 << 20), b = side(64 << 20);
  Outcome urgent;
  std::atomic<int> bulk_done{0}, before_urgent{-1};
  constexpr int kBulk = 40;
  for (int i = 0; i < kBulk; ++i) {
    ASSERT_TRUE(a.engine->write(whole(a, b), [&](const Status&) { ++bulk_done; }));
  }
  Write write = whole(a, b);
  write.bytes = 8;
  write.options.priority = Priority::latency;
  ASSERT_TRUE(a.engine->write(write, [&, done = urgent.done()](const Status& status) {
    before_urgent = bulk_done.load();
    done(status);
  }));
  ASSERT_EQ(urgent.word(), "ok");
  EXPECT_LT(before_urgent.load(), kBulk / 2);
  EXPECT_TRUE(eventually([&] { return bulk_done == kBulk; }));
}

TEST_P(Operations, WatchesThatHaveEndedTakeNoPlace) {
  Side a = side(64);
  alignas(8) std::uint64_t word = 0;
  Outcome made;
  // On the worker itself, which meanwhile cannot tidy up.
  ASSERT_TRUE(a.engine->post([&, done = made.done()] {
    Status status;
    for (int i = 0; i < 5000 && status; ++i) {
      if (auto watcher = a.engine->watch(&word, [](std::uint64_t, std::uint64_t) {}); !watcher)
        status = tl::unexpected(watcher.error());
    }
    done(status);
  }));
  EXPECT_EQ(made.word(), "ok");
}

TEST_P(Operations, WatchesReportChangesUntilTheyEnd) {
  Side a = side(64);
  alignas(8) std::uint64_t word = 5;
  std::atomic<std::uint64_t> seen{0}, calls{0};
  {
    auto watcher = a.engine->watch(&word, [&](std::uint64_t before, std::uint64_t now) {
      if (calls++ == 0) {
        EXPECT_EQ(before, 5u);
      }
      seen = now;
    });
    ASSERT_TRUE(watcher);
    for (std::uint64_t value = 6; value < 50; ++value) {
      __atomic_store_n(&word, value, __ATOMIC_RELEASE);
      ASSERT_TRUE(eventually([&] { return seen == value; }));
    }
  }
  const std::uint64_t after = calls;
  __atomic_store_n(&word, 1000, __ATOMIC_RELEASE);
  Outcome ran;
  ASSERT_TRUE(a.engine->post(ran.plain()));
  EXPECT_EQ(ran.word(), "ok");
  EXPECT_EQ(calls, after);
  EXPECT_FALSE(a.engine->watch(nullptr, [](auto, auto) {}));
  EXPECT_FALSE(a.engine->watch(reinterpret_cast<std::uint64_t*>(reinterpret_cast<char*>(&word) + 1),
                               [](auto, auto) {}));
}

struct Detached {
  struct promise_type {
    Detached get_return_object() { return {}; }
    std::suspend_never initial_suspend() noexcept { return {}; }
    std::suspend_never final_suspend() noexcept { return {}; }
    void return_void() {}
    void unhandled_exception() { std::terminate(); }
  };
};

Detached write_many(TransferEngine& engine, Write write, int count, Done done) {
  for (int i = 0; i < count; ++i) {
    Status status = co_await awaitable([&](Done each) { return engine.write(write, std::move(each)); });
    if (!status) {
      done(status);
      co_return;
    }
  }
  done({});
}

TEST_P(Operations, MayBeAwaitedAndPolled) {
  Side a = side(1000), b = side(1000);
  fill(a.bytes(), 4);
  Completion all;
  write_many(*a.engine, whole(a, b), 100, all.done());
  EXPECT_TRUE(all.wait(soon()));
  EXPECT_TRUE(all.ready());
  EXPECT_TRUE(filled(b.bytes(), 4));
  Write bad = whole(a, b);
  bad.target_offset = 1;
  Completion refused;
  write_many(*a.engine, bad, 1, refused.done());
  EXPECT_EQ(refused.wait(soon()).error().code, ErrorCode::out_of_range);
  Completion never;
  EXPECT_EQ(never.wait(monotonic_now()).error().code, ErrorCode::timed_out);
}

TEST(Rails, PeersMeetOnWhatBothHave) {
  spdlog::set_level(spdlog::level::off);
  Side one = make_side("net", 8 << 20), three = make_side("net,tcp;ofi_rxm,net", 8 << 20);
  fill(one.bytes(), 1);
  fill(three.bytes(), 2);
  Outcome there, back;
  Write write = whole(one, three);
  ASSERT_TRUE(one.engine->write(write, there.done()));
  EXPECT_EQ(there.word(), "ok");
  EXPECT_TRUE(filled(three.bytes(), 1));
  fill(three.bytes(), 2);
  ASSERT_TRUE(three.engine->write(whole(three, one), back.done()));
  EXPECT_EQ(back.word(), "ok");
  EXPECT_TRUE(filled(one.bytes(), 2));
  const auto metrics = three.engine->metrics();
  EXPECT_EQ(metrics.rails[1].bytes_written, 0u) << "the other has no such rail";
}

TEST(Rails, SharedMemoryIsPreferredToANetwork) {
  spdlog::set_level(spdlog::level::off);
  Side a = make_side("net,shm", 1 << 20), b = make_side("shm,net", 1 << 20);
  // The first write may go before all paths are open.
  for (int i = 0; i < 2; ++i) {
    Outcome sent;
    ASSERT_TRUE(a.engine->write(whole(a, b), sent.done()));
    ASSERT_EQ(sent.word(), "ok");
    ASSERT_TRUE(eventually([&] {
      const auto peers = a.engine->metrics().peers;
      return std::all_of(peers[0].paths.begin(), peers[0].paths.end(),
                         [](const auto& path) { return path.up; });
    }));
  }
  const std::uint64_t before = a.engine->metrics().rails[0].bytes_written;
  Outcome sent;
  ASSERT_TRUE(a.engine->write(whole(a, b), sent.done()));
  ASSERT_EQ(sent.word(), "ok");
  EXPECT_EQ(a.engine->metrics().rails[0].bytes_written, before);
}

std::string address_off_loopback() {
  ifaddrs* list = nullptr;
  std::string found;
  if (getifaddrs(&list) != 0) return found;
  for (const ifaddrs* each = list; each != nullptr && found.empty(); each = each->ifa_next) {
    if (each->ifa_addr == nullptr || each->ifa_addr->sa_family != AF_INET ||
        (each->ifa_flags & IFF_LOOPBACK) != 0 || (each->ifa_flags & IFF_UP) == 0)
      continue;
    char text[INET_ADDRSTRLEN] = {};
    inet_ntop(AF_INET, &reinterpret_cast<const sockaddr_in*>(each->ifa_addr)->sin_addr, text, sizeof text);
    found = text;
  }
  freeifaddrs(list);
  return found;
}

TEST(Rails, AutomaticIsSharedMemoryAndOffThisHostANetworkToo) {
  spdlog::set_level(spdlog::level::off);
  Side here = make_side("auto", 64);
  EXPECT_EQ(here.address().rails.size(), 1u);
  const std::string host = address_off_loopback();
  if (host.empty()) GTEST_SKIP() << "this machine has no other address";
  Side anywhere = make_side("auto", 64, {.control_host = host});
  EXPECT_EQ(anywhere.address().rails.size(), 2u);
  EXPECT_EQ(anywhere.address().rails[0].fabric, "shm");
}

TEST(Rails, AddressesThatPeersCannotReachAreRefusedWithAWord) {
  spdlog::set_level(spdlog::level::off);
  for (const char* host : {"0.0.0.0", "::", "localhost", "no.such.host", ""}) {
    for (const char* fabric : {"net", "shm", "auto"}) {
      auto engine = TransferEngine::open({.fabric = fabric, .control_host = host});
      ASSERT_FALSE(engine) << host;
      EXPECT_EQ(engine.error().code, ErrorCode::invalid);
      EXPECT_NE(engine.error().message.find("give one"), std::string::npos) << engine.error().message;
    }
    EXPECT_FALSE(TransferEngine::open({.fabric = std::string("net@") + host})) << host;
  }
  auto engine = TransferEngine::open({.fabric = "shm@x"});
  ASSERT_FALSE(engine);
  EXPECT_NE(engine.error().message.find("write 'shm'"), std::string::npos) << engine.error().message;
}

TEST(Rails, TimesThatTheClockCannotHoldAreRefused) {
  spdlog::set_level(spdlog::level::off);
  for (const Nanos time : {Nanos::zero(), Nanos(-1), Nanos::max()}) {
    EXPECT_FALSE(TransferEngine::open({.fabric = "shm", .heartbeat_interval = time}));
    EXPECT_FALSE(TransferEngine::open({.fabric = "shm", .heartbeat_limit = time}));
    EXPECT_FALSE(TransferEngine::open({.fabric = "shm", .connect_limit = time}));
    EXPECT_FALSE(TransferEngine::open({.fabric = "shm", .stall_limit = time}));
    EXPECT_FALSE(TransferEngine::open({.fabric = "shm", .path_rest = time}));
  }
  constexpr Nanos kYear = std::chrono::hours(24 * 365);
  const EngineOptions patient{.heartbeat_interval = kYear - Nanos(1),
                              .heartbeat_limit = kYear,
                              .connect_limit = kYear,
                              .stall_limit = kYear,
                              .path_rest = kYear};
  Side a = make_side("shm", 1 << 20, patient), b = make_side("shm", 1 << 20, patient);
  Outcome sent;
  ASSERT_TRUE(a.engine->write(whole(a, b), sent.done()));
  EXPECT_EQ(sent.word(), "ok");
}

TEST(Rails, NamesThatAreNoneAreRefused) {
  spdlog::set_level(spdlog::level::off);
  for (const char* fabric : {"", ",", "net,", "@127.0.0.1", "shm,nonsense"}) {
    auto engine = TransferEngine::open({.fabric = fabric});
    EXPECT_FALSE(engine) << fabric;
  }
}

}  // namespace
}  // namespace switchyard::testing
