// Two engines in two guests, joined by four rails of RDMA devices, while plugs are pulled: rails that are cut
// in the middle of transfers and come back, an engine's process that is killed, a machine that is switched
// off. For tests/softroce/check.
//
//   engine_pair serve ADDRESS                   the other guest; ADDRESS is its own, off the rails
//   engine_pair write ADDRESS OTHER_ADDRESS     runs the tests
//
// Rails are the devices rxe0 to rxe3, on the network devices eth0 to eth3.
#include <gtest/gtest.h>

#include <array>
#include <cstdio>
#include <memory>

#include "base/log.h"
#include "softroce/far_side.h"
#include "transfer/support.h"

namespace switchyard::testing {
namespace {

constexpr std::chrono::seconds kLimit{60};   // of any one wait: everything here is emulated
constexpr std::uint64_t kSeen = 256u << 10;  // bytes that a rail has carried when it is said to be used
constexpr std::uint64_t kWindow = 4u << 20;  // the most of bulk that is under way on one rail
// What the engine promises is measured here with a worker that may not get its processor for a while.
constexpr int kSlack = 3;

std::string here, there;  // control addresses, from the command line

enum class Where { near, far };
struct Cut {
  std::size_t rail;
  Where where;
};

using Bytes = std::array<std::uint64_t, kRails>;
Bytes operator-(const Bytes& a, const Bytes& b) {
  Bytes difference;
  for (std::size_t i = 0; i < kRails; ++i) difference[i] = a[i] - b[i];
  return difference;
}
std::uint64_t sum(const Bytes& bytes) {
  return std::accumulate(bytes.begin(), bytes.end(), std::uint64_t{0});
}
std::string in_mebibytes(const Bytes& bytes) {
  std::string text;
  for (const std::uint64_t each : bytes)
    text += fmt::format("{}{:.1f}", text.empty() ? "" : " + ", static_cast<double>(each) / (1 << 20));
  return text;
}

bool poll_until(const std::function<bool()>& holds, std::chrono::milliseconds limit = kLimit) {
  const TimePoint deadline = monotonic_now() + limit;
  while (!holds()) {
    if (monotonic_now() >= deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));  // the engine needs the processor
  }
  return true;
}

// One writer and one other guest for all tests, which follow each other: rails are cut, then what is at their
// ends.
class EnginePair : public ::testing::Test {
 protected:
  struct World {
    FarSide far{there};
    Side near;
    std::uint64_t counted = 0;  // what the far counter must say
    std::uint64_t seed = 0;
    std::atomic<int> lost{0};
    std::vector<Outcome> ended;  // all that have come to their Done
  };
  static void SetUpTestSuite() {
    spdlog::enable_backtrace(256);  // shown when a test fails
    world_ = std::make_unique<World>();
    EngineOptions options;
    options.name = "near";
    options.control_host = here;
    world_->near = make_side(kFourRails, kWhole, options);
    world_->near.engine->on_peer_lost([](const PeerAddress&, const Error&) { ++world_->lost; });
  }
  static void TearDownTestSuite() { world_.reset(); }

  void TearDown() override {
    for (const Outcome& outcome : world().ended)
      EXPECT_EQ(outcome.calls(), 1) << "a Done came more than once";
    if (!HasFailure()) return;
    std::printf("%s", state().c_str());
    spdlog::dump_backtrace();
    std::fflush(stdout);
  }

  World& world() { return *world_; }
  TransferEngine& engine() { return *world_->near.engine; }
  FarSide& far() { return world_->far; }

  // The paths between rails of the same number: others lead nowhere.
  std::array<EngineMetrics::Path, kRails> paths() {
    std::array<EngineMetrics::Path, kRails> found;
    for (const auto& peer : engine().metrics().peers) {
      if (peer.address != far().address()) continue;
      for (const auto& path : peer.paths)
        if (path.local_rail == path.remote_rail) found.at(path.local_rail) = path;
    }
    return found;
  }
  Bytes carried() {
    Bytes bytes{};
    const auto all = paths();
    for (std::size_t i = 0; i < kRails; ++i) bytes[i] = all[i].bytes_written;
    return bytes;
  }
  std::string state() {
    const EngineMetrics metrics = engine().metrics();
    std::string text = fmt::format("  done {}, failed {}, pending {}, failovers {}, sent again {}\n",
                                   metrics.transfers_done, metrics.transfers_failed,
                                   metrics.transfers_pending, metrics.failovers, metrics.requests_sent_again);
    const auto all = paths();
    for (std::size_t i = 0; i < kRails; ++i) {
      text += fmt::format("  rail {}: {}, path {}, {} failovers, {:.1f} MiB, {} under way, {:.1f} MB/s\n", i,
                          metrics.rails[i].healthy ? "healthy" : "down", all[i].up ? "up" : "down",
                          all[i].failovers, static_cast<double>(all[i].bytes_written) / (1 << 20),
                          all[i].outstanding, static_cast<double>(all[i].bytes_per_second) / 1e6);
    }
    return text;
  }

