// Many peers of one engine: they come at once, write, send, and leave; their places are used again.
#include <atomic>

#include "base/system_limits.h"
#include "transfer/support.h"

namespace switchyard::testing {
namespace {

// Sanitizers make a handshake, of which one thread does them all, many times as long.
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
constexpr std::size_t kPeers = 48;
#else
constexpr std::size_t kPeers = 256;
#endif
constexpr std::size_t kBytes = 64;
constexpr std::uint64_t kDescriptorsPerPeer = 24;

EngineOptions small() {
  EngineOptions options;
  options.max_transfers = 16;
  options.max_counters = 4;
  options.max_peers = 2;
  options.message_slots = 4;
  // With so many threads on few cores nobody is lost because others had their turn.
  options.heartbeat_interval = std::chrono::seconds(5);
  options.heartbeat_limit = kPatience;
  options.connect_limit = kPatience;
  options.stall_limit = kPatience / 6;  // a path that was not joined is tried again in time
  return options;
}

class Crowd : public OnFabric {};
INSTANTIATE_TEST_SUITE_P(All, Crowd, ::testing::Values("shm", "shm+key", "net", "net+tls"), fabric_name);

TEST_P(Crowd, ConnectsWritesAndLeaves) {
  if (const std::uint64_t limit = raise_descriptor_limit(); limit < kPeers * kDescriptorsPerPeer) {
    GTEST_SKIP() << "a process may open " << limit << " files here; " << kPeers * kDescriptorsPerPeer
                 << " are needed (ulimit -Hn)";
  }
  EngineOptions options = small();
  options.max_peers = kPeers;
  options.max_counters = 16;
  Side home = side(kPeers * kBytes, options);
  std::atomic<std::size_t> messages{0};
  home.engine->on_message([&](const PeerAddress&, std::span<const std::byte>) { ++messages; });
  for (std::size_t round = 1; round <= 2; ++round) {
    auto counter = home.engine->make_counter().value();
    Outcome all;
    ASSERT_TRUE(counter.expect(kPeers, soon(), all.done()));
    std::vector<Side> peers;
    std::vector<Outcome> written(kPeers), sent(kPeers);
    for (std::size_t i = 0; i < kPeers; ++i) peers.push_back(side(kBytes, small()));
    for (std::size_t i = 0; i < kPeers; ++i) {
      fill(peers[i].bytes(), round * 1000 + i);
      Write write;
      write.source = peers[i].region;
      write.peer = home.address();
      write.target = home.key();
      write.target_offset = i * kBytes;
      write.bytes = kBytes;
      write.options.counter = counter.id();
      ASSERT_TRUE(peers[i].engine->write(write, written[i].done()));
      ASSERT_TRUE(peers[i].engine->send(home.address(), peers[i].bytes(), sent[i].done()));
    }
    ASSERT_EQ(all.word(), "ok");
    for (std::size_t i = 0; i < kPeers; ++i) {
      EXPECT_EQ(written[i].word(), "ok") << i;
      EXPECT_EQ(sent[i].word(), "ok") << i;
      EXPECT_TRUE(filled(home.bytes().subspan(i * kBytes, kBytes), round * 1000 + i)) << i;
    }
    EXPECT_EQ(counter.arrived(), kPeers);
    EXPECT_EQ(messages, round * kPeers);
    EXPECT_EQ(home.engine->metrics().peers_connected, kPeers);
    peers.clear();
    EXPECT_TRUE(eventually([&] { return home.engine->metrics().peers_connected == 0; }));
    EXPECT_EQ(home.engine->metrics().peers_lost, round * kPeers);
  }
}

}  // namespace
}  // namespace switchyard::testing
