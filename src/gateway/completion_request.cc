#include "gateway/openai_request.h"

namespace switchyard::gateway {
namespace {

// Tokens that /v1/completions makes when the request does not say; OpenAI's default.
constexpr std::uint32_t kDefaultMaxTokens = 16;

bool is_token(const nlohmann::ordered_json& value) {
  return value.is_number_integer() && value >= 0 && value <= std::numeric_limits<std::int32_t>::max();
}

bool read_tokens(const nlohmann::ordered_json& array, std::vector<CompletionPrompt>& prompts) {
  std::vector<std::int32_t> tokens;
  tokens.reserve(array.size());
  for (const auto& token : array) {
    if (!is_token(token)) return false;
    tokens.push_back(token.get<std::int32_t>());
  }
  prompts.emplace_back(std::move(tokens));
  return true;
}

// A string, a list of strings, a list of token ids, or a list of lists of token ids.
void read_prompts(FieldReader& fields, const RequestLimits& limits, std::vector<CompletionPrompt>& prompts) {
  const auto* prompt = fields.find("prompt");
  if (prompt == nullptr) {
    fields.fail("prompt",
                "is required: a string, an array of strings, of token ids, or of arrays of token ids.");
    return;
  }
  if (prompt->is_string()) {
    prompts.emplace_back(prompt->get<std::string>());
    return;
  }
  bool good = prompt->is_array();
  if (good && prompt->empty()) {
    fields.fail("prompt", "must not be empty.");
    return;
  }
  if (good && prompt->front().is_number()) {
    good = read_tokens(*prompt, prompts);
  } else if (good) {
    if (prompt->size() > limits.max_choices) {
      fields.fail("prompt", "holds {} prompts; at most {} are served at once.", prompt->size(),
                  limits.max_choices);
      return;
    }
    const auto type = prompt->front().type();
    for (const auto& one : *prompt) {
      good = good && one.type() == type && (one.is_string() || one.is_array());
      if (good && one.is_string()) prompts.emplace_back(one.get<std::string>());
      if (good && one.is_array()) good = read_tokens(one, prompts);
    }
  }
  if (!good) {
    fields.fail("prompt", "must be a string, an array of strings, of token ids, or of arrays of token ids.");
  }
}

}  // namespace

ApiResult<CompletionRequest> parse_completion_request(std::string_view body, const RequestLimits& limits) {
  auto json = parse_json_object(body);
  if (!json) return tl::unexpected(std::move(json.error()));
  FieldReader fields(*json);
  CompletionRequest request;
  request.common = read_common(fields, limits);
  read_prompts(fields, limits, request.prompts);
  if (fields.ok() && request.prompts.size() * request.common.n > limits.max_choices) {
    fields.fail("n", "times the number of prompts is {}; at most {} choices are served at once.",
                request.prompts.size() * request.common.n, limits.max_choices);
  }
  request.echo = fields.boolean("echo").value_or(false);
  request.common.max_tokens = static_cast<std::uint32_t>(
      fields.integer("max_tokens", 0, std::numeric_limits<std::int32_t>::max()).value_or(kDefaultMaxTokens));
  // Some clients send false for "none".
  if (const auto* value = fields.find("logprobs"); value != nullptr && *value != false) {
    if (const auto top = fields.integer("logprobs", 0, limits.max_top_logprobs)) {
      request.common.sampling.logprobs = true;
      request.common.sampling.top_logprobs = static_cast<std::uint32_t>(*top);
    }
  }
  if (request.echo && request.common.sampling.logprobs) {
    fields.fail("echo",
                "together with 'logprobs' is not served: the prompt's log probabilities are not computed.");
  }
  if (const auto suffix = fields.string("suffix"); suffix && !suffix->empty()) {
    fields.fail("suffix", "is not served: the models here only continue text.");
  }
  if (!fields.ok()) return tl::unexpected(fields.error());
  return request;
}

}  // namespace switchyard::gateway
