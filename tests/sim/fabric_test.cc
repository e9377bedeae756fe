// The simulated rail keeps the contract of fabric/fabric.h, and is as unkind as that allows.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <map>

#include "sim/sim_fabric.h"

namespace switchyard::sim {
namespace {

using fabric::Completion;
using fabric::WriteRequest;
using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::seconds;

class SimRails : public ::testing::TestWithParam<bool> {
 protected:
  SimRails() : network_(7) {
    port_.ordered = GetParam();
    port_.jitter = microseconds(10);
    for (int i = 0; i < 2; ++i) {
      const HostId host = network_.add_host({port_});
      process_[i] = network_.add_process(host);
      rail_[i] = SimFabric::open(network_, process_[i], 0);
      memory_[i].resize(1 << 20);
      region_[i] = *rail_[i]->register_memory({memory_[i].data(), memory_[i].size()});
    }
    for (std::size_t i = 0; i < memory_[0].size(); ++i)
      memory_[0][i] = static_cast<std::byte>(i * 7 + i / 251);
    connect();
  }
  void connect() {
    auto a = rail_[0]->add_peer(rail_[1]->address()), b = rail_[1]->add_peer(rail_[0]->address());
    ASSERT_TRUE(a && b);
    ASSERT_TRUE(rail_[0]->connect_peer(a->peer, b->token));
    ASSERT_TRUE(rail_[1]->connect_peer(b->peer, a->token));
    peer_[0] = a->peer;
    peer_[1] = b->peer;
  }
  WriteRequest request(std::uint64_t offset, std::uint64_t bytes, std::uint64_t cookie) {
    return {.source = memory_[0].data() + offset,
            .source_memory = region_[0].get(),
            .bytes = bytes,
            .target_address = region_[1]->remote_address() + offset,
            .target_key = region_[1]->remote_key(),
            .cookie = cookie};
  }
  void poll() {
    std::array<Completion, 16> completions;
    for (std::size_t n; (n = rail_[0]->poll(completions)) != 0;) {
      for (std::size_t i = 0; i < n; ++i) {
        auto& where = completions[i].kind == Completion::Kind::failed ? failed_ : delivered_;
        ++where[completions[i].cookie];
        refused_ += completions[i].refused;
      }
    }
    for (std::size_t n; (n = rail_[1]->poll(completions)) != 0;) {
      for (std::size_t i = 0; i < n; ++i) arrived_.push_back(completions[i].immediate);
    }
  }
  void run(Nanos time) {
    const TimePoint end = network_.now() + time;
    while (network_.next_event() <= end) {
      network_.advance(network_.next_event());
      poll();
    }
    network_.advance(end);
  }
  void drive(std::span<const WriteRequest> requests) {
    while (!requests.empty()) {
      requests = requests.subspan(rail_[0]->post(peer_[0], requests));
      run(microseconds(10));
    }
    run(seconds(10));
  }
  bool same(std::uint64_t offset, std::uint64_t bytes) const {
    return std::memcmp(memory_[0].data() + offset, memory_[1].data() + offset, bytes) == 0;
  }

