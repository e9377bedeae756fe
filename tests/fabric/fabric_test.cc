// The contract of a rail (fabric/fabric.h), on every backend: two rails of one process, driven by one thread.
#include "fabric/fabric.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <map>

#include "base/log.h"
#include "fabric/rail_spec.h"
#include "switchyard/time.h"

namespace switchyard::fabric {
namespace {

class Rails : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    spdlog::set_level(spdlog::level::off);
    auto a = open_rail(GetParam(), 0), b = open_rail(GetParam(), 1);
    if (!a || !b) GTEST_SKIP() << (a ? b : a).error().message;
    a_ = *a;
    b_ = *b;
    target_.resize(1 << 20);
    source_.resize(1 << 20);
    for (std::size_t i = 0; i < source_.size(); ++i) source_[i] = static_cast<std::byte>(i * 7 + i / 251);
    from_ = std::move(*a_->register_memory({source_.data(), source_.size()}));
    to_ = std::move(*b_->register_memory({target_.data(), target_.size()}));
    connect();
  }
  // A path in both directions.
  void connect() {
    auto at_a = a_->add_peer(b_->address()), at_b = b_->add_peer(a_->address());
    ASSERT_TRUE(at_a && at_b) << (at_a ? at_b : at_a).error().message;
    ASSERT_TRUE(b_->connect_peer(at_b->peer, at_a->token));
    ASSERT_TRUE(a_->connect_peer(at_a->peer, at_b->token));
    peer_ = at_a->peer;
    peer_at_b_ = at_b->peer;
  }
  WriteRequest request(std::uint64_t offset, std::uint64_t bytes, std::uint64_t cookie) {
    return {.source = source_.data() + offset,
            .source_memory = from_.get(),
            .bytes = bytes,
            .target_address = to_->remote_address() + offset,
            .target_key = to_->remote_key(),
            .cookie = cookie};
  }
  // Posts everything and polls both sides until so many writes are complete and so many immediates have come.
  void drive(std::vector<WriteRequest> requests, std::size_t immediates) {
    const TimePoint deadline = monotonic_now() + std::chrono::seconds(30);
    std::size_t posted = 0, complete = 0;
    std::array<Completion, 16> completions;
    while (complete < requests.size() || arrived_.size() < immediates) {
      ASSERT_LT(monotonic_now(), deadline);
      if (posted < requests.size()) posted += a_->post(peer_, std::span(requests).subspan(posted));
      for (std::size_t i = 0, n = a_->poll(completions); i < n; ++i) {
        ASSERT_NE(completions[i].kind, Completion::Kind::arrived);
        ++complete;
        (completions[i].kind == Completion::Kind::failed ? failed_ : delivered_)[completions[i].cookie] += 1;
      }
      for (std::size_t i = 0, n = b_->poll(completions); i < n; ++i) {
        ASSERT_EQ(completions[i].kind, Completion::Kind::arrived);
        arrived_.push_back(completions[i].immediate);
      }
    }
  }

  std::vector<std::byte> source_, target_;
  std::shared_ptr<Fabric> a_, b_;
  std::unique_ptr<LocalMemory> from_, to_;
  PeerId peer_ = 0, peer_at_b_ = 0;
  std::map<std::uint64_t, std::size_t> delivered_, failed_;
  std::vector<std::uint32_t> arrived_;
};

GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(Rails);
INSTANTIATE_TEST_SUITE_P(All, Rails, ::testing::ValuesIn(tested_rails()),
                         [](const auto& rail) { return readable(rail.param); });

TEST_P(Rails, EveryWriteCompletesOnceAndEveryImmediateArrivesOnce) {
  std::vector<WriteRequest> requests;
  std::vector<std::uint32_t> sent;
  for (std::uint32_t i = 0; i < 1000; ++i) {
    requests.push_back(request(i * 1000, i, i));
    if (i % 3 != 0) continue;
    requests.back().has_immediate = true;
    requests.back().immediate = 0x8000'0000 + i;
    sent.push_back(requests.back().immediate);
  }
  drive(requests, sent.size());
  std::sort(arrived_.begin(), arrived_.end());
  EXPECT_EQ(arrived_, sent);
  EXPECT_TRUE(failed_.empty());
  for (std::uint32_t i = 0; i < 1000; ++i) {
    ASSERT_EQ(delivered_[i], 1u);
    ASSERT_TRUE(
        std::equal(target_.begin() + i * 1000, target_.begin() + i * 1000 + i, source_.begin() + i * 1000));
  }
}

