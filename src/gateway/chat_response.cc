#include <utility>
#include <vector>

#include "gateway/reply_parts.h"

namespace switchyard::gateway {
namespace {

class ChatFormat final : public ReplyFormat {
 public:
  explicit ChatFormat(ReplyHead head) : head_(std::move(head)) {}

  std::string opening(std::uint32_t index) const override {
    return chunk_with(index, {}, {}, [](JsonWriter& delta) {
      delta.key("role").string("assistant");
      delta.key("content").string("");
    });
  }

  std::string chunk(const ChoicePart& part) const override {
    return chunk_with(part.index, part.tokens, part.finish_reason, [&part](JsonWriter& delta) {
      if (!part.text.empty()) delta.key("content").string(part.text);
    });
  }

  std::string usage_chunk(const Usage& usage) const override {
    std::string json;
    JsonWriter writer(json);
    writer.begin_object();
    write_head(writer, head_, "chat.completion.chunk");
    writer.key("choices").begin_array().end_array();
    write_usage(writer, usage);
    writer.end_object();
    return json;
  }

  std::string whole(std::span<const ChoicePart> choices, const Usage& usage) const override {
    std::string json;
    JsonWriter writer(json);
    writer.begin_object();
    write_head(writer, head_, "chat.completion");
    writer.key("choices").begin_array();
    for (const ChoicePart& choice : choices) {
      writer.begin_object().key("index").integer(choice.index);
      writer.key("message").begin_object();
      writer.key("role")
          .string("assistant")
          .key("content")
          .string(choice.text)
          .key("refusal")
          .null()
          .end_object();
      write_logprobs(writer, choice.tokens);
      if (head_.token_ids) write_token_ids(writer, choice.tokens);
      write_finish_reason(writer, choice.finish_reason);
      writer.end_object();
    }
    writer.end_array();
    write_usage(writer, usage);
    writer.end_object();
    return json;
  }

 private:
  template <class WriteDelta>
  std::string chunk_with(std::uint32_t index, std::span<const DeliveredToken> tokens,
                         std::string_view finish_reason, WriteDelta write_delta) const {
    std::string json;
    JsonWriter writer(json);
    writer.begin_object();
    write_head(writer, head_, "chat.completion.chunk");
    writer.key("choices").begin_array().begin_object();
    writer.key("index").integer(index);
    writer.key("delta").begin_object();
    write_delta(writer);
    writer.end_object();
    write_logprobs(writer, tokens);
    if (head_.token_ids) write_token_ids(writer, tokens);
    write_finish_reason(writer, finish_reason);
    writer.end_object().end_array();
    if (head_.include_usage) writer.key("usage").null();
    writer.end_object();
    return json;
  }

  void write_token(JsonWriter& writer, std::int32_t token, float logprob) const {
    const std::string bytes = head_.text->token_bytes(token);
    writer.key("token").string(bytes);
    writer.key("logprob").number(presentable_logprob(logprob));
    writer.key("bytes").begin_array();
    for (const char byte : bytes) writer.integer(static_cast<unsigned char>(byte));
    writer.end_array();
  }

  void write_logprobs(JsonWriter& writer, std::span<const DeliveredToken> tokens) const {
    writer.key("logprobs");
    if (!head_.logprobs || tokens.empty()) {
      writer.null();
      return;
    }
    writer.begin_object().key("content").begin_array();
    for (const auto& [token, offset, cut] : tokens) {
      if (cut) continue;
      writer.begin_object();
      write_token(writer, token.token, token.logprob);
      writer.key("top_logprobs").begin_array();
      for (const auto& alternative : token.top) {
        writer.begin_object();
        write_token(writer, alternative.token, alternative.logprob);
        writer.end_object();
      }
      writer.end_array().end_object();
    }
    writer.end_array().key("refusal").null().end_object();
  }

  ReplyHead head_;
};

}  // namespace

std::unique_ptr<const ReplyFormat> chat_format(ReplyHead head) {
  return std::make_unique<ChatFormat>(std::move(head));
}

}  // namespace switchyard::gateway
