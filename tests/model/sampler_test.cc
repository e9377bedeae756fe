#include "model/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <vector>

#include "model/philox.h"

namespace switchyard::model {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

std::int32_t token_of(std::vector<float> logits, const SamplingParams& params,
                      std::vector<std::int32_t> prompt = {}, std::vector<std::int32_t> output = {}) {
  return sample(logits, params, prompt, output).token;
}

SamplingParams greedy() { return {.temperature = 0}; }

// How often each token is drawn, over many positions.
std::map<std::int32_t, int> count(const std::vector<float>& logits, const SamplingParams& params, int draws) {
  std::map<std::int32_t, int> counts;
  for (int i = 0; i < draws; ++i) {
    std::vector<float> copy = logits;
    const std::vector<std::int32_t> prompt(static_cast<std::size_t>(i), 0);
    ++counts[sample(copy, params, prompt, {}).token];
  }
  return counts;
}

// Known answers of the Random123 distribution (kat_vectors).
TEST(Philox, MatchesKnownAnswers) {
  using Four = std::array<std::uint32_t, 4>;
  EXPECT_EQ(philox4x32({0, 0, 0, 0}, {0, 0}), (Four{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox4x32({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}),
            (Four{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Four{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Sampler, GreedyTakesTheLowestIdAmongEquals) {
  EXPECT_EQ(token_of({1, 3, 3, 2}, greedy()), 1);
  EXPECT_EQ(token_of({-5, -5}, greedy()), 0);
}

TEST(Sampler, NanCountsAsMinusInfinity) {
  EXPECT_EQ(token_of({kNan, -10, kNan}, greedy()), 1);
  EXPECT_EQ(token_of({kNan, kNan}, greedy()), 0);
  for (int seed = 0; seed < 50; ++seed) {
    EXPECT_EQ(token_of({kNan, 0, -kInfinity}, {.seed = static_cast<std::uint64_t>(seed)}), 1);
    EXPECT_EQ(token_of({0, kInfinity, 0}, {.seed = static_cast<std::uint64_t>(seed)}), 1);
  }
}

TEST(Sampler, DrawsWithTheSoftmaxProbabilities) {
  const std::vector<float> logits = {std::log(0.5f), std::log(0.3f), std::log(0.15f), std::log(0.05f)};
  const int draws = 20000;
  const auto counts = count(logits, {.seed = 7}, draws);
  // Pearson's test: 3 degrees of freedom, 0.1 % point.
  double chi = 0;
  const double expected[] = {0.5, 0.3, 0.15, 0.05};
  for (std::int32_t i = 0; i < 4; ++i) {
    const double mean = expected[i] * draws;
    chi += (counts.at(i) - mean) * (counts.at(i) - mean) / mean;
  }
  EXPECT_LT(chi, 16.27);
}

TEST(Sampler, TemperatureSharpensAndFlattens) {
  const std::vector<float> logits = {1, 0};
  EXPECT_GT(count(logits, {.temperature = 0.25f}, 4000)[0], 3850);  // 1 / (1 + e^-4) = 0.982
  const int flat = count(logits, {.temperature = 2.0f}, 4000)[0];   // 0.622
  EXPECT_NEAR(flat, 2490, 150);
}

TEST(Sampler, TopKKeepsTheBest) {
  std::vector<float> logits(1000, 0.0f);
  logits[10] = 1;
  logits[500] = 1.5f;
  const auto counts = count(logits, {.top_k = 3, .seed = 3}, 500);
  EXPECT_EQ(counts.size(), 3u);  // 500, 10, and of the equals the lowest id
  EXPECT_TRUE(counts.contains(10) && counts.contains(500) && counts.contains(0));
  EXPECT_EQ(count(logits, {.top_k = 1}, 50).size(), 1u);
}

TEST(Sampler, TopPKeepsTheSmallestNucleus) {
  const std::vector<float> logits = {std::log(0.05f), std::log(0.5f), std::log(0.3f), std::log(0.15f)};
  EXPECT_EQ(count(logits, {.top_p = 0.45f}, 200).size(), 1u);
  const auto two = count(logits, {.top_p = 0.7f}, 500);
  EXPECT_EQ(two.size(), 2u);
  EXPECT_TRUE(two.contains(1) && two.contains(2));
  EXPECT_EQ(count(logits, {.top_p = 0.99f}, 3000).size(), 4u);
}

TEST(Sampler, TopPLooksAtTheTailWhenItMatters) {
  // One token of weight 1 and 10,000 of weight 1e-4 each: half of the mass is in the tail.
  std::vector<float> logits(10001, std::log(1e-4f));
  logits[0] = 0;
  const auto counts = count(logits, {.top_p = 0.9f}, 400);
  EXPECT_NEAR(counts.at(0), 400 / 1.8, 60);
  EXPECT_GT(counts.size(), 100u);
  EXPECT_LE(counts.rbegin()->first, 8001);  // ids in order: 0.9 of the mass is token 0 and the first 8,000
}

TEST(Sampler, MinPIsRelativeToTheBest) {
  const std::vector<float> logits = {std::log(0.6f), std::log(0.3f), std::log(0.1f)};
  EXPECT_EQ(count(logits, {.min_p = 0.4f}, 500).size(), 2u);
  EXPECT_EQ(count(logits, {.min_p = 1.0f}, 100).size(), 1u);
}

TEST(Sampler, RepetitionPenaltyCountsPromptAndOutputOnce) {
  // 2 / 1.5 < 1.5; -1 * 1.5 < -1.2
  SamplingParams params = greedy();
  params.repetition_penalty = 1.5f;
  EXPECT_EQ(token_of({2, 1.5f}, params, {0, 0, 0}), 1);
  EXPECT_EQ(token_of({2, 1.3f}, params, {0, 0, 0}), 0);  // once, not three times
  EXPECT_EQ(token_of({-1, -1.2f}, params, {}, {0}), 1);
}

TEST(Sampler, PresenceAndFrequencyCountTheOutput) {
  SamplingParams params = greedy();
  params.presence_penalty = 1;
  EXPECT_EQ(token_of({2, 1.5f}, params, {0}), 0);
  EXPECT_EQ(token_of({2, 1.5f}, params, {}, {0}), 1);
  params.presence_penalty = 0;
  params.frequency_penalty = 0.2f;
  EXPECT_EQ(token_of({2, 1.5f}, params, {}, {0, 0}), 0);
  EXPECT_EQ(token_of({2, 1.5f}, params, {}, {0, 0, 0}), 1);
}

TEST(Sampler, LogitBiasForcesAndForbids) {
  SamplingParams params = greedy();
  params.logit_bias = {{2, 100}, {0, -100}};
  EXPECT_EQ(token_of({5, 4, 3}, params), 2);
}

TEST(Sampler, LogprobsAreOfTheDistributionBeforeTemperature) {
  std::vector<float> logits = {std::log(0.5f), std::log(0.2f), std::log(0.3f)};
  const SamplingParams params{.temperature = 0.1f, .top_k = 1, .top_logprobs = 2, .logprobs = true};
  const SampledToken sampled = sample(logits, params, {}, {});
  EXPECT_EQ(sampled.token, 0);
  EXPECT_NEAR(sampled.logprob, std::log(0.5), 1e-6);
  ASSERT_EQ(sampled.top.size(), 2u);
  EXPECT_EQ(sampled.top[0].token, 0);
  EXPECT_EQ(sampled.top[1].token, 2);
  EXPECT_NEAR(sampled.top[1].logprob, std::log(0.3), 1e-6);
}

TEST(Sampler, LogprobsWithoutAlternatives) {
  std::vector<float> logits = {1, 3, 2};
  const SampledToken sampled = sample(logits, {.temperature = 0, .logprobs = true}, {}, {});
  EXPECT_EQ(sampled.token, 1);
  EXPECT_LT(sampled.logprob, 0);
  EXPECT_TRUE(sampled.top.empty());
}

TEST(Sampler, DependsOnSeedAndPositionAlone) {
  std::vector<float> logits(200);
  for (std::size_t i = 0; i < logits.size(); ++i) logits[i] = static_cast<float>(i % 7) * 0.1f;
  const std::vector<std::int32_t> prompt = {1, 2, 3};
  const std::vector<std::int32_t> output = {4, 5};
  const std::vector<std::int32_t> other_prompt = {9, 9, 9, 9, 9};
  std::map<std::int32_t, int> by_seed;
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    const SamplingParams params{.seed = seed};
    std::vector<float> first = logits;
    std::vector<float> second = logits;
    const std::int32_t token = sample(first, params, prompt, output).token;
    EXPECT_EQ(token, sample(second, params, other_prompt, {}).token);
    ++by_seed[token];
  }
  EXPECT_GT(by_seed.size(), 20u);
}

TEST(Sampler, LogitsThatAreNoNumbersAreFound) {
  std::vector<float> logits(1000, -3.5f);
  EXPECT_TRUE(check_logits(logits));
  logits[7] = -kInfinity;  // a token that cannot come
  logits[8] = std::numeric_limits<float>::max();
  logits[9] = std::numeric_limits<float>::denorm_min();
  EXPECT_TRUE(check_logits(logits));
  for (const float wrong : {kNan, -kNan, kInfinity}) {
    for (const std::size_t place : {0, 7, 999}) {
      auto some = logits;
      some[place] = wrong;
      EXPECT_EQ(check_logits(some).error().code, ErrorCode::corrupt) << wrong << " at " << place;
    }
  }
  EXPECT_FALSE(check_logits(std::vector<float>(1000, -kInfinity)));
  EXPECT_FALSE(check_logits({}));
}

TEST(Sampler, ValidateNamesTheFieldTheValueAndTheRange) {
  const auto message = [](SamplingParams params) {
    const Status status = validate(params, 100);
    return status ? std::string() : status.error().message;
  };
  EXPECT_EQ(message({}), "");
  EXPECT_EQ(message({.temperature = 3}), "temperature is 3; it must be between 0 and 2");
  EXPECT_EQ(message({.temperature = kNan}), "temperature is nan; it must be between 0 and 2");
  EXPECT_NE(message({.top_p = 0}), "");
  EXPECT_NE(message({.top_p = 1.01f}), "");
  EXPECT_NE(message({.min_p = -0.1f}), "");
  EXPECT_NE(message({.repetition_penalty = 0}), "");
  EXPECT_NE(message({.presence_penalty = 2.5f}), "");
  EXPECT_NE(message({.frequency_penalty = kInfinity}), "");
  EXPECT_NE(message({.top_logprobs = 21}), "");
  EXPECT_NE(message({.logit_bias = {{100, 1}}}), "");
  EXPECT_NE(message({.logit_bias = {{1, 101}}}), "");
}

}  // namespace
}  // namespace switchyard::model
