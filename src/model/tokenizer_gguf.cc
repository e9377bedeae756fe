// A tokenizer as GGUF's metadata has it ("tokenizer.ggml.*").
#include <algorithm>
#include <limits>

#include "model/tokenizer.h"
#include "model/tokenizer_patterns.h"
#include "model/unicode.h"

namespace switchyard::model {
namespace {

constexpr std::size_t kMaxTokens = 4 << 20;

std::int32_t special_id(const GgufMetadata& metadata, std::string_view key, std::size_t vocabulary) {
  const auto id = metadata.integer(key);
  return id && *id < vocabulary ? static_cast<std::int32_t>(*id) : -1;
}

Status read_kinds(const GgufMetadata& metadata, TokenizerSpec& spec) {
  spec.kinds.assign(spec.tokens.size(), TokenKind::normal);
  const auto kinds = metadata.integers("tokenizer.ggml.token_type");
  if (!kinds) return {};
  if (kinds->size() != spec.tokens.size()) {
    return fail(ErrorCode::corrupt, "GGUF tokenizer: {} token types for {} tokens", kinds->size(),
                spec.tokens.size());
  }
  for (std::size_t i = 0; i < kinds->size(); ++i) {
    const auto kind = (*kinds)[i];
    if (kind == 0) continue;  // "undefined" of old converters
    if (kind < 0 || kind > static_cast<std::int64_t>(TokenKind::byte)) {
      return fail(ErrorCode::corrupt, "GGUF tokenizer: token {} has the type {}, which there is not", i,
                  kind);
    }
    spec.kinds[i] = static_cast<TokenKind>(kind);
  }
  return {};
}

Status read_byte_level(const GgufMetadata& metadata, TokenizerSpec& spec) {
  spec.algorithm = TokenizerSpec::Algorithm::byte_level_bpe;
  const auto name = metadata.string("tokenizer.ggml.pre").value_or("default");
  if (auto applied = apply_gguf_pretokenizer(name, spec); !applied) return applied;
  const auto* merges = metadata.strings("tokenizer.ggml.merges");
  if (merges == nullptr) {
    return fail(ErrorCode::corrupt, "GGUF tokenizer: no list of merges (tokenizer.ggml.merges)");
  }
  spec.merges.reserve(merges->size());
  for (std::size_t i = 0; i < merges->size(); ++i) {
    const std::string_view merge = (*merges)[i];
    // A blank at the front belongs to the left part.
    const auto blank = merge.find(' ', 1);
    if (merge.empty() || blank == std::string_view::npos) {
      return fail(ErrorCode::corrupt, "GGUF tokenizer: merge {} is not two tokens", i);
    }
    spec.merges.emplace_back(merge.substr(0, blank), merge.substr(blank + 1));
  }
  spec.add_prefix_space = metadata.boolean("tokenizer.ggml.add_space_prefix").value_or(false);
  spec.prefix_style = PrefixStyle::unless_there;
  return {};
}

Status read_sentencepiece(const GgufMetadata& metadata, TokenizerSpec& spec) {
  spec.algorithm = TokenizerSpec::Algorithm::sentencepiece_bpe;
  const auto scores = metadata.reals("tokenizer.ggml.scores");
  if (!scores || scores->size() != spec.tokens.size()) {
    return fail(ErrorCode::corrupt, "GGUF tokenizer: {} scores for {} tokens", scores ? scores->size() : 0,
                spec.tokens.size());
  }
  spec.scores.assign(scores->begin(), scores->end());
  spec.byte_fallback = std::find(spec.kinds.begin(), spec.kinds.end(), TokenKind::byte) != spec.kinds.end();
  spec.fuse_unknown = true;
  spec.add_prefix_space = metadata.boolean("tokenizer.ggml.add_space_prefix").value_or(true);
  spec.prefix_style = PrefixStyle::always;
  spec.leading_space = spec.add_prefix_space ? LeadingSpace::one_removed : LeadingSpace::kept;
  spec.add_bos = true;
  return {};
}

}  // namespace

Result<TokenizerSpec> tokenizer_spec_from_gguf(const GgufMetadata& metadata) {
  const auto* tokens = metadata.strings("tokenizer.ggml.tokens");
  if (tokens == nullptr || tokens->empty()) {
    return fail(ErrorCode::corrupt, "GGUF tokenizer: no list of tokens (tokenizer.ggml.tokens)");
  }
  if (tokens->size() > kMaxTokens) {
    return fail(ErrorCode::unsupported, "GGUF tokenizer: {} tokens; at most {} are read", tokens->size(),
                kMaxTokens);
  }
  TokenizerSpec spec;
  spec.tokens.assign(tokens->begin(), tokens->end());
  if (auto read = read_kinds(metadata, spec); !read) return pass(read.error());

  const auto model = metadata.string("tokenizer.ggml.model").value_or("");
  Status read;
  if (model == "gpt2") {
    read = read_byte_level(metadata, spec);
  } else if (model == "llama") {
    read = read_sentencepiece(metadata, spec);
  } else {
    read = fail(ErrorCode::unsupported,
                "GGUF tokenizer: the kind '{}' (tokenizer.ggml.model); known are gpt2 and llama",
                model.substr(0, 64));
  }
  if (!read) return pass(read.error());

  for (std::size_t i = 0; i < spec.tokens.size(); ++i) {
    const auto kind = spec.kinds[i];
    const bool special = kind == TokenKind::control || kind == TokenKind::unknown;
    if (!special && kind != TokenKind::user_defined) continue;
    AddedToken added;
    added.id = static_cast<std::int32_t>(i);
    added.content = utf8_repair(spec.tokens[i]);
    added.special = special;
    spec.added.push_back(std::move(added));
  }
  spec.bos = special_id(metadata, "tokenizer.ggml.bos_token_id", spec.tokens.size());
  spec.eos = special_id(metadata, "tokenizer.ggml.eos_token_id", spec.tokens.size());
  spec.unknown = special_id(metadata, "tokenizer.ggml.unknown_token_id", spec.tokens.size());
  spec.pad = special_id(metadata, "tokenizer.ggml.padding_token_id", spec.tokens.size());
  spec.add_bos = metadata.boolean("tokenizer.ggml.add_bos_token").value_or(spec.add_bos);
  spec.add_eos = metadata.boolean("tokenizer.ggml.add_eos_token").value_or(false);
  spec.chat_template = std::string(metadata.string("tokenizer.chat_template").value_or(""));
  return spec;
}

}  // namespace switchyard::model
