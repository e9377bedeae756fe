#include "gateway/openai_request.h"

#include <charconv>

namespace switchyard::gateway {
namespace {

constexpr std::int64_t kMaxTokens = std::numeric_limits<std::int32_t>::max();

void read_stops(FieldReader& fields, const RequestLimits& limits, std::vector<std::string>& stops) {
  const auto* value = fields.find("stop");
  if (value == nullptr) return;
  const auto add = [&](const nlohmann::ordered_json& stop) {
    if (!stop.is_string()) {
      fields.fail("stop", "must be a string or an array of strings, holds {}.", json_kind(stop));
    } else if (stop.get_ref<const std::string&>().size() > limits.max_stop_bytes) {
      fields.fail("stop", "holds a string of more than {} bytes.", limits.max_stop_bytes);
    } else if (!stop.get_ref<const std::string&>().empty()) {  // an empty one never stops anything
      stops.push_back(stop.get<std::string>());
    }
  };
  if (!value->is_array()) return add(*value);
  if (value->size() > limits.max_stops) {
    fields.fail("stop", "holds {} strings; at most {} are served.", value->size(), limits.max_stops);
    return;
  }
  for (const auto& stop : *value) add(stop);
}

void read_logit_bias(FieldReader& fields, const RequestLimits& limits,
                     std::vector<model::LogitBias>& biases) {
  const auto* object = fields.object("logit_bias");
  if (object == nullptr) return;
  if (object->size() > limits.max_logit_bias) {
    fields.fail("logit_bias", "has {} entries; at most {} are served.", object->size(),
                limits.max_logit_bias);
    return;
  }
  for (const auto& [key, value] : object->items()) {
    model::LogitBias bias;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), bias.token);
    if (error != std::errc{} || end != key.data() + key.size() || bias.token < 0) {
      fields.fail("logit_bias", "has the key '{}'; keys must be token ids.", key.substr(0, 40));
      return;
    }
    if (!value.is_number() || !(value.get<double>() >= -100 && value.get<double>() <= 100)) {
      fields.fail("logit_bias", "must hold numbers from -100 to 100; token {} has another value.",
                  bias.token);
      return;
    }
    bias.bias = value.get<float>();
    biases.push_back(bias);
  }
}

void read_seed(FieldReader& fields, std::optional<std::uint64_t>& seed) {
  const auto* value = fields.find("seed");
  if (value == nullptr) return;
  if (!value->is_number_integer()) {
    fields.fail("seed", "must be an integer, is {}.", json_kind(*value));
  } else if (value->is_number_unsigned()) {
    seed = value->get<std::uint64_t>();
  } else {
    seed = static_cast<std::uint64_t>(value->get<std::int64_t>());
  }
}

void read_sampling(FieldReader& fields, const RequestLimits& limits, model::SamplingParams& sampling) {
  constexpr double kSmallest = std::numeric_limits<float>::min();
  const auto real = [&](const char* key, double least, double most, float& target) {
    if (const auto value = fields.number(key, least, most)) target = static_cast<float>(*value);
  };
  real("temperature", 0, 2, sampling.temperature);
  real("top_p", 0, 1, sampling.top_p);
  if (sampling.top_p < kSmallest) sampling.top_p = static_cast<float>(kSmallest);  // 0: the best token alone
  real("min_p", 0, 1, sampling.min_p);
  real("repetition_penalty", 0.01, 10, sampling.repetition_penalty);
  real("presence_penalty", -2, 2, sampling.presence_penalty);
  real("frequency_penalty", -2, 2, sampling.frequency_penalty);
  // -1 says "off" where 0 does too.
  if (const auto top_k = fields.integer("top_k", -1, kMaxTokens); top_k && *top_k > 0) {
    sampling.top_k = static_cast<std::uint32_t>(*top_k);
  }
  read_logit_bias(fields, limits, sampling.logit_bias);
}

void read_stream(FieldReader& fields, CommonRequest& request) {
  request.stream = fields.boolean("stream").value_or(false);
  const auto* options = fields.object("stream_options");
  if (options == nullptr) return;
  if (!request.stream) {
    fields.fail("stream_options", "is only allowed when 'stream' is true.");
    return;
  }
  FieldReader inner(*options, "stream_options.");
  request.include_usage = inner.boolean("include_usage").value_or(false);
  if (!inner.ok()) fields.fail(inner.error());
}

}  // namespace

CommonRequest read_common(FieldReader& fields, const RequestLimits& limits) {
  CommonRequest request;
  if (auto model = fields.string("model"); model && !model->empty()) {
    request.model = std::move(*model);
  } else {
    fields.fail("model", "is required: the id of a model that GET /v1/models lists.");
  }
  request.n = static_cast<std::uint32_t>(fields.integer("n", 1, limits.max_choices).value_or(1));
  read_stream(fields, request);
  read_stops(fields, limits, request.stops);
  read_seed(fields, request.seed);
  read_sampling(fields, limits, request.sampling);
  request.return_token_ids = fields.boolean("return_token_ids").value_or(false);
  request.ignore_eos = fields.boolean("ignore_eos").value_or(false);
  if (const auto best_of = fields.integer("best_of", 1, limits.max_choices);
      best_of && *best_of != request.n) {
    fields.fail("best_of", "is only served when equal to 'n' ({}), is {}.", request.n, *best_of);
  }
  if (const auto* format = fields.object("response_format")) {
    FieldReader inner(*format, "response_format.");
    const auto type = inner.string("type");
    if (!inner.ok()) {
      fields.fail(inner.error());
    } else if (type.value_or("text") != "text") {
      fields.fail("response_format", "of type '{}' is not served; only 'text' is.", type->substr(0, 40));
    }
  }
  return request;
}

ApiResult<ChatRequest> parse_chat_request(std::string_view body, const RequestLimits& limits) {
  auto json = parse_json_object(body);
  if (!json) return tl::unexpected(std::move(json.error()));
  FieldReader fields(*json);
  ChatRequest request;
  request.common = read_common(fields, limits);
  request.messages = read_messages(fields);
  request.tools = read_tools(fields);

  auto& sampling = request.common.sampling;
  sampling.logprobs = fields.boolean("logprobs").value_or(false);
  if (const auto top = fields.integer("top_logprobs", 0, limits.max_top_logprobs)) {
    if (!sampling.logprobs) fields.fail("top_logprobs", "is only allowed when 'logprobs' is true.");
    sampling.top_logprobs = static_cast<std::uint32_t>(*top);
  }
  const auto older = fields.integer("max_tokens", 1, kMaxTokens);
  const auto newer = fields.integer("max_completion_tokens", 1, kMaxTokens);
  if (const auto most = newer ? newer : older) request.common.max_tokens = static_cast<std::uint32_t>(*most);

  if (const auto* modalities = fields.array("modalities")) {
    for (const auto& modality : *modalities) {
      if (modality != "text") fields.fail("modalities", "may only hold 'text': this server answers in text.");
    }
  }
  for (const char* key : {"functions", "function_call", "audio"}) {
    if (fields.find(key) != nullptr) fields.fail(key, "is not served.");
  }
  if (!fields.ok()) return tl::unexpected(fields.error());
  return request;
}

}  // namespace switchyard::gateway
