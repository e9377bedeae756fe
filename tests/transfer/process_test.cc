// Two processes: writes and messages between them, and every way in which one of them can go.
#include "transfer/process.h"

#include <atomic>

namespace switchyard::testing {
namespace {

constexpr std::size_t kBytes = 4 << 20;

EngineOptions watchful() {
  EngineOptions options;
  options.heartbeat_interval = std::chrono::milliseconds(100);
  options.heartbeat_limit = std::chrono::milliseconds(1000);
  return options;
}

class Processes : public OnFabric {
 protected:
  Write to(const Side& from, const PeerProcess& peer, std::uint64_t bytes = kBytes) {
    Write write;
    write.source = from.region;
    write.peer = peer.address();
    write.target = peer.key();
    write.bytes = bytes;
    return write;
  }
};
INSTANTIATE_TEST_SUITE_P(All, Processes, process_fabrics(), fabric_name);

TEST_P(Processes, WriteThereAndBack) {
  Side a = side(kBytes);
  PeerProcess peer(GetParam(), kBytes);
  fill(a.bytes(), 1);
  Write write = to(a, peer);
  write.options.counter = peer.make_counter();
  Outcome sent;
  ASSERT_TRUE(a.engine->write(write, sent.done()));
  EXPECT_EQ(sent.word(), "ok");
  EXPECT_EQ(peer.ask("expect 1"), "ok");
  EXPECT_EQ(peer.ask("filled 1 " + std::to_string(kBytes)), "yes");
  auto counter = a.engine->make_counter();
  Outcome counted;
  ASSERT_TRUE(counter->expect(1, soon(), counted.done()));
  EXPECT_EQ(peer.ask(fmt::format("write 2 {} {} {} {} {}", kBytes, hex(a), counter->id().slot,
                                 counter->id().generation, counter->id().epoch)),
            "ok");
  EXPECT_EQ(counted.word(), "ok");
  EXPECT_TRUE(filled(a.bytes(), 2));
  EXPECT_EQ(peer.ask("connections"), "1");
}

TEST_P(Processes, MessagesThereAndBack) {
  Outcome echoed;
  std::string text;
  Side a = side(64);
  PeerProcess peer(GetParam(), 64);
  a.engine->on_message(
      [&, done = echoed.done()](const PeerAddress& from, std::span<const std::byte> message) {
        EXPECT_EQ(from, peer.address());
        text.assign(reinterpret_cast<const char*>(message.data()), message.size());
        done({});
      });
  EXPECT_EQ(peer.ask("send hello " + to_hex(a.address().serialize())), "ok");
  EXPECT_EQ(echoed.word(), "ok");
  EXPECT_EQ(text, "hello");
}

TEST_P(Processes, AKilledReceiverEndsItsTransfersAtOnce) {
  for (int round = 0; round < 5; ++round) {
    EngineOptions patient;  // so that only the closed connection can tell
    patient.heartbeat_limit = std::chrono::minutes(5);
    PeerAddress gone;  // outlives the engine that writes it
    Outcome lost;
    Side a = side(kBytes, patient);
    Side other = side(kBytes);
    PeerProcess peer(GetParam(), kBytes);
    a.engine->on_peer_lost([&, done = lost.done()](const PeerAddress& address, const Error& why) {
      if (!lost.ready()) gone = address;
      done(pass(why));
    });
    Outcome first;
    ASSERT_TRUE(a.engine->write(to(a, peer), first.done()));
    ASSERT_EQ(first.word(), "ok");
    std::vector<Outcome> outcomes(200);
    for (auto& outcome : outcomes) ASSERT_TRUE(a.engine->write(to(a, peer), outcome.done()));
    peer.kill_dead();
    int ended_badly = 0;
    for (auto& outcome : outcomes) {
      const std::string word = outcome.word();
      EXPECT_TRUE(word == "ok" || word == "peer_lost" || word == "io") << word;
      ended_badly += word == "ok" ? 0 : 1;
      EXPECT_EQ(outcome.calls(), 1);
    }
    EXPECT_GT(ended_badly, 0);
    EXPECT_EQ(lost.word(), "peer_lost");
    EXPECT_EQ(gone, peer.address());
    EXPECT_EQ(a.engine->write(to(a, peer), {}).error().code, ErrorCode::peer_lost);
    // The others notice nothing.
    Outcome fine;
    Write write = to(a, peer);
    write.peer = other.address();
    write.target = other.key();
    ASSERT_TRUE(a.engine->write(write, fine.done()));
    EXPECT_EQ(fine.word(), "ok");
  }
}

TEST_P(Processes, AKilledWriterHarmsNobody) {
  for (int round = 0; round < 5; ++round) {
    std::atomic<int> lost{0};
    Side a = side(kBytes);
    a.engine->on_peer_lost([&](const PeerAddress&, const Error&) { ++lost; });
    auto peer = std::make_unique<PeerProcess>(GetParam(), kBytes);
    PeerProcess survivor(GetParam(), kBytes);
    auto flooded = a.engine->make_counter(), written = a.engine->make_counter();
    auto named = [](const Counter& counter) {
      return fmt::format("{} {} {}", counter.id().slot, counter.id().generation, counter.id().epoch);
    };
    peer->say(fmt::format("flood 65536 {} {}", hex(a), named(*flooded)));
    ASSERT_TRUE(eventually([&] { return flooded->arrived() > 100; }));
    peer->kill_dead();
    EXPECT_TRUE(eventually([&] { return lost == 1; }));
    EXPECT_EQ(survivor.ask(fmt::format("write 5 {} {} {}", kBytes, hex(a), named(*written))), "ok");
    EXPECT_TRUE(eventually([&] { return written->arrived() == 1; }));
    EXPECT_TRUE(filled(a.bytes(), 5));
    EXPECT_EQ(lost, 1);
  }
}

TEST_P(Processes, WhatWasWrittenBeforeTheEndCounts) {
  Side a = side(kBytes);
  auto counter = a.engine->make_counter();
  for (int round = 1; round <= 5; ++round) {
    auto peer = std::make_unique<PeerProcess>(GetParam(), kBytes);
    ASSERT_EQ(peer->ask(fmt::format("write 6 {} {} {} {} {}", kBytes, hex(a), counter->id().slot,
                                    counter->id().generation, counter->id().epoch)),
              "ok");
    peer->kill_dead();
    Outcome counted;
    ASSERT_TRUE(counter->expect(round, soon(), counted.done()));
    EXPECT_EQ(counted.word(), "ok");
  }
}

TEST_P(Processes, AStoppedPeerIsLostAtTheHeartbeatLimit) {
  Side a = side(kBytes, watchful());
  PeerProcess peer(GetParam(), kBytes);
  Outcome lost;
  a.engine->on_peer_lost([done = lost.done()](const PeerAddress&, const Error& why) { done(pass(why)); });
  Outcome connected;
  ASSERT_TRUE(a.engine->connect(peer.address(), connected.done()));
  ASSERT_EQ(connected.word(), "ok");
  peer.stop();
  std::vector<Outcome> outcomes(64);
  for (auto& outcome : outcomes) ASSERT_TRUE(a.engine->write(to(a, peer), outcome.done()));
  Outcome message;
  ASSERT_TRUE(a.engine->send(peer.address(), a.bytes().first(100), message.done()));
  EXPECT_EQ(lost.word(), "peer_lost");
  EXPECT_EQ(message.word(), "peer_lost");
  for (auto& outcome : outcomes) {
    // Shared memory needs no help from the reader.
    const std::string word = outcome.word();
    EXPECT_TRUE(word == "peer_lost" || (word == "ok" && plain_fabric(GetParam()) == "shm")) << word;
  }
  // It comes back and finds itself forgotten; a new connection is welcome.
  peer.kill(SIGCONT);
  EXPECT_TRUE(eventually([&] { return peer.ask("lost") == "1"; }));
  Outcome again;
  ASSERT_TRUE(a.engine->connect(peer.address(), again.done()));
  EXPECT_EQ(again.word(), "ok");
  fill(a.bytes(), 8);
  Outcome fine;
  ASSERT_TRUE(a.engine->write(to(a, peer), fine.done()));
  EXPECT_EQ(fine.word(), "ok");
  EXPECT_EQ(peer.ask("filled 8 " + std::to_string(kBytes)), "yes");
}

// The writer stands still in the middle of megabytes, and finds itself forgotten when it goes on.
TEST_P(Processes, AStoppedWriterWritesNothingMoreOnceItWasLost) {
  EngineOptions options = watchful();
  options.heartbeat_interval = std::chrono::milliseconds(50);
  options.heartbeat_limit = std::chrono::milliseconds(600);
  for (int round = 0; round < 3; ++round) {
    Side a = side(kBytes, options);
    PeerProcess peer(GetParam(), kBytes);
    Outcome lost;
    a.engine->on_peer_lost([done = lost.done()](const PeerAddress&, const Error& why) { done(pass(why)); });
    auto counter = a.engine->make_counter(), later = a.engine->make_counter();
    auto named = [](const Counter& each) {
      return fmt::format("{} {} {}", each.id().slot, each.id().generation, each.id().epoch);
    };
    peer.say(fmt::format("flood {} {} {}", kBytes, hex(a), named(*counter)));
    ASSERT_TRUE(eventually([&] { return counter->arrived() > static_cast<std::uint64_t>(3 + 2 * round); }));
    peer.stop();
    ASSERT_EQ(lost.word(), "peer_lost");
    fill(a.bytes(), 9);
    const std::uint64_t arrived = counter->arrived();
    peer.kill(SIGCONT);
    ASSERT_TRUE(eventually([&] { return peer.ask("lost") == "1"; }));
    Outcome again;
    ASSERT_TRUE(a.engine->connect(peer.address(), again.done()));
    ASSERT_EQ(again.word(), "ok");
    // Both have done a lot since.
    ASSERT_EQ(peer.ask(fmt::format("write 9 8 {} {}", hex(a), named(*later))), "ok");
    ASSERT_TRUE(eventually([&] { return later->arrived() == 1; }));
    EXPECT_TRUE(filled(a.bytes(), 9));
    EXPECT_EQ(counter->arrived(), arrived);
  }
}

TEST_P(Processes, ARestartedPeerHasANewEpoch) {
  Side a = side(kBytes);
  auto peer = std::make_unique<PeerProcess>(GetParam(), kBytes);
  const PeerAddress old_address = peer->address();
  const RegionKey old_key = peer->key();
  Outcome connected, lost;
  a.engine->on_peer_lost([done = lost.done()](const PeerAddress&, const Error& why) { done(pass(why)); });
  ASSERT_TRUE(a.engine->connect(old_address, connected.done()));
  ASSERT_EQ(connected.word(), "ok");
  peer->kill_dead();
  ASSERT_EQ(lost.word(), "peer_lost");
  // The port is another engine's now.
  EngineOptions same_port;
  same_port.control_port = old_address.control_port;
  Side restarted = side(kBytes, same_port);
  Write write = to(a, *peer);
  EXPECT_EQ(a.engine->write(write, {}).error().code, ErrorCode::peer_lost);
  Outcome refused;
  ASSERT_TRUE(a.engine->connect(old_address, refused.done()));
  EXPECT_EQ(refused.word(), "denied");
  write.peer = restarted.address();
  EXPECT_EQ(a.engine->write(write, {}).error().code, ErrorCode::denied) << "an old key";
  write.target = restarted.key();
  Outcome fine;
  ASSERT_TRUE(a.engine->write(write, fine.done()));
  EXPECT_EQ(fine.word(), "ok");
}

TEST_P(Processes, DestroyedWithOperationsInFlightToAStoppedPeer) {
  PeerProcess peer(GetParam(), kBytes);
  std::vector<Outcome> outcomes(64);
  {
    Side a = side(kBytes);
    Outcome connected;
    ASSERT_TRUE(a.engine->connect(peer.address(), connected.done()));
    ASSERT_EQ(connected.word(), "ok");
    peer.stop();
    for (auto& outcome : outcomes) ASSERT_TRUE(a.engine->write(to(a, peer), outcome.done()));
  }
  for (auto& outcome : outcomes) EXPECT_TRUE(outcome.ready());
}

TEST_P(Processes, DeadlinesExpireOnAStoppedPeer) {
  if (plain_fabric(GetParam()) == "shm") GTEST_SKIP() << "a stopped reader does not stop its writers";
  PeerProcess peer(GetParam(), kBytes);
  Side a = side(kBytes);
  Outcome connected;
  ASSERT_TRUE(a.engine->connect(peer.address(), connected.done()));
  ASSERT_EQ(connected.word(), "ok");
  peer.stop();
  std::vector<Outcome> outcomes(16), drained(16);
  for (std::size_t i = 0; i < outcomes.size(); ++i) {
    Write write = to(a, peer);
    write.options.deadline = monotonic_now() + std::chrono::milliseconds(10);
    auto transfer = a.engine->write(write, outcomes[i].done());
    ASSERT_TRUE(transfer);
    EXPECT_EQ(outcomes[i].word(), "timed_out");
    transfer->cancel(drained[i].plain());
  }
  peer.kill(SIGCONT);
  for (auto& outcome : drained) EXPECT_EQ(outcome.word(), "ok");
}

}  // namespace
}  // namespace switchyard::testing
