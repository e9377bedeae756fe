// What the contract leaves open, on RDMA devices: errors, full queues, lost peers and ports. Runs on the
// first two devices that this machine has; tests/softroce/check gives it some.
#include <gtest/gtest.h>
#include <poll.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <map>

#include "base/log.h"
#include "fabric/fabric.h"
#include "fabric/rail_spec.h"
#include "switchyard/time.h"

namespace switchyard::fabric {
namespace {

std::vector<std::string> first_devices() {
  auto devices = list_devices("verbs");
  if (devices.size() > 2) devices.resize(2);
  return devices;
}

// A rail with some memory, and what its polls have handed out.
struct Side {
  explicit Side(const std::string& device) : bytes(1 << 20) {
    auto opened = open_fabric("verbs", {.device = device});
    if (!opened) return;
    rail = *opened;
    memory = std::move(*rail->register_memory({bytes.data(), bytes.size()}));
  }
  void poll() {
    std::array<Completion, 16> some;
    for (std::size_t i = 0, n = rail->poll(some); i < n; ++i) {
      if (some[i].kind == Completion::Kind::arrived) {
        arrived.push_back(some[i].immediate);
      } else {
        ++finished[some[i].cookie];
        if (some[i].kind == Completion::Kind::failed) failed[some[i].cookie] = some[i];
      }
    }
  }

  std::vector<std::byte> bytes;
  std::shared_ptr<Fabric> rail;
  std::unique_ptr<LocalMemory> memory;
  std::map<std::uint64_t, int> finished;
  std::map<std::uint64_t, Completion> failed;
  std::vector<std::uint32_t> arrived;
};

struct Path {
  PeerId here = 0, there = 0;
};

Path connect(Side& from, Side& to) {
  auto here = from.rail->add_peer(to.rail->address()), there = to.rail->add_peer(from.rail->address());
  EXPECT_TRUE(here && there);
  EXPECT_TRUE(from.rail->connect_peer(here->peer, there->token));
  EXPECT_TRUE(to.rail->connect_peer(there->peer, here->token));
  return {here->peer, there->peer};
}

void disconnect(Side& from, Side& to, const Path& path) {
  from.rail->remove_peer(path.here);
  to.rail->remove_peer(path.there);
}

WriteRequest write(const Side& from, const Side& to, std::uint64_t bytes, std::uint64_t cookie) {
  return {.source = from.bytes.data(),
          .source_memory = from.memory.get(),
          .bytes = bytes,
          .target_address = to.memory->remote_address(),
          .target_key = to.memory->remote_key(),
          .cookie = cookie};
}

WriteRequest signal(std::uint32_t immediate, std::uint64_t cookie) {
  return {.has_immediate = true, .immediate = immediate, .cookie = cookie};
}

// Polls all sides until it is true; false when that takes too long.
template <class Condition>
bool drive(std::initializer_list<Side*> sides, Condition&& condition) {
  for (const TimePoint deadline = monotonic_now() + std::chrono::seconds(20); !condition();) {
    if (monotonic_now() > deadline) return false;
    for (Side* side : sides) side->poll();
  }
  return true;
}

class Verbs : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    spdlog::set_level(spdlog::level::off);
    ASSERT_TRUE(a_.rail && b_.rail);
    path_ = connect(a_, b_);
  }
  void post(const WriteRequest& request) { ASSERT_EQ(a_.rail->post(path_.here, {&request, 1}), 1u); }
  bool finish(std::uint64_t cookie) {
    return drive({&a_, &b_}, [&] { return a_.finished.contains(cookie); });
  }
  void expect_path_works(std::uint64_t cookie) {
    WriteRequest request = write(a_, b_, 1000, cookie);
    request.has_immediate = true;
    request.immediate = static_cast<std::uint32_t>(cookie);
    post(request);
    EXPECT_TRUE(drive({&a_, &b_}, [&] {
      return a_.finished.contains(cookie) && !b_.arrived.empty() && b_.arrived.back() == request.immediate;
    }));
    EXPECT_FALSE(a_.failed.contains(cookie));
  }

  Side a_{GetParam()}, b_{list_devices("verbs").back()};
  Path path_;
};

GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(Verbs);
INSTANTIATE_TEST_SUITE_P(Devices, Verbs, ::testing::ValuesIn(first_devices()),
                         [](const auto& device) { return readable(device.param); });

