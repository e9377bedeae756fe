// Text on one side, tokens on the other: what the gateway needs of a model besides its tokens.
//
// Immutable; any thread. A TextDecoder belongs to one choice of one request.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "pool/generator.h"
#include "switchyard/result.h"

namespace switchyard::gateway {

// Tokens of a growing output to text, in whole characters.
class TextDecoder {
 public:
  virtual ~TextDecoder() = default;
  virtual std::string push(std::int32_t token) = 0;
  // What still waited for the rest of a character.
  virtual std::string finish() = 0;
};

class ServedText {
 public:
  virtual ~ServedText() = default;

  // `add_special`: with the BOS and EOS that the checkpoint wants around a text. Stops when there are more
  // than `most` tokens, or are sure to be: then there are more than `most` in the result, of which none means
  // anything.
  virtual std::vector<std::int32_t> encode(std::string_view text, bool add_special,
                                           std::size_t most) const = 0;
  // The chat template over the messages, up to where the assistant speaks. `tools`: an array, or null.
  // Errors: unsupported (the model has no template), invalid (the template refuses the messages), exhausted.
  virtual Result<std::string> render_chat(const nlohmann::ordered_json& messages,
                                          const nlohmann::ordered_json& tools) const = 0;
  virtual std::string token_bytes(std::int32_t token) const = 0;
  virtual std::string decode(std::span<const std::int32_t> tokens) const = 0;
  virtual std::unique_ptr<TextDecoder> decoder() const = 0;
  virtual std::uint32_t vocab_size() const = 0;
  virtual const std::vector<std::int32_t>& end_tokens() const = 0;
};

using ServedTextFactory = std::function<Result<std::shared_ptr<const ServedText>>(const pool::ServedModel&)>;

// From the tokenizer and the template in the model's image. Errors: corrupt, unsupported, invalid (no image).
Result<std::shared_ptr<const ServedText>> served_text_from_image(const pool::ServedModel& model);

}  // namespace switchyard::gateway