  PortOptions port_;
  std::vector<std::byte> memory_[2];
  Network network_;
  ProcessId process_[2];
  std::shared_ptr<SimFabric> rail_[2];
  std::unique_ptr<fabric::LocalMemory> region_[2];
  fabric::PeerId peer_[2] = {0, 0};
  std::map<std::uint64_t, std::size_t> delivered_, failed_;
  std::vector<std::uint32_t> arrived_;
  std::size_t refused_ = 0;
};

INSTANTIATE_TEST_SUITE_P(Both, SimRails, ::testing::Values(false, true),
                         [](const auto& kind) { return kind.param ? "ordered" : "unordered"; });

TEST_P(SimRails, EveryWriteCompletesOnceAndEveryImmediateArrivesOnce) {
  std::vector<WriteRequest> requests;
  std::vector<std::uint32_t> sent;
  for (std::uint32_t i = 0; i < 1000; ++i) {
    requests.push_back(request(i * 1000, i % 3 == 0 ? i * 20 : i, i));
    if (i % 3 != 0) continue;
    requests.back().has_immediate = true;
    requests.back().immediate = i;
    sent.push_back(i);
  }
  drive(requests);
  if (GetParam()) {
    EXPECT_EQ(arrived_, sent);
  } else {
    EXPECT_NE(arrived_, sent) << "a rail without order should not keep it";
  }
  std::sort(arrived_.begin(), arrived_.end());
  EXPECT_EQ(arrived_, sent);
  EXPECT_TRUE(failed_.empty());
  EXPECT_EQ(delivered_.size(), 1000u);
  for (const auto& [cookie, times] : delivered_) EXPECT_EQ(times, 1u);
  for (const WriteRequest& each : requests)
    ASSERT_TRUE(same(each.target_address - region_[1]->remote_address(), each.bytes));
  EXPECT_FALSE(network_.violation());
  EXPECT_EQ(rail_[0]->pending(), 0u);
}

TEST_P(SimRails, TakesNoMoreThanItHasRoomFor) {
  std::vector<WriteRequest> requests(port_.max_outstanding + 10, request(0, 8, 1));
  EXPECT_EQ(rail_[0]->post(peer_[0], requests), port_.max_outstanding);
  EXPECT_EQ(rail_[0]->post(peer_[0], requests), 0u);
  run(seconds(1));
  EXPECT_EQ(delivered_[1], port_.max_outstanding);
  EXPECT_EQ(rail_[0]->post(peer_[0], requests), port_.max_outstanding);
}

TEST_P(SimRails, AKeyThatIsNotValidIsRefused) {
  const WriteRequest write = request(0, 100, 1);
  region_[1].reset();
  drive(std::array{write});
  EXPECT_EQ(failed_[1], 1u);
  EXPECT_EQ(refused_, 1u);
  EXPECT_FALSE(same(0, 100));
}

TEST_P(SimRails, WhatTheContractForbidsIsReported) {
  network_.advance(network_.now() + seconds(1));
  rail_[0]->post(peer_[0], std::array{request(0, 1 << 20, 1)});
  network_.advance(network_.now() + microseconds(3));
  EXPECT_FALSE(network_.violation());
  region_[0].reset();
  ASSERT_TRUE(network_.violation());
}

TEST_P(SimRails, ACutRailCompletesWhatItCanAndLetsNothingLandAfterBothEndsAreGone) {
  int landed_after_failure = 0, hung = 0, lost_acks = 0, late_deliveries = 0;
  for (int round = 0; round < 300; ++round) {
    std::fill(memory_[1].begin(), memory_[1].end(), std::byte{0});
    delivered_.clear();
    failed_.clear();
    arrived_.clear();
    std::vector<WriteRequest> requests;
    for (std::uint32_t i = 0; i < 8; ++i) {
      requests.push_back(request(i * 100'000, 40'000, i));
      requests.back().has_immediate = true;
      requests.back().immediate = i;
    }
    ASSERT_EQ(rail_[0]->post(peer_[0], requests), 8u);
    run(network_.random().duration(Nanos(1), microseconds(35)));
    network_.cut(1, 0, false);
    run(network_.random().duration(Nanos(1), milliseconds(20)));
    network_.restore(1, 0);
    run(milliseconds(network_.random().below(300)));
    std::size_t missing = 0;
    for (std::uint32_t i = 0; i < 8; ++i) {
      ASSERT_LE(delivered_[i] + failed_[i], 1u);
      if (delivered_[i] != 0) {
        ASSERT_TRUE(same(i * 100'000, 40'000));
      }
      const bool arrived = std::find(arrived_.begin(), arrived_.end(), i) != arrived_.end();
      if (arrived) {
        ASSERT_TRUE(same(i * 100'000, 40'000));
      }
      lost_acks += arrived && delivered_[i] == 0;
      missing += delivered_[i] + failed_[i] == 0;
    }
    hung += missing != 0;
    auto before = memory_[1];
    rail_[0]->remove_peer(peer_[0]);
    run(milliseconds(network_.random().below(20)));
    landed_after_failure += before != memory_[1];
    rail_[1]->remove_peer(peer_[1]);
    before = memory_[1];
    const std::size_t completions = delivered_.size();
    run(seconds(2));
    late_deliveries += delivered_.size() != completions;
    ASSERT_TRUE(before == memory_[1]);
    ASSERT_EQ(rail_[0]->pending(), 0u);
    connect();
  }
  EXPECT_FALSE(network_.violation());
  EXPECT_GT(hung, 0);
  EXPECT_GT(lost_acks, 0);
  if (!GetParam()) {
    EXPECT_GT(landed_after_failure, 0);
  }
}

TEST_P(SimRails, TheSameSeedGivesTheSameRun) {
  std::uint64_t hashes[2];
  for (std::uint64_t& hash : hashes) {
    Network network(3);
    ProcessId process[2];
    std::shared_ptr<SimFabric> rail[2];
    std::vector<std::byte> memory(1 << 16);
    for (int i = 0; i < 2; ++i) {
      process[i] = network.add_process(network.add_host({port_}));
      rail[i] = SimFabric::open(network, process[i], 0);
    }
    auto region = *rail[0]->register_memory({memory.data(), memory.size()});
    auto target = *rail[1]->register_memory({memory.data(), memory.size()});
    auto a = *rail[0]->add_peer(rail[1]->address()), b = *rail[1]->add_peer(rail[0]->address());
    ASSERT_TRUE(rail[0]->connect_peer(a.peer, b.token));
    const WriteRequest write{.source = memory.data(),
                             .source_memory = region.get(),
                             .bytes = 1 << 15,
                             .target_address = target->remote_address() + (1 << 15),
                             .target_key = target->remote_key()};
    rail[0]->post(a.peer, std::array{write, write, write});
    network.advance(network.now() + microseconds(5));
    network.cut(0, 0, true);
    EXPECT_FALSE(rail[0]->healthy());
    network.advance(network.now() + seconds(5));
    hash = network.trace().hash();
  }
  EXPECT_EQ(hashes[0], hashes[1]);
}

TEST_P(SimRails, BytesTakeTheirTime) {
  const TimePoint start = network_.now();
  std::vector<WriteRequest> requests(100, request(0, 125'000, 1));
  rail_[0]->post(peer_[0], requests);
  while (delivered_[1] != 100) {
    network_.advance(network_.next_event());
    poll();
  }
  // 12.5 MB at 12.5 GB/s, a round trip and the longest jitter.
  EXPECT_GE(network_.now() - start, microseconds(1000));
  EXPECT_LE(network_.now() - start, microseconds(1020));
}

}  // namespace
}  // namespace switchyard::sim
