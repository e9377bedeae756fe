// The random test of the transfer engine, a few hundred seeds of it; `switchyard simtest` runs any number.
#include "sim/simtest.h"

#include <gtest/gtest.h>

#include "base/log.h"

namespace switchyard::sim {
namespace {

class Simtest : public ::testing::TestWithParam<std::uint64_t> {};

constexpr std::uint64_t kSeedsEach = 50;

INSTANTIATE_TEST_SUITE_P(Seeds, Simtest, ::testing::Values(1, 51, 101, 151, 201, 251));

TEST_P(Simtest, KeepsAllRules) {
  spdlog::set_level(spdlog::level::off);
  std::uint64_t ok = 0, failovers = 0;
  for (std::uint64_t seed = GetParam(); seed < GetParam() + kSeedsEach; ++seed) {
    const SimtestResult result = run_simtest(seed, 40);
    std::string events;
    for (const std::string& line : result.latest_events) events += line + "\n";
    ASSERT_FALSE(result.violation) << "seed " << seed << ": " << *result.violation << "\n"
                                   << result.scenario << "\n"
                                   << events;
    ok += result.operations_ok;
    failovers += result.failovers;
  }
  EXPECT_GT(ok, kSeedsEach);
  EXPECT_GT(failovers, 0u);
}

// Seeds that have found a defect of the engine once.
TEST(SimtestSeeds, ThatFoundSomething) {
  spdlog::set_level(spdlog::level::off);
  for (const std::uint64_t seed :
       {20, 30, 90, 3166, 15098, 18454, 24546, 27575, 38866, 39101, 39812, 40121}) {
    const SimtestResult result = run_simtest(seed, 0);
    EXPECT_FALSE(result.violation) << "seed " << seed << ": " << *result.violation;
  }
}

TEST(SimtestReplay, IsExact) {
  spdlog::set_level(spdlog::level::off);
  for (const std::uint64_t seed : {3, 4, 5, 6, 7}) {
    const SimtestResult first = run_simtest(seed), second = run_simtest(seed);
    EXPECT_EQ(first.trace_hash, second.trace_hash) << seed;
    EXPECT_EQ(first.events, second.events) << seed;
    EXPECT_NE(first.trace_hash, run_simtest(seed + 100).trace_hash);
  }
}

}  // namespace
}  // namespace switchyard::sim
