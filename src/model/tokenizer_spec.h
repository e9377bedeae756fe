// A tokenizer as data: what the checkpoint says, in one form for GGUF and tokenizer.json, ready to be stored.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "switchyard/result.h"

namespace switchyard::model {

enum class TokenKind : std::uint8_t {
  normal = 1,
  unknown = 2,
  control = 3,
  user_defined = 4,
  unused = 5,
  byte = 6
};

// A token that is cut out of the text before anything else happens to it.
struct AddedToken {
  std::int32_t id = 0;
  std::string content;
  bool special = false;
  bool lstrip = false;
  bool rstrip = false;
  bool single_word = false;
  bool normalized = false;  // looked for after normalisation, not before
  friend bool operator==(const AddedToken&, const AddedToken&) = default;
};

// Where add_prefix_space puts its space (or its U+2581).
enum class PrefixStyle : std::uint8_t {
  always,              // before every stretch of text between added tokens, whatever it begins with
  unless_there,        // the same, but not before a space
  first_unless_there,  // only at the very start of the text, not before a space
};

// What decoding does with the space that add_prefix_space put in front.
enum class LeadingSpace : std::uint8_t {
  kept,
  one_removed,          // one space at the start of the text
  first_token_removed,  // every space of the first token
};

// One step of cutting text into words, in order.
struct SplitRule {
  enum class Kind : std::uint8_t { pattern, digits_individually, digits_runs, punctuation, whitespace };
  // contiguous: neighbouring matches stay together.
  enum class Behaviour : std::uint8_t {
    isolated,
    removed,
    merged_with_previous,
    merged_with_next,
    contiguous
  };
  Kind kind = Kind::pattern;
  std::string pattern;  // PCRE2, UTF and UCP on
  Behaviour behaviour = Behaviour::isolated;
  bool invert = false;
  friend bool operator==(const SplitRule&, const SplitRule&) = default;
};

struct TokenizerSpec {
  enum class Algorithm : std::uint8_t { byte_level_bpe, sentencepiece_bpe };
  Algorithm algorithm = Algorithm::byte_level_bpe;
  std::vector<std::string> tokens;  // as stored: byte-level tokens in GPT-2's printable alphabet
  std::vector<TokenKind> kinds;     // parallel to tokens
  std::vector<float> scores;        // SentencePiece from GGUF; else empty
  std::vector<std::pair<std::string, std::string>> merges;  // best first
  std::vector<AddedToken> added;
  std::vector<SplitRule> splits;
  bool normalize_nfc = false;
  bool ignore_merges = false;  // a word that is a token is taken whole
  bool byte_fallback = false;
  bool blanks_late = false;   // SentencePiece: spaces become U+2581 only when added tokens have been found
  bool fuse_unknown = false;  // neighbouring unknown characters become one unknown token
  bool add_prefix_space = false;
  PrefixStyle prefix_style = PrefixStyle::always;
  LeadingSpace leading_space = LeadingSpace::kept;
  bool add_bos = false;
  bool add_eos = false;
  std::int32_t bos = -1;
  std::int32_t eos = -1;
  std::int32_t unknown = -1;
  std::int32_t pad = -1;
  std::string chat_template;  // Jinja source; empty: the model has none

  std::vector<std::byte> serialize() const;
  // Errors: corrupt.
  static Result<TokenizerSpec> parse(std::span<const std::byte> bytes);
  friend bool operator==(const TokenizerSpec&, const TokenizerSpec&) = default;
};

}  // namespace switchyard::model
