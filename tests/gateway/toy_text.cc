#include "gateway/toy_text.h"

#include <array>

namespace switchyard::gateway::testing {
namespace {

constexpr std::array<std::string_view, 7> kWords{"<|end|>", "<|begin|>", "<|user|>", "<|assistant|>",
                                                 "Hello",   " world",    "\xE2\x82"};
constexpr std::size_t kMarkers = 4;

// How many bytes the sequence that starts with `first` wants.
std::size_t wanted_bytes(char first) {
  const auto byte = static_cast<unsigned char>(first);
  return byte < 0xC0 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}

class ToyDecoder final : public TextDecoder {
 public:
  std::string push(std::int32_t token) override {
    if (token >= 256 && token < 256 + static_cast<std::int32_t>(kMarkers)) return {};
    waiting_ += toy_bytes(token);
    std::string whole;
    while (!waiting_.empty() && waiting_.size() >= wanted_bytes(waiting_[0])) {
      const std::size_t count = wanted_bytes(waiting_[0]);
      whole += waiting_.substr(0, count);
      waiting_.erase(0, count);
    }
    return whole;
  }
  std::string finish() override { return waiting_.empty() ? std::string() : std::string("\xEF\xBF\xBD"); }

 private:
  std::string waiting_;
};

class ToyText final : public ServedText {
 public:
  std::vector<std::int32_t> encode(std::string_view text, bool add_special, std::size_t most) const override {
    std::vector<std::int32_t> tokens;
    if (add_special) tokens.push_back(kToyBegin);
    while (!text.empty() && tokens.size() <= most) {
      std::size_t word = 0;
      while (word < kMarkers && !text.starts_with(kWords[word])) ++word;
      if (word < kMarkers) {
        tokens.push_back(256 + static_cast<std::int32_t>(word));
        text.remove_prefix(kWords[word].size());
      } else {
        tokens.push_back(static_cast<unsigned char>(text[0]));
        text.remove_prefix(1);
      }
    }
    return tokens;
  }

  Result<std::string> render_chat(const nlohmann::ordered_json& messages,
                                  const nlohmann::ordered_json& tools) const override {
    std::string text;
    if (!tools.is_null()) text += "tools:" + tools.dump();
    for (const auto& message : messages) {
      if (message["content"] == "refuse") return fail(ErrorCode::invalid, "roles must alternate");
      text += message["role"] == "assistant" ? "<|assistant|>" : "<|user|>";
      text += message["content"].get<std::string>();
    }
    return text + "<|assistant|>";
  }

  std::string token_bytes(std::int32_t token) const override { return toy_bytes(token); }
  std::string decode(std::span<const std::int32_t> tokens) const override {
    std::string text;
    for (const auto token : tokens) text += toy_bytes(token);
    return text;
  }
  std::unique_ptr<TextDecoder> decoder() const override { return std::make_unique<ToyDecoder>(); }
  std::uint32_t vocab_size() const override { return kToyVocab; }
  const std::vector<std::int32_t>& end_tokens() const override { return end_tokens_; }

 private:
  std::vector<std::int32_t> end_tokens_{kToyEnd};
};

}  // namespace

Result<std::shared_ptr<const ServedText>> toy_text(const pool::ServedModel&) {
  return std::make_shared<const ToyText>();
}

std::vector<std::int32_t> byte_tokens(std::string_view text) {
  std::vector<std::int32_t> tokens;
  for (const char byte : text) tokens.push_back(static_cast<unsigned char>(byte));
  return tokens;
}

std::string toy_bytes(std::int32_t token) {
  if (token >= 0 && token < 256) return std::string(1, static_cast<char>(token));
  if (token >= 256 && token < static_cast<std::int32_t>(kToyVocab)) {
    return std::string(kWords[static_cast<std::size_t>(token - 256)]);
  }
  return {};
}

}  // namespace switchyard::gateway::testing
