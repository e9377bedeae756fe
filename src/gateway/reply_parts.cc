#include "gateway/reply_parts.h"

#include <cmath>

namespace switchyard::gateway {

void write_head(JsonWriter& writer, const ReplyHead& head, std::string_view object) {
  writer.key("id").string(head.id);
  writer.key("object").string(object);
  writer.key("created").integer(head.created);
  writer.key("model").string(head.model);
}

void write_usage(JsonWriter& writer, const Usage& usage) {
  writer.key("usage").begin_object();
  writer.key("prompt_tokens").integer(static_cast<std::int64_t>(usage.prompt_tokens));
  writer.key("completion_tokens").integer(static_cast<std::int64_t>(usage.completion_tokens));
  writer.key("total_tokens")
      .integer(static_cast<std::int64_t>(usage.prompt_tokens + usage.completion_tokens));
  writer.end_object();
}

void write_finish_reason(JsonWriter& writer, std::string_view reason) {
  writer.key("finish_reason");
  if (reason.empty()) {
    writer.null();
  } else {
    writer.string(reason);
  }
}

void write_token_ids(JsonWriter& writer, std::span<const DeliveredToken> tokens) {
  writer.key("token_ids").begin_array();
  for (const auto& token : tokens) writer.integer(token.token.token);
  writer.end_array();
}

float presentable_logprob(float logprob) { return std::isfinite(logprob) ? logprob : -9999.0f; }

std::string sse_event(std::string_view json) {
  std::string event;
  event.reserve(json.size() + 8);
  event += "data: ";
  event += json;
  event += "\n\n";
  return event;
}

}  // namespace switchyard::gateway