TEST_P(Verbs, AWrongKeyIsRefusedAndEndsThePathUntilItIsMadeAgain) {
  WriteRequest wrong = write(a_, b_, 64, 2);
  wrong.target_key ^= 0x5500;
  const std::array requests = {write(a_, b_, 64, 1), wrong, write(a_, b_, 64, 3), write(a_, b_, 300, 4)};
  ASSERT_EQ(a_.rail->post(path_.here, requests), 4u);
  ASSERT_TRUE(drive({&a_, &b_}, [&] { return a_.finished.size() == 4; }));
  EXPECT_FALSE(a_.failed.contains(1));
  EXPECT_TRUE(a_.failed.at(2).refused);
  EXPECT_NE(a_.rail->describe_error(a_.failed.at(2).error).find("key"), std::string::npos);
  EXPECT_FALSE(a_.failed.at(3).refused);
  EXPECT_FALSE(a_.failed.at(4).refused);
  // What is posted on it from now on fails as well, each write once.
  for (std::uint64_t cookie = 5; cookie < 8; ++cookie) post(write(a_, b_, 64, cookie));
  ASSERT_TRUE(finish(7));
  EXPECT_EQ(a_.failed.size(), 6u);
  for (const auto& [cookie, times] : a_.finished) EXPECT_EQ(times, 1) << cookie;

  disconnect(a_, b_, path_);
  path_ = connect(a_, b_);
  expect_path_works(8);
  EXPECT_TRUE(a_.rail->healthy() && b_.rail->healthy());
}

TEST_P(Verbs, WritesOutsideOfARegionOrIntoOneThatIsGoneAreRefused) {
  WriteRequest outside = write(a_, b_, 64, 1);
  outside.target_address += b_.bytes.size() - 63;
  post(outside);
  ASSERT_TRUE(finish(1));
  EXPECT_TRUE(a_.failed.at(1).refused);
  disconnect(a_, b_, path_);
  path_ = connect(a_, b_);
  const WriteRequest into_the_past = write(a_, b_, 64, 2);
  b_.memory.reset();
  post(into_the_past);
  ASSERT_TRUE(finish(2));
  EXPECT_TRUE(a_.failed.at(2).refused);
}

TEST_P(Verbs, WritesToARailThatIsGoneFail) {
  expect_path_works(1);
  b_.rail->close();
  post(write(a_, b_, 64, 2));
  ASSERT_TRUE(drive({&a_}, [&] { return a_.finished.contains(2); }));
  EXPECT_FALSE(a_.failed.at(2).refused);
  EXPECT_FALSE(a_.rail->describe_error(a_.failed.at(2).error).empty());
}

TEST_P(Verbs, TenThousandImmediatesOfThreePathsArriveInTheOrderOfEach) {
  constexpr std::uint32_t kPaths = 3, kEach = 3334, kAtOnce = 40;
  std::vector<Path> paths = {path_, connect(a_, b_), connect(a_, b_)};
  std::array<std::uint32_t, kPaths> posted{};
  ASSERT_TRUE(drive({&a_, &b_}, [&] {
    for (std::uint32_t path = 0; path < kPaths; ++path) {
      std::vector<WriteRequest> requests;
      for (std::uint32_t i = posted[path]; i < std::min(kEach, posted[path] + kAtOnce); ++i)
        requests.push_back(signal(path << 16 | i, path << 16 | i));
      posted[path] += static_cast<std::uint32_t>(a_.rail->post(paths[path].here, requests));
    }
    return a_.finished.size() == kPaths * kEach && b_.arrived.size() == kPaths * kEach;
  }));
  EXPECT_TRUE(a_.failed.empty());
  std::array<std::uint32_t, kPaths> next{};
  for (const std::uint32_t immediate : b_.arrived) {
    ASSERT_LT(immediate >> 16, kPaths);
    ASSERT_EQ(immediate & 0xffff, next[immediate >> 16]++);
  }
}

TEST_P(Verbs, FullQueuesPushBackAndLoseNothing) {
  const std::uint32_t limit = a_.rail->capabilities().max_outstanding;
  std::vector<Path> paths{path_};
  for (int i = 0; i < 15; ++i) paths.push_back(connect(a_, b_));
  // Nobody polls: everything fills up.
  std::uint64_t posted = 0;
  for (std::size_t full = 0; full < paths.size();) {
    full = 0;
    for (const Path& path : paths) {
      const WriteRequest request = signal(static_cast<std::uint32_t>(posted), posted);
      if (a_.rail->post(path.here, {&request, 1}) == 1)
        ++posted;
      else
        ++full;
    }
  }
  EXPECT_LE(posted, limit);
  ASSERT_TRUE(drive({&a_, &b_}, [&] { return a_.finished.size() == posted && b_.arrived.size() == posted; }));
  EXPECT_TRUE(a_.failed.empty());
  EXPECT_TRUE(a_.rail->healthy() && b_.rail->healthy());
  expect_path_works(posted);
}

