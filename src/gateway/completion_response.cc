#include <fmt/format.h>

#include <iterator>
#include <set>
#include <utility>

#include "gateway/reply_parts.h"

namespace switchyard::gateway {
namespace {

// A token as a name: its text or, where its bytes are only a part of a character, "bytes:\xe2\x82".
std::string token_name(const ServedText& text, std::int32_t token) {
  std::string bytes = text.token_bytes(token);
  if (is_utf8(bytes)) return bytes;
  std::string name = "bytes:";
  for (const char byte : bytes) {
    fmt::format_to(std::back_inserter(name), "\\x{:02x}", static_cast<unsigned char>(byte));
  }
  return name;
}

class CompletionFormat final : public ReplyFormat {
 public:
  explicit CompletionFormat(ReplyHead head) : head_(std::move(head)) {}

  std::string opening(std::uint32_t) const override { return {}; }

  std::string chunk(const ChoicePart& part) const override {
    std::string json;
    JsonWriter writer(json);
    writer.begin_object();
    write_head(writer, head_, "text_completion");
    writer.key("choices").begin_array();
    write_choice(writer, part);
    writer.end_array();
    if (head_.include_usage) writer.key("usage").null();
    writer.end_object();
    return json;
  }

  std::string usage_chunk(const Usage& usage) const override { return whole({}, usage); }

  std::string whole(std::span<const ChoicePart> choices, const Usage& usage) const override {
    std::string json;
    JsonWriter writer(json);
    writer.begin_object();
    write_head(writer, head_, "text_completion");
    writer.key("choices").begin_array();
    for (const ChoicePart& choice : choices) write_choice(writer, choice);
    writer.end_array();
    write_usage(writer, usage);
    writer.end_object();
    return json;
  }

 private:
  void write_choice(JsonWriter& writer, const ChoicePart& part) const {
    writer.begin_object();
    writer.key("index").integer(part.index);
    writer.key("text").string(part.text);
    writer.key("logprobs");
    if (head_.logprobs && !part.tokens.empty()) {
      write_logprobs(writer, part.tokens);
    } else {
      writer.null();
    }
    if (head_.token_ids) write_token_ids(writer, part.tokens);
    write_finish_reason(writer, part.finish_reason);
    writer.end_object();
  }

  void write_logprobs(JsonWriter& writer, std::span<const DeliveredToken> tokens) const {
    writer.begin_object();
    writer.key("tokens").begin_array();
    for (const auto& token : tokens) {
      if (!token.cut) writer.string(token_name(*head_.text, token.token.token));
    }
    writer.end_array().key("token_logprobs").begin_array();
    for (const auto& token : tokens) {
      if (!token.cut) writer.number(presentable_logprob(token.token.logprob));
    }
    writer.end_array().key("top_logprobs");
    if (head_.top_logprobs) {
      writer.begin_array();
      for (const auto& token : tokens) {
        if (!token.cut) write_alternatives(writer, token.token);
      }
      writer.end_array();
    } else {
      writer.null();
    }
    writer.key("text_offset").begin_array();
    for (const auto& token : tokens) {
      if (!token.cut) writer.integer(static_cast<std::int64_t>(token.text_offset));
    }
    writer.end_array().end_object();
  }

  // The best tokens, and the one taken when it is not among them; different tokens may have one name.
  void write_alternatives(JsonWriter& writer, const model::SampledToken& token) const {
    std::set<std::string> names;
    writer.begin_object();
    const auto write = [&](std::int32_t id, float logprob) {
      if (auto [name, is_new] = names.insert(token_name(*head_.text, id)); is_new) {
        writer.key(*name).number(presentable_logprob(logprob));
      }
    };
    for (const auto& alternative : token.top) write(alternative.token, alternative.logprob);
    write(token.token, token.logprob);
    writer.end_object();
  }

  ReplyHead head_;
};

}  // namespace

std::unique_ptr<const ReplyFormat> completion_format(ReplyHead head) {
  return std::make_unique<CompletionFormat>(std::move(head));
}

}  // namespace switchyard::gateway
