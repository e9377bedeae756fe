// From a request's body to what is asked of the pool and how the answer is written.
//
// Everything that needs the model's tokenizer and template happens here, so that it can run away from the I/O
// thread. Pure but for random ids and seeds; any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "gateway/model_table.h"
#include "gateway/openai_request.h"
#include "gateway/openai_response.h"

namespace switchyard::gateway {

struct PreparedPrompt {
  std::vector<std::int32_t> tokens;
  std::uint32_t max_tokens = 0;
  std::string echo;  // text to deliver before the output
};

struct PreparedRequest {
  std::string id;
  std::shared_ptr<const ModelEntry> model;
  std::vector<PreparedPrompt> prompts;
  std::uint32_t n = 1;             // choices per prompt
  model::SamplingParams sampling;  // with the request's seed
  std::vector<std::int32_t> end_tokens;
  std::vector<std::string> stops;
  bool stream = false;
  bool include_usage = false;
  bool keep_tokens = false;  // the answer carries tokens, not text alone
  Nanos refill{};            // until rates that it has used up allow as much again, but for one choice
  std::shared_ptr<const ReplyFormat> format;
};

using Preparation = ApiResult<std::shared_ptr<const PreparedRequest>>;

Preparation prepare_chat(std::string_view body, const ModelTable& models, const RequestLimits& limits);
Preparation prepare_completion(std::string_view body, const ModelTable& models, const RequestLimits& limits);

// The seed of the index-th choice of a prompt; index 0 has the request's own.
std::uint64_t choice_seed(std::uint64_t seed, std::uint32_t index);

}  // namespace switchyard::gateway
