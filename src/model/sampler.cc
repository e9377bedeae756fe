#include "model/sampler.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <limits>

#include "model/cpu/kernels.h"
#include "model/philox.h"

namespace switchyard::model {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kLargest = std::numeric_limits<float>::max();
// Below, the distribution is the best token in floats.
constexpr float kLeastTemperature = 1e-5f;
constexpr float kLeastLogprob = -9999.0f;
constexpr std::size_t kMaxLogitBias = 4096;

// Natural logarithm of a positive number by arithmetic alone, so that it is the same on every machine:
// x = m 2^e with m near 1, and log m = 2 artanh((m - 1) / (m + 1)).
double natural_log(double x) {
  int exponent = 0;
  double m = std::frexp(x, &exponent);
  if (m < 0.70710678118654752) {
    m *= 2;
    --exponent;
  }
  const double s = (m - 1) / (m + 1);
  const double square = s * s;
  double series = 0;
  for (int n = 23; n >= 1; n -= 2) series = series * square + 1.0 / n;
  return 2 * s * series + exponent * 0.693147180559945309;
}

struct Candidate {
  std::int32_t token = 0;
  float value = 0;

  // Of equals, the lowest id comes first.
  friend bool operator<(const Candidate& a, const Candidate& b) {
    return a.value != b.value ? a.value > b.value : a.token < b.token;
  }
};

// The `count` first of all values, in order.
std::vector<Candidate> first_candidates(std::span<const float> values, std::size_t count) {
  if (count == 0) return {};
  std::vector<Candidate> heap;  // the last of those kept is on top
  heap.reserve(count);
  for (std::size_t i = 0; i < values.size(); ++i) {
    const Candidate candidate{static_cast<std::int32_t>(i), values[i]};
    if (heap.size() < count) {
      heap.push_back(candidate);
      std::push_heap(heap.begin(), heap.end());
    } else if (candidate < heap.front()) {
      std::pop_heap(heap.begin(), heap.end());
      heap.back() = candidate;
      std::push_heap(heap.begin(), heap.end());
    }
  }
  std::sort_heap(heap.begin(), heap.end());
  return heap;
}

std::int32_t best_token(std::span<const float> logits) {
  return static_cast<std::int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

void penalise_repetition(std::span<float> logits, float penalty, std::span<const std::int32_t> prompt,
                         std::span<const std::int32_t> output) {
  std::vector<std::int32_t> seen(prompt.begin(), prompt.end());
  seen.insert(seen.end(), output.begin(), output.end());
  std::sort(seen.begin(), seen.end());
  seen.erase(std::unique(seen.begin(), seen.end()), seen.end());
  for (const std::int32_t token : seen) {
    if (token < 0 || static_cast<std::size_t>(token) >= logits.size()) continue;
    float& logit = logits[static_cast<std::size_t>(token)];
    logit = logit > 0 ? logit / penalty : logit * penalty;
  }
}

void penalise_output(std::span<float> logits, float presence, float frequency,
                     std::span<const std::int32_t> output) {
  std::vector<std::int32_t> sorted(output.begin(), output.end());
  std::sort(sorted.begin(), sorted.end());
  for (std::size_t i = 0; i < sorted.size();) {
    std::size_t end = i;
    while (end < sorted.size() && sorted[end] == sorted[i]) ++end;
    if (sorted[i] >= 0 && static_cast<std::size_t>(sorted[i]) < logits.size()) {
      logits[static_cast<std::size_t>(sorted[i])] -= presence + frequency * static_cast<float>(end - i);
    }
    i = end;
  }
}

// Bias and penalties, in place; afterwards no logit is NaN or +inf.
void adjust(std::span<float> logits, const SamplingParams& params, std::span<const std::int32_t> prompt,
            std::span<const std::int32_t> output) {
  for (float& logit : logits) {
    if (std::isnan(logit)) logit = -kInfinity;
    logit = std::min(logit, kLargest);
  }
  for (const LogitBias& bias : params.logit_bias) {
    if (bias.token >= 0 && static_cast<std::size_t>(bias.token) < logits.size()) {
      logits[static_cast<std::size_t>(bias.token)] += bias.bias;
    }
  }
  if (params.repetition_penalty != 1.0f)
    penalise_repetition(logits, params.repetition_penalty, prompt, output);
  if (params.presence_penalty != 0.0f || params.frequency_penalty != 0.0f) {
    penalise_output(logits, params.presence_penalty, params.frequency_penalty, output);
  }
}

// The smallest run of the best whose weight is `top_p` of the total. Only the largest are sorted: the bound
// on what is looked at is lowered until they suffice, which does not change the result.
std::vector<Candidate> nucleus(std::span<const float> weights, double wanted) {
  for (float bound = 1e-3f;; bound = bound > 1e-30f ? bound * 1e-3f : 0.0f) {
    std::vector<Candidate> kept;
    double sum = 0;
    for (std::size_t i = 0; i < weights.size(); ++i) {
      if (weights[i] > bound) {
        kept.push_back({static_cast<std::int32_t>(i), weights[i]});
        sum += weights[i];
      }
    }
    if (sum < wanted && bound > 0) continue;
    std::sort(kept.begin(), kept.end());
    return kept;
  }
}

void cut_at(std::vector<Candidate>& sorted, double wanted) {
  double sum = 0;
  for (std::size_t i = 0; i < sorted.size(); ++i) {
    sum += sorted[i].value;
    if (sum >= wanted) {
      sorted.resize(i + 1);
      return;
    }
  }
}

// The token at which the running sum of weights passes `point` of their total.
std::int32_t pick(std::span<const Candidate> candidates, double point) {
  double total = 0;
  for (const Candidate& candidate : candidates) total += candidate.value;
  double sum = 0;
  for (const Candidate& candidate : candidates) {
    sum += candidate.value;
    if (sum > point * total) return candidate.token;
  }
  return candidates.back().token;
}

std::int32_t pick(std::span<const float> weights, double total, double point) {
  double sum = 0;
  std::size_t last = 0;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    if (weights[i] == 0.0f) continue;
    sum += weights[i];
    last = i;
    if (sum > point * total) break;
  }
  return static_cast<std::int32_t>(last);
}

// Draws from softmax(logits / temperature), truncated by top-k, then top-p, then min-p. Overwrites the
// logits.
std::int32_t draw(std::span<float> logits, float maximum, const SamplingParams& params, double point) {
  cpu::best_kernels().exponentials(logits.data(), static_cast<std::uint32_t>(logits.size()), maximum,
                                   1.0f / params.temperature);
  const std::span<const float> weights = logits;
  std::vector<Candidate> kept;
  const bool limited = params.top_k > 0 && params.top_k < weights.size();
  if (limited) kept = first_candidates(weights, params.top_k);
  if (!limited && params.top_p >= 1.0f && params.min_p <= 0.0f) {
    double total = 0;
    for (const float weight : weights) total += weight;
    return pick(weights, total, point);
  }
  if (params.top_p < 1.0f) {
    double total = 0;
    if (limited) {
      for (const Candidate& candidate : kept) total += candidate.value;
    } else {
      for (const float weight : weights) total += weight;
      kept = nucleus(weights, params.top_p * total);
    }
    cut_at(kept, params.top_p * total);
  } else if (!limited) {
    for (std::size_t i = 0; i < weights.size(); ++i) {
      if (weights[i] >= params.min_p) kept.push_back({static_cast<std::int32_t>(i), weights[i]});
    }
  }
  // The largest weight is 1.
  std::erase_if(kept, [&](const Candidate& candidate) {
    return candidate.value < params.min_p || candidate.value == 0.0f;
  });
  return pick(kept, point);
}

Status check(bool holds, const char* field, double value, const char* range) {
  if (holds) return {};
  return fail(ErrorCode::invalid, "{} is {}; it must be {}", field, value, range);
}

}  // namespace

