// Requests of the OpenAI API, checked: what the body says, without the model's help.
//
// Unknown fields are ignored, null is absent, what is known but not served is an error that says so. Pure;
// any thread.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "gateway/admission_error.h"
#include "gateway/api_error.h"
#include "gateway/json_reader.h"
#include "model/sampler.h"

namespace switchyard::gateway {

struct RequestLimits {
  std::uint32_t max_choices = 128;         // prompts × n of one request
  std::uint32_t max_stops = 16;            // OpenAI: 4
  std::uint32_t max_stop_bytes = 1024;     // of one stop string
  std::uint32_t max_logit_bias = 1024;     // entries
  std::uint64_t max_echo_bytes = 8 << 20;  // of prompts, repeated for each of their choices
  std::uint32_t max_top_logprobs = model::SamplingParams::kMaxTopLogprobs;
  AdmissionLimits admission;  // the pool's, of which a request is told that could never get in
};

// What both endpoints know.
struct CommonRequest {
  std::string model;
  std::uint32_t n = 1;
  std::optional<std::uint32_t> max_tokens;
  std::vector<std::string> stops;
  std::optional<std::uint64_t> seed;
  model::SamplingParams sampling;  // without the seed
  bool stream = false;
  bool include_usage = false;     // stream_options
  bool return_token_ids = false;  // extension: token ids beside the text
  bool ignore_eos = false;        // extension: end tokens do not end a generation
};

struct ChatRequest {
  CommonRequest common;
  nlohmann::ordered_json messages;  // [{role, content: string, …}], as templates want them
  nlohmann::ordered_json tools;     // an array, or null
};

using CompletionPrompt = std::variant<std::string, std::vector<std::int32_t>>;

struct CompletionRequest {
  CommonRequest common;
  std::vector<CompletionPrompt> prompts;
  bool echo = false;
};

ApiResult<ChatRequest> parse_chat_request(std::string_view body, const RequestLimits& limits);
ApiResult<CompletionRequest> parse_completion_request(std::string_view body, const RequestLimits& limits);

// Parts of the above. Errors stay in `fields`.
CommonRequest read_common(FieldReader& fields, const RequestLimits& limits);
nlohmann::ordered_json read_messages(FieldReader& fields);
nlohmann::ordered_json read_tools(FieldReader& fields);

}  // namespace switchyard::gateway