TEST_P(Rails, AnAddressOfSomethingElseIsRefused) {
  EXPECT_FALSE(a_->add_peer({}));
  EXPECT_FALSE(a_->add_peer(std::vector<std::byte>(7)));
}

TEST_P(Rails, RemovedAndAddedAgain) {
  drive({request(0, 100, 1)}, 0);
  a_->remove_peer(peer_);
  b_->remove_peer(peer_at_b_);
  connect();
  WriteRequest last = request(1000, 100, 2);
  last.has_immediate = true;
  last.immediate = 5;
  drive({last}, 1);
  EXPECT_EQ(delivered_[2], 1u);
  EXPECT_EQ(arrived_, std::vector<std::uint32_t>{5});
}

// An immediate says that what was posted before it is there.
TEST_P(Rails, BehindAFailedWriteNothingLandsUnannounced) {
  if (!a_->capabilities().ordered || !GetParam().starts_with("shm"))
    GTEST_SKIP() << "the rail keeps no order, or ends its path over a refusal";
  WriteRequest refused = request(0, 100, 0);
  refused.target_key += 1;
  std::vector<WriteRequest> rest{request(100, 100, 1), request(200, 100, 2)};
  rest.back().has_immediate = true;
  std::vector<WriteRequest> all{refused};
  all.insert(all.end(), rest.begin(), rest.end());
  EXPECT_EQ(a_->post(peer_, all), 1u);
  EXPECT_EQ(a_->post(peer_, rest), 0u);
  std::array<Completion, 16> some;
  EXPECT_EQ(b_->poll(some), 0u);
  ASSERT_EQ(a_->poll(some), 1u);
  EXPECT_EQ(some[0].kind, Completion::Kind::failed);
  EXPECT_TRUE(some[0].refused);
  EXPECT_TRUE(
      std::all_of(target_.begin(), target_.end(), [](std::byte each) { return each == std::byte{}; }));
  // That write was refused, not the path broken.
  drive(rest, 1);
  EXPECT_TRUE(failed_.empty());
}

// A writer that stands still keeps its end and goes on later.
TEST_P(Rails, NothingLandsOnceTheTargetHasRemovedItsEnd) {
  constexpr std::uint64_t kEach = 256 << 10;
  for (std::uint64_t round = 0; round < 8; ++round) {
    std::array<Completion, 64> some;
    drive({request(0, 100, 0)}, 0);
    std::vector<WriteRequest> requests;
    for (std::uint64_t i = 0; i < 24; ++i) requests.push_back(request(i % 4 * kEach, kEach, i));
    std::size_t posted = a_->post(peer_, requests);
    for (std::uint64_t i = 0; i < 3 * round; ++i) b_->poll(some);
    b_->remove_peer(peer_at_b_);
    std::fill(target_.begin(), target_.end(), std::byte{0xee});
    const TimePoint deadline = monotonic_now() + std::chrono::seconds(30);
    for (bool broken = false; !broken;) {
      ASSERT_LT(monotonic_now(), deadline);
      if (posted < requests.size()) posted += a_->post(peer_, std::span(requests).subspan(posted));
      for (std::size_t i = 0, n = a_->poll(some); i < n; ++i)
        broken |= some[i].kind == Completion::Kind::failed;
      b_->poll(some);
      // Where everything had landed before, something more has to be refused.
      if (posted == requests.size()) requests.push_back(request(0, kEach, requests.size()));
    }
    a_->remove_peer(peer_);
    for (int i = 0; i < 100; ++i) a_->poll(some), b_->poll(some);
    ASSERT_TRUE(
        std::all_of(target_.begin(), target_.end(), [](std::byte each) { return each == std::byte{0xee}; }));
    connect();
  }
}

