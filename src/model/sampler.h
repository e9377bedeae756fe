// Choosing the next token from logits.
//
// Pure: the result depends on the logits, the parameters, the request's own tokens and the token's position.
// The random number of a token is a hash of the request's seed and the position, so that a request which is
// replayed elsewhere continues with the same tokens.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "switchyard/result.h"

namespace switchyard::model {

struct LogitBias {
  std::int32_t token = 0;
  float bias = 0;
};

struct SamplingParams {
  float temperature = 1.0f;  // 0 (or below 1e-5): greedy
  std::uint32_t top_k = 0;   // 0: off
  float top_p = 1.0f;
  float min_p = 0.0f;
  float repetition_penalty = 1.0f;  // over prompt and output (Keskar et al. 2019)
  float presence_penalty = 0.0f;    // over output, as OpenAI defines it
  float frequency_penalty = 0.0f;   // over output, as OpenAI defines it
  std::uint64_t seed = 0;
  std::uint32_t top_logprobs = 0;  // alternatives to report, at most kMaxTopLogprobs
  bool logprobs = false;
  std::vector<LogitBias> logit_bias;  // added before anything else

  static constexpr std::uint32_t kMaxTopLogprobs = 20;
};

// Errors: invalid, naming the field, the value and the range.
Status validate(const SamplingParams& params, std::uint32_t vocab);

// Whether a token can be chosen: the largest of them is a number, and none is NaN. Costs one reading. Errors:
// corrupt.
Status check_logits(std::span<const float> logits);

struct TokenLogprob {
  std::int32_t token = 0;
  float logprob = 0;  // natural, after bias and penalties, before temperature and truncation; at least -9999
};

struct SampledToken {
  std::int32_t token = 0;
  float logprob = 0;  // only when asked for
  std::vector<TokenLogprob> top;
};

// `logits`: vocab floats, changed in place. `prompt` and `output`: the request's tokens so far; the new
// token's position is prompt.size() + output.size(). Greedy takes the lowest id among equals. NaNs count as
// -inf.
SampledToken sample(std::span<float> logits, const SamplingParams& params,
                    std::span<const std::int32_t> prompt, std::span<const std::int32_t> output);

}  // namespace switchyard::model