  void set_rail(const Cut& cut, bool up) {
    const std::string device = "eth" + std::to_string(cut.rail);
    const std::string outcome =
        cut.where == Where::near ? switch_device(device, up) : far().ask((up ? "up " : "down ") + device);
    EXPECT_EQ(outcome, "ok");
  }
  void connect_to_far() {
    far().start();
    world().counted = 0;
    Outcome connected;
    ASSERT_TRUE(engine().connect(far().address(), connected.done()));
    ASSERT_EQ(connected.word(kLimit), "ok");
    expect_all_up();
  }
  void expect_all_up() {
    const TimePoint start = monotonic_now();
    ASSERT_TRUE(poll_until([&] {
      const auto all = paths();
      return std::all_of(all.begin(), all.end(), [](const auto& path) { return path.up; });
    })) << "not all paths came up";
    back_after_ = to_seconds(monotonic_now() - start);
  }
  // The far engine counts when it looks, which may be after our Done.
  void expect_counted() {
    std::string found;
    poll_until([&] {
      found = far().ask("arrived");
      return found.empty() || std::strtoull(found.c_str(), nullptr, 10) >= world().counted;
    });
    EXPECT_EQ(found, std::to_string(world().counted)) << "transfers counted at the far side";
  }

  Outcome submit(bool paged, std::uint64_t seed) {
    Outcome outcome;
    Result<Transfer> submitted = fail(ErrorCode::invalid, "nothing");
    if (paged) {
      PagePermutation pages(seed);
      PagedWrite write;
      write.source = world().near.region;
      write.source_pages = std::move(pages.source);
      write.source_stride = write.target_stride = write.page_bytes = kPage;
      write.peer = far().address();
      write.target = far().key();
      write.target_offset = kGuard;
      write.target_pages = std::move(pages.target);
      write.options.counter = far().counter();
      submitted = engine().write_pages(std::move(write), outcome.done());
    } else {
      Write write{.source = world().near.region, .peer = far().address(), .target = far().key()};
      write.target_offset = kGuard;
      write.bytes = kWhole;
      write.options.counter = far().counter();
      submitted = engine().write(std::move(write), outcome.done());
    }
    EXPECT_TRUE(submitted) << submitted.error().message;
    return outcome;
  }

  // Transfers while rails are cut, and checks everything; then the rails come back.
  void transfer(bool paged, const std::vector<Cut>& cuts);
  // Fills the queue, lets `death` happen when all rails are at work, and returns how long after it the last
  // Done came.
  double time_of_loss(const std::function<void()>& death);

