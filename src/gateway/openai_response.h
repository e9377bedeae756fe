// Answers in OpenAI's form: whole ones, and the chunks of streams (JSON without the "data: " around it).
//
// Pure; any thread. Cost: one pass over the text and the tokens.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "gateway/choice_text.h"
#include "gateway/served_text.h"

namespace switchyard::gateway {

// What all chunks of one answer share.
struct ReplyHead {
  std::string id;  // "chatcmpl-…", "cmpl-…"
  std::int64_t created = 0;
  std::string model;
  bool include_usage = false;
  bool logprobs = false;
  bool top_logprobs = false;
  bool token_ids = false;
  std::shared_ptr<const ServedText> text;
};

struct Usage {
  std::uint64_t prompt_tokens = 0;
  std::uint64_t completion_tokens = 0;
};

// A choice, or the part of it that a chunk carries.
struct ChoicePart {
  std::uint32_t index = 0;
  std::string_view text;
  std::span<const DeliveredToken> tokens;
  std::string_view finish_reason;  // empty: goes on
};

class ReplyFormat {
 public:
  virtual ~ReplyFormat() = default;
  // The chunk that opens a choice; empty where the format has none.
  virtual std::string opening(std::uint32_t index) const = 0;
  virtual std::string chunk(const ChoicePart& part) const = 0;
  // The chunk without choices that stream_options.include_usage asks for.
  virtual std::string usage_chunk(const Usage& usage) const = 0;
  virtual std::string whole(std::span<const ChoicePart> choices, const Usage& usage) const = 0;
};

std::unique_ptr<const ReplyFormat> chat_format(ReplyHead head);
std::unique_ptr<const ReplyFormat> completion_format(ReplyHead head);

// "data: …\n\n"
std::string sse_event(std::string_view json);
inline constexpr std::string_view kSseDone = "data: [DONE]\n\n";

}  // namespace switchyard::gateway
