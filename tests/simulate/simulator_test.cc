#include "simulate/simulator.h"

#include <gtest/gtest.h>

#include "simulate/random.h"
#include "simulate/report.h"
#include "small_pool.h"

namespace switchyard::simulate {
namespace {

using schedule::PolicyKind;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr std::array kPolicies = {PolicyKind::quota, PolicyKind::request, PolicyKind::fixed,
                                  PolicyKind::slack};

std::string joined(const std::vector<std::string>& lines) {
  std::string text;
  for (const auto& line : lines) text += line + "\n";
  return text;
}

TEST(Simulator, OneRequestTakesWhatItsStepsTake) {
  for (const PolicyKind policy : kPolicies) {
    auto input = small_pool(1, policy);
    input.cluster.unified = 1;
    input.workload.requests = {{.time = seconds(1), .model = 0, .input_tokens = 1000, .output_tokens = 3}};
    const auto result = simulate(input);
    ASSERT_TRUE(result) << result.error().message;
    // Load 500 ms (a fixed model is there, or as good as), activation 5 ms, prefill 30 ms.
    const double load = policy == PolicyKind::fixed ? 0.5 : 0.505;
    EXPECT_NEAR(result->first_token_seconds.at(0), load + 0.030, 1e-6);
    const double steps = (8 + 0.0005 * 1001 + 0.05 + 8 + 0.0005 * 1002 + 0.05) / 1e3;
    EXPECT_NEAR(result->seconds, 1 + load + 0.030 + steps, 1e-6);
    EXPECT_EQ(result->total.in_time, 3u);
    EXPECT_TRUE(result->violations.empty()) << joined(result->violations);
  }
}

// All at once, and then nothing that would wake anybody.
TEST(Simulator, MoreRequestsThanAStepHasRowsAreServedInTurns) {
  for (const PolicyKind policy : kPolicies) {
    for (const bool split : {false, true}) {
      auto input = small_pool(2, policy);
      (split ? input.cluster.prefill : input.cluster.unified) = 1;
      if (split) input.cluster.decode = 1;
      input.options.max_rows = 4;
      for (std::uint32_t i = 0; i < 60; ++i) {
        input.workload.requests.push_back({.time = seconds(1),
                                           .model = i % 4 == 0 ? 1u : 0u,
                                           .input_tokens = 20,
                                           .output_tokens = 1 + i % 9});
      }
      const auto result = simulate(input);
      ASSERT_TRUE(result) << result.error().message;
      EXPECT_EQ(result->total.ended, 60u) << to_string(policy) << split;
      EXPECT_EQ(result->total.shed, 0u) << to_string(policy) << split;
      EXPECT_TRUE(result->violations.empty()) << joined(result->violations);
    }
  }
}

TEST(Simulator, TokensAreCountedAgainstTheirOwnDeadlines) {
  auto input = small_pool(1, PolicyKind::quota);
  input.cluster.unified = 1;
  // The load alone takes 500 ms: the first token comes at 0.535 s, due at 0.4; one more is due every 50 ms
  // and made every 8.55: tokens 0 to 2 are late, then they catch up.
  input.models[0].spec.targets = {milliseconds(400), milliseconds(50)};
  input.workload.requests = {{.time = {}, .model = 0, .input_tokens = 1000, .output_tokens = 10}};
  const auto result = simulate(input);
  ASSERT_TRUE(result);
  EXPECT_EQ(result->total.in_time, 6u);
  EXPECT_EQ(result->total.strict, 0u);
  EXPECT_NEAR(result->attainment(), 0.6, 1e-9);
}

// Requests of one token on one instance: service is the prefill, constant, arrivals are Poisson (M/D/1). The
// mean wait is rho * service / (2 * (1 - rho)). Prompts are one at a time here.
TEST(Simulator, AQueueWaitsAsTheorySays) {
  for (const double load : {0.3, 0.6, 0.8}) {
    auto input = small_pool(1, PolicyKind::quota);
    input.cluster.unified = 1;
    input.cluster.activate = {};
    input.options.max_prefill_tokens = 1;
    const double service = (10 + 0.02 * 500) / 1e3;
    Random random(7);
    double time = 1;
    for (int i = 0; i < 60'000; ++i) {
      time += random.exponential(service / load);
      input.workload.requests.push_back({.time = Nanos(static_cast<std::int64_t>(time * 1e9)),
                                         .model = 0,
                                         .input_tokens = 500,
                                         .output_tokens = 1});
    }
    const auto result = simulate(input);
    ASSERT_TRUE(result);
    double mean = 0;
    for (const double value : result->first_token_seconds) mean += value;
    mean /= static_cast<double>(result->first_token_seconds.size());
    const double expected = service + load * service / (2 * (1 - load));
    EXPECT_NEAR(mean, expected, 0.1 * expected) << "load " << load;
    EXPECT_NEAR(result->busy, load, 0.02);
  }
}

TEST(Simulator, TheSameInputGivesTheSameOutput) {
  for (const PolicyKind policy : kPolicies) {
    auto input = small_pool(8, policy);
    input.cluster.prefill = 1;
    input.cluster.decode = 2;
    generate(input, 0.3, 60, 11);
    const auto first = to_json(input, *simulate(input)).dump();
    EXPECT_EQ(first, to_json(input, *simulate(input)).dump());
    generate(input, 0.3, 60, 12);
    EXPECT_NE(first, to_json(input, *simulate(input)).dump());
  }
}

// Whatever happens, nothing physical is violated and every request ends: it is served, shed or cancelled.
TEST(Simulator, EveryRequestEndsUnderFailuresCancellationsAndScarceMemory) {
  std::uint64_t replayed = 0, moved = 0;
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    Random random(seed);
    const PolicyKind policy = kPolicies[random.below(kPolicies.size())];
    auto input = small_pool(1 + random.below(8), policy);
    generate(input, 0.2 + random.uniform(), 40, seed);
    if (input.workload.requests.empty()) continue;
    if (random.below(2) == 0) {
      input.cluster.unified = 1 + static_cast<std::uint32_t>(random.below(3));
    } else {
      input.cluster.prefill = 1 + static_cast<std::uint32_t>(random.below(2));
      input.cluster.decode = 1 + static_cast<std::uint32_t>(random.below(3));
    }
    const auto instances = input.cluster.prefill + input.cluster.decode + input.cluster.unified;
    std::uint32_t longest = 0;
    for (const auto& request : input.workload.requests) {
      longest = std::max(longest, request.input_tokens + request.output_tokens);
    }
    // Sometimes memory for hardly more than the longest request, on the device, in the host, or both.
    const std::uint64_t least = (longest / 16 + 4) * input.models[0].spec.kv_block_bytes;
    if (random.below(2) == 0) input.cluster.kv_bytes = least * (10 + random.below(15)) / 10;
    if (random.below(2) == 0) input.options.host_kv_bytes = least * random.below(12) / 10;
    for (std::uint64_t i = random.below(4); i > 0; --i) {
      input.failures.push_back({.time = milliseconds(random.below(40'000)),
                                .instance = static_cast<std::uint32_t>(random.below(instances + 2)),
                                .restart = milliseconds(1 + random.below(3000))});
    }
    for (std::uint64_t i = random.below(20); i > 0; --i) {
      const auto request = random.below(input.workload.requests.size());
      input.cancellations.push_back(
          {.time = input.workload.requests[request].time + milliseconds(random.below(5000)),
           .request = request});
    }
    if (random.below(3) == 0) input.options.max_rows = 1 + static_cast<std::uint32_t>(random.below(6));
    const auto result = simulate(input);
    ASSERT_TRUE(result) << result.error().message;
    EXPECT_EQ(result->unfinished, 0u) << "seed " << seed << ' ' << schedule::to_string(policy);
    EXPECT_TRUE(result->violations.empty()) << "seed " << seed << ' ' << schedule::to_string(policy) << '\n'
                                            << joined(result->violations);
    EXPECT_EQ(result->total.ended + result->total.shed, result->total.requests);
    replayed += result->replayed;
    moved += result->kv_moves;
  }
  EXPECT_GT(replayed, 100u);  // the test does what it says
  EXPECT_GT(moved, 100u);
}

TEST(Simulator, NobodyStarves) {
  // One model is asked for all the time, the others hardly ever: their requests come through all the same.
  for (const PolicyKind policy : {PolicyKind::quota, PolicyKind::request, PolicyKind::slack}) {
    auto input = small_pool(6, policy);
    input.cluster.unified = 1;
    GeneratorOptions options{.seconds = 120, .seed = 3};
    options.input.mean = 300;
    options.output.mean = 150;
    for (std::size_t i = 0; i < 6; ++i)
      options.models.push_back({input.models[i].spec.name, i == 0 ? 4 : 0.02});
    input.workload = *generate_workload(options);
    const auto result = simulate(input);
    ASSERT_TRUE(result);
    EXPECT_EQ(result->unfinished, 0u);
    EXPECT_LT(percentile(result->first_token_seconds, 1), 60) << schedule::to_string(policy);
  }
}

TEST(Simulator, NobodyStarvesWhereOneBerthIsNotPinned) {
  for (const PolicyKind policy : {PolicyKind::quota, PolicyKind::request, PolicyKind::slack}) {
    for (const bool pinned : {false, true}) {
      auto input = small_pool(4, policy);
      input.cluster.unified = 1;
      input.cluster.berths = pinned ? 2 : 1;
      input.models.back().spec.pinned = pinned;
      GeneratorOptions options{.seconds = 120, .seed = 3};
      options.input.mean = 300;
      options.output.mean = 150;
      for (std::size_t i = 0; i < 4; ++i)
        options.models.push_back({input.models[i].spec.name, i == 0 ? 4 : 0.02});
      input.workload = *generate_workload(options);
      const auto result = simulate(input);
      ASSERT_TRUE(result);
      EXPECT_EQ(result->unfinished, 0u);
      EXPECT_LT(percentile(result->first_token_seconds, 1), 60)
          << schedule::to_string(policy) << (pinned ? ", one pinned" : ", one berth");
    }
  }
}

TEST(Simulator, ShortRequestsAreServedBesideABusyPinnedModel) {
  auto input = small_pool(4, PolicyKind::slack);
  input.cluster.unified = 1;
  input.models.front().spec.pinned = true;
  GeneratorOptions options{.seconds = 120, .seed = 3};
  options.input.mean = 50;
  options.output.mean = 400;
  for (std::size_t i = 0; i < 4; ++i)
    options.models.push_back({input.models[i].spec.name, i == 0 ? 3 : 0.05});
  input.workload = *generate_workload(options);
  for (auto& request : input.workload.requests) {
    if (request.model != 0) request.output_tokens = 12;
  }
  const auto result = simulate(input);
  ASSERT_TRUE(result);
  EXPECT_EQ(result->unfinished, 0u);
  EXPECT_LT(percentile(result->first_token_seconds, 1), 40);
}

TEST(Simulator, SwitchingHidesBehindTurns) {
  for (const PolicyKind policy : {PolicyKind::quota, PolicyKind::slack}) {
    auto input = small_pool(6, policy);
    input.cluster.unified = 1;
    generate(input, 0.2, 120, 5);
    const auto result = simulate(input);
    ASSERT_TRUE(result);
    EXPECT_GT(result->switches, 50u);
    EXPECT_LE(percentile(result->switch_seconds, 0.5), 0.5 + 0.005 + 1e-9);
    EXPECT_TRUE(result->violations.empty()) << joined(result->violations);
  }
}

TEST(Simulator, SlackBeatsQuotaBeatsRequestInACrowd) {
  std::map<PolicyKind, double> attainment;
  for (const PolicyKind policy : kPolicies) {
    auto input = small_pool(36, policy);
    input.cluster.prefill = 1;
    input.cluster.decode = 3;
    GeneratorOptions options{.seconds = 200, .seed = 9};
    for (const auto& model : input.models) options.models.push_back({model.spec.name, 0.1});
    input.workload = *generate_workload(options);
    const auto result = simulate(input);
    ASSERT_TRUE(result);
    attainment[policy] = result->attainment();
  }
  EXPECT_GT(attainment[PolicyKind::slack], attainment[PolicyKind::quota]);
  EXPECT_GT(attainment[PolicyKind::quota], attainment[PolicyKind::request]);
  EXPECT_GT(attainment[PolicyKind::request], attainment[PolicyKind::fixed]);
}

TEST(Simulator, SheddingKeepsWhatIsAdmittedInTime) {
  for (const PolicyKind policy : {PolicyKind::quota, PolicyKind::slack}) {
    auto input = small_pool(40, policy);
    input.cluster.unified = 2;
    input.options.admission.shed_overload = true;
    GeneratorOptions options{.seconds = 200, .seed = 9};
    for (const auto& model : input.models) options.models.push_back({model.spec.name, 0.1});
    input.workload = *generate_workload(options);
    const auto shedding = simulate(input);
    ASSERT_TRUE(shedding);
    EXPECT_GT(shedding->total.shed, 0u);
    if (policy == PolicyKind::slack) {
      EXPECT_GT(shedding->attainment_of_admitted(), 0.95);
    }
    input.options.admission.shed_overload = false;
    const auto all = simulate(input);
    ASSERT_TRUE(all);
    EXPECT_LT(all->attainment(), 0.9) << schedule::to_string(policy);
    EXPECT_GT(shedding->attainment_of_admitted(), all->attainment()) << schedule::to_string(policy);
    EXPECT_EQ(all->total.shed, 0u);
  }
}

TEST(Simulator, RefusesInputThatMakesNoSense) {
  auto input = small_pool(1, PolicyKind::quota);
  EXPECT_FALSE(simulate(input));  // no instances
  input.cluster.unified = 1;
  EXPECT_FALSE(simulate(input));  // no requests
  input.workload.requests = {{.time = {}, .model = 0, .input_tokens = 1, .output_tokens = 1}};
  EXPECT_TRUE(simulate(input));
  input.cluster.prefill = 1;
  EXPECT_FALSE(simulate(input));  // prefill without decode
  input.cluster.prefill = 0;
  input.cluster.berth_bytes = 5;
  EXPECT_NE(simulate(input).error().message.find("larger berths"), std::string::npos);
}

TEST(Simulator, TellsWhatHappened) {
  auto input = small_pool(2, PolicyKind::quota);
  input.cluster.unified = 1;
  input.record_lanes = true;
  generate(input, 0.2, 30, 1);
  const auto result = simulate(input);
  ASSERT_TRUE(result);
  const auto json = to_json(input, *result);
  for (const char* key : {"policy", "models", "requests", "attainment", "strict_attainment", "goodput_rps",
                          "switches", "switch_seconds_p50"}) {
    EXPECT_TRUE(json.contains(key)) << key;
  }
  EXPECT_EQ(json["policy"], "quota");
  EXPECT_EQ(json["models"], 2);
  EXPECT_EQ(json["requests"], input.workload.requests.size());
  EXPECT_EQ(json["per_model"].size(), 2u);
  const std::string svg = to_svg(input, *result);
  EXPECT_EQ(svg.rfind("<svg", 0), 0u);
  EXPECT_NE(svg.find("model-1"), std::string::npos);
  EXPECT_NE(svg.find("</svg>"), std::string::npos);
  EXPECT_NE(to_text(input, *result).find("attainment"), std::string::npos);
}

}  // namespace
}  // namespace switchyard::simulate