Status validate(const SamplingParams& params, std::uint32_t vocab) {
  const auto within = [](float value, float low, float high) { return value >= low && value <= high; };
  const Status checks[] = {
      check(within(params.temperature, 0, 2), "temperature", params.temperature, "between 0 and 2"),
      check(params.top_k <= vocab, "top_k", params.top_k, "at most the size of the vocabulary"),
      check(params.top_p > 0 && params.top_p <= 1, "top_p", params.top_p, "above 0 and at most 1"),
      check(within(params.min_p, 0, 1), "min_p", params.min_p, "between 0 and 1"),
      check(params.repetition_penalty > 0 && params.repetition_penalty <= 10, "repetition_penalty",
            params.repetition_penalty, "above 0 and at most 10"),
      check(within(params.presence_penalty, -2, 2), "presence_penalty", params.presence_penalty,
            "between -2 and 2"),
      check(within(params.frequency_penalty, -2, 2), "frequency_penalty", params.frequency_penalty,
            "between -2 and 2"),
      check(params.top_logprobs <= SamplingParams::kMaxTopLogprobs, "top_logprobs", params.top_logprobs,
            "at most 20"),
      check(params.logit_bias.size() <= kMaxLogitBias, "the number of entries of logit_bias",
            static_cast<double>(params.logit_bias.size()), "at most 4096")};
  for (const Status& status : checks) {
    if (!status) return status;
  }
  for (const LogitBias& bias : params.logit_bias) {
    if (bias.token < 0 || static_cast<std::uint32_t>(bias.token) >= vocab) {
      return fail(ErrorCode::invalid, "logit_bias names token {}; the vocabulary has {}", bias.token, vocab);
    }
    if (!within(bias.bias, -100, 100)) {
      return fail(ErrorCode::invalid, "logit_bias of token {} is {}; it must be between -100 and 100",
                  bias.token, bias.bias);
    }
  }
  return {};
}