TEST_P(Verbs, RemovedPathsGiveBackTheirRoom) {
  const std::uint32_t limit = a_.rail->capabilities().max_outstanding;
  std::vector<WriteRequest> requests;
  for (std::uint32_t i = 0; i < 100; ++i) requests.push_back(write(a_, b_, 8, i));
  for (std::uint32_t posted = 0; posted <= 2 * limit;) {
    const std::size_t taken = a_.rail->post(path_.here, requests);
    ASSERT_GT(taken, 0u);
    posted += static_cast<std::uint32_t>(taken);
    disconnect(a_, b_, path_);
    path_ = connect(a_, b_);
    a_.poll();
  }
  ASSERT_TRUE(drive({&a_, &b_}, [&] {
    const std::size_t before = a_.finished.size();
    a_.poll();
    return a_.finished.size() == before;
  }));
  expect_path_works(1'000'000);
}

TEST_P(Verbs, WhatHasLandedIsReportedAfterThePathIsRemoved) {
  for (std::uint32_t i = 0; i < 50; ++i) post(signal(i, i));
  ASSERT_TRUE(drive({&a_}, [&] { return a_.finished.size() == 50; }));
  disconnect(a_, b_, path_);
  b_.poll();
  ASSERT_TRUE(drive({&b_}, [&] { return b_.arrived.size() == 50; }));
}

TEST_P(Verbs, SleepsUntilSomethingComes) {
  expect_path_works(1);
  ASSERT_TRUE(drive({&b_}, [&] { return b_.rail->prepare_sleep(); }));
  pollfd bell{.fd = b_.rail->wait_fd(), .events = POLLIN};
  EXPECT_EQ(::poll(&bell, 1, 0), 0);
  for (std::uint32_t round = 2; round < 5; ++round) {
    post(signal(round, round));
    ASSERT_EQ(::poll(&bell, 1, 20'000), 1);
    ASSERT_TRUE(drive({&b_}, [&] { return b_.arrived.back() == round; }));
    ASSERT_TRUE(drive({&a_, &b_}, [&] { return b_.rail->prepare_sleep(); }));
    EXPECT_EQ(::poll(&bell, 1, 0), 0);
  }
}

TEST_P(Verbs, TokensOfSomethingElseAreRefused) {
  auto end = a_.rail->add_peer(b_.rail->address());
  ASSERT_TRUE(end);
  std::vector<std::byte> token = end->token;
  EXPECT_EQ(a_.rail->connect_peer(end->peer, {}).error().code, ErrorCode::corrupt);
  EXPECT_EQ(a_.rail->connect_peer(end->peer, std::span(token).first(token.size() - 1)).error().code,
            ErrorCode::corrupt);
  token[4] ^= std::byte{1};  // the version
  EXPECT_EQ(a_.rail->connect_peer(end->peer, token).error().code, ErrorCode::corrupt);
  EXPECT_EQ(a_.rail->connect_peer(100'000, end->token).error().code, ErrorCode::invalid);
  EXPECT_EQ(a_.rail->add_peer(end->token).error().code, ErrorCode::corrupt);
}

TEST_P(Verbs, PortsAndGidsAreChosenByName) {
  const std::string name = GetParam().substr(0, GetParam().find(':'));
  EXPECT_TRUE(open_fabric("verbs", {.device = name + ":1"}));
  EXPECT_EQ(open_fabric("verbs", {.device = name + ":9"}).error().code, ErrorCode::unsupported);
  EXPECT_EQ(open_fabric("verbs", {.device = name + ":1:200"}).error().code, ErrorCode::unsupported);
}

TEST_P(Verbs, APortThatIsDownIsNotHealthy) {
  if (std::getenv("SWITCHYARD_SOFTROCE") == nullptr) GTEST_SKIP() << "takes ports down only in a guest";
  const std::string port = "eth" + GetParam().substr(3);
  ASSERT_TRUE(a_.rail->healthy());
  ASSERT_EQ(std::system(("ip link set " + port + " down").c_str()), 0);
  EXPECT_TRUE(drive({&a_}, [&] { return !a_.rail->healthy(); }));
  EXPECT_EQ(open_fabric("verbs", {.device = GetParam()}).error().code, ErrorCode::unsupported);
  ASSERT_EQ(std::system(("ip link set " + port + " up").c_str()), 0);
  EXPECT_TRUE(drive({&a_}, [&] { return a_.rail->healthy(); }));
  disconnect(a_, b_, path_);
  path_ = connect(a_, b_);
  expect_path_works(1);
}

TEST(VerbsDevices, NamesThatMakeNoSenseAreInvalid) {
  for (const char* name :
       {":1", "mlx5_0:", "mlx5_0:0", "mlx5_0:x", "mlx5_0:1:", "mlx5_0:1:-1", "mlx5_0:1:2:3"})
    EXPECT_EQ(open_fabric("verbs", {.device = name}).error().code, ErrorCode::invalid) << name;
}

TEST(VerbsDevices, OneThatIsNotThereIsUnsupported) {
  const auto missing = open_fabric("verbs", {.device = "no_such_device"});
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code, ErrorCode::unsupported);
}

}  // namespace
}  // namespace switchyard::fabric
