// Pieces that both answer formats write.
#pragma once

#include <span>
#include <string_view>

#include "gateway/json_writer.h"
#include "gateway/openai_response.h"

namespace switchyard::gateway {

// id, object, created, model.
void write_head(JsonWriter& writer, const ReplyHead& head, std::string_view object);
void write_usage(JsonWriter& writer, const Usage& usage);
void write_finish_reason(JsonWriter& writer, std::string_view reason);
void write_token_ids(JsonWriter& writer, std::span<const DeliveredToken> tokens);
// OpenAI writes -9999 for probabilities that vanish; JSON has no infinity.
float presentable_logprob(float logprob);

}  // namespace switchyard::gateway
