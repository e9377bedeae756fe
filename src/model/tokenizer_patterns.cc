#include "model/tokenizer_patterns.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <initializer_list>

namespace switchyard::model {
namespace {

constexpr std::size_t kMaxPatternBytes = 16 << 10;

constexpr std::string_view kSpaces =
    R"(\x{9}-\x{d}\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
constexpr std::string_view kWordCharacters = R"(\p{L}\p{M}\p{Nd}\p{Pc})";

constexpr std::string_view kLlama3Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kQwen2Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kTekkenPattern =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kGpt4oPattern =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kDeepSeek3Pattern =
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kDeepSeek3HanPattern = "[一-龥぀-ゟ゠-ヿ]+";

enum class Cut { gpt2, digits_gpt2, llama3, qwen2, tekken, gpt4o, deepseek3, unnamed };

struct Named {
  std::string_view name;
  Cut cut;
  bool nfc = false;
  bool ignore_merges = false;
  bool add_bos = false;
};

constexpr auto kNamed = std::to_array<Named>({
    {"default", Cut::unnamed},
    {"gpt-2", Cut::gpt2},
    {"gpt2", Cut::gpt2},
    {"phi-2", Cut::gpt2},
    {"olmo", Cut::gpt2},
    {"mpt", Cut::gpt2},
    {"jais", Cut::gpt2},
    {"exaone4", Cut::gpt2},
    {"roberta-bpe", Cut::gpt2},
    {"smollm", Cut::digits_gpt2},
    {"starcoder", Cut::digits_gpt2},
    {"refact", Cut::digits_gpt2},
    {"command-r", Cut::digits_gpt2},
    {"codeshell", Cut::digits_gpt2},
    {"exaone", Cut::digits_gpt2},
    {"llama3", Cut::llama3, false, true, true},
    {"llama-v3", Cut::llama3, false, true, true},
    {"llama-bpe", Cut::llama3, false, true, true},
    {"falcon3", Cut::llama3, false, true, true},
    {"dbrx", Cut::llama3},
    {"smaug-bpe", Cut::llama3},
    {"chatglm-bpe", Cut::llama3},
    {"glm4", Cut::llama3},
    {"qwen2", Cut::qwen2, true},
    {"deepseek-r1-qwen", Cut::qwen2, true},
    {"stablelm2", Cut::qwen2},
    {"tekken", Cut::tekken, false, true, true},
    {"mistral", Cut::tekken, false, true, true},
    {"gpt-4o", Cut::gpt4o},
    {"llama4", Cut::gpt4o, false, false, true},
    {"deepseek-v3", Cut::deepseek3},
});

SplitRule isolated(std::string_view pattern) {
  SplitRule rule;
  rule.pattern = pattern;
  return rule;
}

SplitRule digits(SplitRule::Kind kind) {
  SplitRule rule;
  rule.kind = kind;
  return rule;
}

std::vector<SplitRule> rules_of(Cut cut) {
  switch (cut) {
    case Cut::gpt2:
      return {isolated(kGpt2Pattern)};
    case Cut::digits_gpt2:
      return {digits(SplitRule::Kind::digits_individually), isolated(kGpt2Pattern)};
    case Cut::llama3:
      return {isolated(kLlama3Pattern)};
    case Cut::qwen2:
      return {isolated(kQwen2Pattern)};
    case Cut::tekken:
      return {isolated(kTekkenPattern)};
    case Cut::gpt4o:
      return {isolated(kGpt4oPattern)};
    case Cut::deepseek3:
      return {isolated(R"(\p{N}{1,3})"), isolated(kDeepSeek3HanPattern), isolated(kDeepSeek3Pattern)};
    case Cut::unnamed:
      return {isolated(R"([\p{P}\$\+<=>\^~\|]+)"), isolated(kGpt2Pattern),
              digits(SplitRule::Kind::digits_runs), isolated("[0-9][0-9][0-9]")};
  }
  return {};
}

// Copies a POSIX class ("[:alpha:]") or says that there is none at this place.
std::size_t posix_class_length(std::string_view pattern) {
  if (!pattern.starts_with("[:")) return 0;
  const auto end = pattern.find(":]");
  if (end == std::string_view::npos) return 0;
  const auto name = pattern.substr(2, end - 2);
  const bool plain =
      std::all_of(name.begin(), name.end(), [](char c) { return (c >= 'a' && c <= 'z') || c == '^'; });
  return plain && !name.empty() ? end + 2 : 0;
}

}  // namespace

const std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

Status apply_gguf_pretokenizer(std::string_view name, TokenizerSpec& spec) {
  const auto found =
      std::find_if(kNamed.begin(), kNamed.end(), [&](const Named& n) { return n.name == name; });
  if (found == kNamed.end()) {
    std::string known;
    for (const auto& named : kNamed) known += (known.empty() ? "" : ", ") + std::string(named.name);
    return fail(
        ErrorCode::unsupported,
        "the GGUF file cuts words as '{}' (tokenizer.ggml.pre), which is not known here; known are: {}",
        name.substr(0, 64), known);
  }
  spec.splits = rules_of(found->cut);
  spec.normalize_nfc = found->nfc;
  spec.ignore_merges = found->ignore_merges;
  spec.add_bos = found->add_bos;
  return {};
}

Result<std::string> pattern_for_pcre2(std::string_view pattern) {
  if (pattern.size() > kMaxPatternBytes) {
    return fail(ErrorCode::corrupt, "a word pattern of {} bytes; at most {} are read", pattern.size(),
                kMaxPatternBytes);
  }
  if (pattern.starts_with("(*")) {
    return fail(ErrorCode::unsupported, "a word pattern that begins with a verb: {}", pattern.substr(0, 64));
  }
  std::string out;
  bool in_class = false;
  for (std::size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i];
    if (c == '\\' && i + 1 < pattern.size()) {
      const char next = pattern[++i];
      if (next == 'h' || next == 'H' || next == 'C' || next == 'K' || next == 'G' || next == 'Q' ||
          next == 'E') {
        return fail(ErrorCode::unsupported, "\\{} in the word pattern {}", next, pattern.substr(0, 64));
      }
      const bool space = next == 's' || next == 'S';
      const bool word = next == 'w' || next == 'W';
      const bool negated = std::isupper(static_cast<unsigned char>(next)) != 0;
      if ((space || word) && !(in_class && negated)) {
        const auto members = space ? kSpaces : kWordCharacters;
        if (in_class) {
          out += members;
        } else {
          out += negated ? "[^" : "[";
          out += members;
          out += ']';
        }
        continue;
      }
      out += c;
      out += next;
      continue;
    }
    if (!in_class && c == '[') {
      in_class = true;
      out += c;
      // A bracket that closes right after the opening one is a member.
      if (i + 1 < pattern.size() && pattern[i + 1] == '^') out += pattern[++i];
      if (i + 1 < pattern.size() && pattern[i + 1] == ']') {
        out += "\\]";
        ++i;
      }
      continue;
    }
    if (in_class && c == '[') {
      if (const auto length = posix_class_length(pattern.substr(i)); length != 0) {
        out += pattern.substr(i, length);
        i += length - 1;
        continue;
      }
      return fail(ErrorCode::unsupported, "a class inside of a class in the word pattern {}",
                  pattern.substr(0, 64));
    }
    if (in_class && c == '&' && pattern.substr(i).starts_with("&&")) {
      return fail(ErrorCode::unsupported, "an intersection of classes in the word pattern {}",
                  pattern.substr(0, 64));
    }
    if (in_class && c == ']') in_class = false;
    out += c;
  }
  return out;
}

std::string pattern_of_literal(std::string_view text) {
  std::string out;
  for (char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x80 && std::isalnum(byte) == 0) {
      out += fmt::format("\\x{{{:x}}}", byte);
    } else {
      out += c;
    }
  }
  return out;
}

}  // namespace switchyard::model