Status check_logits(std::span<const float> logits) {
  // In integers, which compilers turn into vectors. NaN and infinity have all bits of the exponent.
  constexpr std::uint32_t kExponent = 0x7f800000, kNegativeInfinity = 0xff800000;
  std::uint32_t wrong = 0, finite = 0;
  for (const float logit : logits) {
    const auto bits = std::bit_cast<std::uint32_t>(logit);
    const bool number = (bits & kExponent) != kExponent;
    finite |= static_cast<std::uint32_t>(number);
    wrong |= static_cast<std::uint32_t>(!number) & static_cast<std::uint32_t>(bits != kNegativeInfinity);
  }
  if (wrong == 0 && finite != 0) return {};
  return fail(ErrorCode::corrupt,
              "the model has computed no numbers to choose a token by (NaN or infinity): its weights are "
              "damaged, or leave the range of 32-bit floats with this prompt");
}

SampledToken sample(std::span<float> logits, const SamplingParams& params,
                    std::span<const std::int32_t> prompt, std::span<const std::int32_t> output) {
  SampledToken sampled;
  if (logits.empty()) return sampled;
  adjust(logits, params, prompt, output);
  const std::int32_t best = best_token(logits);
  const float maximum = logits[static_cast<std::size_t>(best)];

  const bool wants_logprobs = params.logprobs || params.top_logprobs > 0;
  std::vector<float> before;  // the draw overwrites the logits
  double log_total = 0;
  if (wants_logprobs) {
    before.assign(logits.begin(), logits.end());
    std::vector<float> weights = before;
    cpu::best_kernels().exponentials(weights.data(), static_cast<std::uint32_t>(weights.size()), maximum,
                                     1.0f);
    double total = 0;
    for (const float weight : weights) total += weight;
    log_total = total > 0 ? maximum + natural_log(total) : 0;
  }
  const bool nothing = maximum == -kInfinity;
  sampled.token =
      params.temperature < kLeastTemperature || nothing
          ? best
          : draw(logits, maximum, params, philox_uniform(params.seed, prompt.size() + output.size()));
  if (wants_logprobs) {
    const auto logprob = [&](float logit) {
      return std::max(static_cast<float>(logit - log_total), kLeastLogprob);
    };
    sampled.logprob = logprob(before[static_cast<std::size_t>(sampled.token)]);
    for (const Candidate& candidate :
         first_candidates(before, std::min<std::size_t>(params.top_logprobs, before.size()))) {
      sampled.top.push_back({candidate.token, logprob(candidate.value)});
    }
  }
  return sampled;
}

}  // namespace switchyard::model