 private:
  static inline std::unique_ptr<World> world_;
  double back_after_ = 0;  // seconds, of the rails that were cut last
};

void EnginePair::transfer(bool paged, const std::vector<Cut>& cuts) {
  const std::uint64_t total = paged ? kPages * kPage : kWhole;
  std::string title = paged ? "10000 pages" : "64 MiB";
  for (const Cut& cut : cuts)
    title += fmt::format(", rail {} cut at the {} side", cut.rail, cut.where == Where::near ? "near" : "far");
  SCOPED_TRACE(title);
  const std::uint64_t seed = ++world().seed;
  fill(world().near.bytes(), seed);
  const Bytes before = carried();
  const auto paths_before = paths();
  const auto broken_before = engine().metrics().failovers;
  const TimePoint start = monotonic_now();
  const Outcome outcome = submit(paged, seed);
  auto work = [&] { return carried() - before; };
  // More than fits under way, so that some has been delivered; and every rail is at work.
  ASSERT_TRUE(poll_until([&] {
    const Bytes so_far = work();
    return outcome.ready() ||
           (sum(so_far) >= total / 8 * 3 && *std::min_element(so_far.begin(), so_far.end()) >= kSeen);
  })) << "the transfer does not get on, or does not use every rail: "
      << in_mebibytes(work());
  for (const Cut& cut : cuts) set_rail(cut, false);
  const Bytes when_cut = carried();
  EXPECT_FALSE(!cuts.empty() && outcome.ready())
      << "it was over before the cut; the rails carried " << in_mebibytes(work());

  EXPECT_EQ(outcome.word(kLimit), "ok") << outcome.wait().error().message;
  const double seconds = to_seconds(monotonic_now() - start);
  world().ended.push_back(outcome);
  ++world().counted;
  expect_counted();
  EXPECT_EQ(far().ask((paged ? "pages " : "whole ") + std::to_string(seed)), "yes");
  EXPECT_GE(sum(work()), total);
  for (const Cut& cut : cuts) {
    EXPECT_TRUE(poll_until([&] {
      const EngineMetrics::Path path = paths()[cut.rail];
      return !path.up && path.failovers > paths_before[cut.rail].failovers;
    })) << "the cut of rail "
        << cut.rail << " was not noticed";
  }
  const auto now = paths();
  const Bytes rest = carried() - when_cut;
  for (std::size_t i = 0; i < kRails; ++i) {
    const bool cut = std::any_of(cuts.begin(), cuts.end(), [&](const Cut& each) { return each.rail == i; });
    if (cut) continue;
    // What it was given counts as its own: beyond a window for each time that it broke, it has delivered.
    const std::uint64_t broke = now[i].failovers - paths_before[i].failovers;
    EXPECT_GT(work()[i], broke == 0 ? 0 : (broke + 1) * kWindow) << "rail " << i << " delivered nothing";
    EXPECT_GT(rest[i], 0u) << "rail " << i << " carried nothing of the rest";
  }
  const auto failovers = engine().metrics().failovers - broken_before;
  for (const Cut& cut : cuts) set_rail(cut, true);
  // That they are used again is seen by the next transfer, which wants all of them to deliver.
  expect_all_up();
  expect_counted();
  std::printf(
      "%s: %.1f s; by rails %s MiB, of them %s MiB after the cut; %llu failovers; all up again in %.1f s\n",
      title.c_str(), seconds, in_mebibytes(work()).c_str(), in_mebibytes(rest).c_str(),
      static_cast<unsigned long long>(failovers), back_after_);
}

double EnginePair::time_of_loss(const std::function<void()>& death) {
  const Bytes before = carried();
  std::vector<Outcome> pending;
  for (int i = 0; i < 6; ++i) pending.push_back(submit(i % 2 != 0, i));
  EXPECT_TRUE(poll_until([&] {
    const Bytes so_far = carried() - before;
    return *std::min_element(so_far.begin(), so_far.end()) >= 2 * kSeen;
  })) << "not every rail is at work";
  for (const Outcome& outcome : pending) EXPECT_FALSE(outcome.ready()) << "it was over before the death";
  const int lost = world().lost;
  const TimePoint start = monotonic_now();
  death();
  for (const Outcome& outcome : pending) EXPECT_EQ(outcome.word(kLimit), "peer_lost");
  const double seconds = to_seconds(monotonic_now() - start);
  EXPECT_TRUE(poll_until([&] { return world().lost == lost + 1; })) << "on_peer_lost was not called once";
  EXPECT_EQ(engine().metrics().transfers_pending, 0u);
  world().ended.insert(world().ended.end(), pending.begin(), pending.end());
  return seconds;
}

TEST_F(EnginePair, SharesTheWork) {
  ASSERT_NO_FATAL_FAILURE(connect_to_far());
  ASSERT_NO_FATAL_FAILURE(transfer(false, {}));
}

TEST_F(EnginePair, SurvivesTheCutOfAnyRail) {
  for (std::size_t rail = 0; rail < kRails; ++rail) {
    for (const bool paged : {false, true}) {
      const Where where = (rail % 2 == 0) == paged ? Where::near : Where::far;
      ASSERT_NO_FATAL_FAILURE(transfer(paged, {{rail, where}}));
    }
  }
}

TEST_F(EnginePair, SurvivesTheCutOfAllButOne) {
  ASSERT_NO_FATAL_FAILURE(transfer(false, {{1, Where::near}, {2, Where::far}, {3, Where::near}}));
  ASSERT_NO_FATAL_FAILURE(transfer(true, {{0, Where::far}, {1, Where::near}, {3, Where::far}}));
  // Afterwards all is as before, on all four.
  ASSERT_NO_FATAL_FAILURE(transfer(false, {}));
}

TEST_F(EnginePair, EndsTransfersToAKilledProcess) {
  const double seconds = time_of_loss([&] { EXPECT_EQ(far().ask("kill"), "killed"); });
  std::printf("killed process: all transfers ended after %.2f s\n", seconds);
  EXPECT_LE(seconds, 1.0 * kSlack);
}

TEST_F(EnginePair, EndsTransfersToAMachineThatIsSwitchedOff) {
  ASSERT_NO_FATAL_FAILURE(connect_to_far());
  const double seconds = time_of_loss([&] { EXPECT_EQ(far().ask("power off"), "going"); });
  std::printf("machine switched off: all transfers ended after %.2f s\n", seconds);
  EXPECT_LE(seconds, to_seconds(EngineOptions{}.heartbeat_limit) * kSlack);
}

}  // namespace
}  // namespace switchyard::testing

int main(int count, char** arguments) {
  ::testing::InitGoogleTest(&count, arguments);
  switchyard::log::start("engine_pair", "off");
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  const std::vector<std::string> given(arguments + 1, arguments + count);
  if (given.size() == 2 && given[0] == "serve") return switchyard::testing::run_far_side(given[1]);
  if (given.size() != 3 || given[0] != "write") {
    std::fputs("usage: engine_pair serve ADDRESS | write ADDRESS OTHER_ADDRESS\n", stderr);
    return 2;
  }
  switchyard::testing::here = given[1];
  switchyard::testing::there = given[2];
  return RUN_ALL_TESTS();
}
