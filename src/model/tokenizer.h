// Text to token ids and back, equal to Hugging Face's tokenizers on any text.
//
// Immutable after creation; every function may be called from any thread at once.
#pragma once

#include <cstdint>
#include <filesystem>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "model/gguf.h"
#include "model/tokenizer_spec.h"
#include "switchyard/result.h"

namespace switchyard::model {

// The checkpoint's tokenizer as data. Errors: corrupt, unsupported (naming the part that is not).
Result<TokenizerSpec> tokenizer_spec_from_gguf(const GgufMetadata& metadata);
// A directory with tokenizer.json and, if there, tokenizer_config.json and chat_template.jinja.
Result<TokenizerSpec> tokenizer_spec_from_directory(const std::filesystem::path& directory);

class Tokenizer {
 public:
  // Errors: corrupt, unsupported.
  static Result<std::unique_ptr<const Tokenizer>> create(TokenizerSpec spec);
  virtual ~Tokenizer() = default;

  struct EncodeOptions {
    bool add_special = true;    // BOS and EOS as the checkpoint wants them
    bool parse_special = true;  // "<|im_end|>" in the text is that token
    // Stops soon after it is clear that there are more tokens than this: then there are more in the result,
    // and none of them means anything.
    std::size_t max_tokens = std::numeric_limits<std::size_t>::max();
  };
  // Invalid UTF-8 is read as U+FFFD, as Hugging Face's Python strings do. Time and memory are linear in the
  // text but for a logarithm. Errors: none that depend on the text.
  virtual std::vector<std::int32_t> encode(std::string_view text, const EncodeOptions& options) const = 0;

  // Bytes of one token; may be a part of a character. Unknown ids: empty.
  virtual std::string token_bytes(std::int32_t token) const = 0;
  virtual std::string decode(std::span<const std::int32_t> tokens, bool skip_special = true) const = 0;
  virtual bool is_special(std::int32_t token) const = 0;
  virtual std::uint32_t vocab_size() const = 0;
  virtual const TokenizerSpec& spec() const = 0;
};

// Bytes of a growing output, given out only in whole characters: what ends in half a UTF-8 sequence waits.
// Equal to decode(), but that a SentencePiece run of byte tokens is judged byte by byte and not as a whole.
class TextStream {
 public:
  explicit TextStream(const Tokenizer& tokenizer, bool skip_special = true)
      : tokenizer_(&tokenizer), skip_special_(skip_special) {}
  // Text that this token completes; may be empty. Invalid sequences become U+FFFD.
  std::string push(std::int32_t token);
  // What still waits, at the end.
  std::string finish();

 private:
  const Tokenizer* tokenizer_;
  bool skip_special_;
  bool first_ = true;
  std::string waiting_;
};

}  // namespace switchyard::model