TEST_P(Rails, ARailMayBeJoinedWithItself) {
  auto end = b_->add_peer(b_->address());
  ASSERT_TRUE(end) << end.error().message;
  ASSERT_TRUE(b_->connect_peer(end->peer, end->token));
  auto source = b_->register_memory({source_.data(), source_.size()});
  WriteRequest own = request(0, 1000, 1);
  own.source_memory = source->get();
  own.has_immediate = true;
  own.immediate = 7;
  const TimePoint deadline = monotonic_now() + std::chrono::seconds(30);
  std::array<Completion, 16> some;
  std::size_t posted = 0, seen = 0;
  while (seen < 2) {
    ASSERT_LT(monotonic_now(), deadline);
    if (posted == 0) posted = b_->post(end->peer, {&own, 1});
    for (std::size_t i = 0, n = b_->poll(some); i < n; ++i, ++seen)
      EXPECT_NE(some[i].kind, Completion::Kind::failed);
  }
  EXPECT_TRUE(std::equal(source_.begin(), source_.begin() + 1000, target_.begin()));
  b_->remove_peer(end->peer);
}

TEST_P(Rails, TwoHundredPathsAreOpenAtOnce) {
  std::vector<std::pair<PeerId, PeerId>> ends;
  for (std::uint32_t i = 0; i < 200; ++i) {
    const auto before = std::pair(peer_, peer_at_b_);
    connect();
    ends.push_back(before);
    WriteRequest last = request(i * 8, 8, i);
    last.has_immediate = true;
    last.immediate = i;
    drive({last}, i + 1);
    ASSERT_FALSE(HasFatalFailure());
  }
  EXPECT_TRUE(failed_.empty());
  EXPECT_TRUE(std::equal(source_.begin(), source_.begin() + 1600, target_.begin()));
  for (const auto& [here, there] : ends) {
    a_->remove_peer(here);
    b_->remove_peer(there);
  }
  drive({request(0, 1 << 20, 1000)}, 0);
}

TEST(Fabrics, WithoutDescriptorsOpeningFails) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "the sanitizer takes descriptors of its own to look at memory";
#endif
  spdlog::set_level(spdlog::level::off);
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  for (const char* name : {"shm", "net"}) {
    if (!open_fabric(name, {})) continue;
    rlim_t count = 0;
    for (bool open = false; !open && count < 64; ++count) {
      const rlimit few{count, before.rlim_max};
      ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &few), 0);
      open = open_fabric(name, {}).has_value();
    }
    ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
    EXPECT_LT(count, 64u) << name;
  }
}

// Another time there may be some: the caller is to try again.
TEST(Fabrics, WithoutDescriptorsSharedMemoryIsNotOutOfReach) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "the sanitizer takes descriptors of its own to look at memory";
#endif
  auto a = open_fabric("shm", {}), b = open_fabric("shm", {});
  if (!a || !b) GTEST_SKIP() << (a ? b : a).error().message;
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  const rlimit none{0, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
  const auto end = (*a)->add_peer((*b)->address());
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
  ASSERT_FALSE(end);
  EXPECT_EQ(end.error().code, ErrorCode::exhausted);
  EXPECT_TRUE((*a)->add_peer((*b)->address()));
}

TEST(Fabrics, AreListedWithAWordEach) {
  const auto reports = list_fabrics();
  for (const char* name : {"shm", "verbs", "net", "tcp;ofi_rxm", "efa"}) {
    const auto found =
        std::find_if(reports.begin(), reports.end(), [&](const auto& each) { return each.name == name; });
    ASSERT_NE(found, reports.end()) << name;
    EXPECT_FALSE(found->detail.empty()) << name;
  }
  auto chosen = automatic_fabric("127.0.0.1");
  ASSERT_TRUE(chosen);
  EXPECT_TRUE(std::any_of(reports.begin(), reports.end(),
                          [&](const auto& each) { return each.name == *chosen && each.usable; }));
  EXPECT_EQ(open_fabric("nonsense", {}).error().code, ErrorCode::unsupported);
}

}  // namespace
}  // namespace switchyard::fabric
