// Normalizer, pre-tokenizer, post-processor and decoder of tokenizer.json.
#include "model/bounded_json.h"
#include "model/tokenizer_json.h"
#include "model/tokenizer_patterns.h"

namespace switchyard::model {
namespace {

using Json = nlohmann::json;
using Read = Status (*)(const Json&, TokenizerParts&);

constexpr std::string_view kBlank = "\xE2\x96\x81";  // U+2581

tl::unexpected<Error> unsupported(std::string_view what, std::string_view type) {
  return fail(ErrorCode::unsupported, "tokenizer.json: the {} '{}' is not known here", what,
              type.substr(0, 64));
}

bool is_text(const Json& value, std::string_view text) {
  return value.is_string() && value.get_ref<const std::string&>() == text;
}

Status each(const Json& list, TokenizerParts& parts, Read read) {
  if (!list.is_array()) return fail(ErrorCode::corrupt, "tokenizer.json: a Sequence without its list");
  for (const auto& part : list) {
    if (auto status = read(part, parts); !status) return status;
  }
  return {};
}

// A flag that may be missing.
Result<bool> flag(const Json& part, std::string_view key, bool fallback) {
  const auto value = json_boolean(part, key);
  if (!value) return fail_at("tokenizer.json", value.error());
  return value->value_or(fallback);
}

// {"String": "..."} or {"Regex": "..."} as a pattern.
Result<std::string> pattern_of(const Json& pattern) {
  if (const auto& text = part_member(pattern, "String"); text.is_string()) {
    return pattern_of_literal(text.get_ref<const std::string&>());
  }
  if (const auto& regex = part_member(pattern, "Regex"); regex.is_string()) return regex.get<std::string>();
  return fail(ErrorCode::corrupt, "tokenizer.json: a pattern that is neither String nor Regex");
}

Status read_behaviour(const Json& part, SplitRule& rule) {
  using Behaviour = SplitRule::Behaviour;
  const auto name = json_string(part, "behavior");
  if (!name) return fail_at("tokenizer.json", name.error());
  const std::string value = name->value_or("Isolated");
  if (value == "Isolated") {
    rule.behaviour = Behaviour::isolated;
  } else if (value == "Removed") {
    rule.behaviour = Behaviour::removed;
  } else if (value == "MergedWithPrevious") {
    rule.behaviour = Behaviour::merged_with_previous;
  } else if (value == "MergedWithNext") {
    rule.behaviour = Behaviour::merged_with_next;
  } else if (value == "Contiguous") {
    rule.behaviour = Behaviour::contiguous;
  } else {
    return unsupported("behaviour of a split", value);
  }
  return {};
}

Status read_split(const Json& part, TokenizerParts& parts) {
  SplitRule rule;
  auto pattern = pattern_of(part_member(part, "pattern"));
  if (!pattern) return pass(pattern.error());
  rule.pattern = std::move(*pattern);
  if (auto status = read_behaviour(part, rule); !status) return status;
  const auto invert = flag(part, "invert", false);
  if (!invert) return pass(invert.error());
  rule.invert = *invert;
  parts.spec.splits.push_back(std::move(rule));
  return {};
}

Status read_byte_level(const Json& part, TokenizerParts& parts) {
  const auto prefix = flag(part, "add_prefix_space", true);
  const auto regex = flag(part, "use_regex", true);
  if (!prefix) return pass(prefix.error());
  if (!regex) return pass(regex.error());
  if (*prefix) {
    if (!parts.spec.splits.empty()) {
      return fail(
          ErrorCode::unsupported,
          "tokenizer.json: ByteLevel with add_prefix_space behind another pre-tokenizer is not known here");
    }
    parts.spec.add_prefix_space = true;
    parts.spec.prefix_style = PrefixStyle::unless_there;
  }
  if (*regex) {
    SplitRule rule;
    rule.pattern = kGpt2Pattern;
    parts.spec.splits.push_back(std::move(rule));
  }
  parts.byte_level = true;
  return {};
}

// "prepend_scheme", or add_prefix_space of older files.
Result<std::string> prepend_scheme(const Json& part) {
  const auto scheme = json_string(part, "prepend_scheme");
  if (!scheme) return fail_at("tokenizer.json", scheme.error());
  if (*scheme) return **scheme;
  const auto prefix = flag(part, "add_prefix_space", true);
  if (!prefix) return pass(prefix.error());
  return *prefix ? "always" : "never";
}

Status read_metaspace(const Json& part, TokenizerParts& parts) {
  if (!is_text(part_member(part, "replacement"), kBlank)) {
    return fail(ErrorCode::unsupported,
                "tokenizer.json: Metaspace with another character than U+2581 is not known here");
  }
  if (!parts.spec.splits.empty()) {
    return fail(ErrorCode::unsupported,
                "tokenizer.json: Metaspace behind another pre-tokenizer is not known here");
  }
  const auto scheme = prepend_scheme(part);
  const auto split = flag(part, "split", true);
  if (!scheme) return pass(scheme.error());
  if (!split) return pass(split.error());
  if (*scheme == "always" || *scheme == "first") {
    if (parts.spec.add_prefix_space) {
      return fail(ErrorCode::unsupported,
                  "tokenizer.json: Prepend together with Metaspace's prefix is not known here");
    }
    parts.spec.add_prefix_space = true;
    parts.spec.prefix_style =
        *scheme == "always" ? PrefixStyle::unless_there : PrefixStyle::first_unless_there;
  } else if (*scheme != "never") {
    return unsupported("prepend_scheme of Metaspace", *scheme);
  }
  if (*split) {
    SplitRule rule;
    rule.pattern = kBlank;
    rule.behaviour = SplitRule::Behaviour::merged_with_next;
    parts.spec.splits.push_back(std::move(rule));
  }
  if (!parts.blanks) parts.spec.blanks_late = true;
  parts.blanks = true;
  return {};
}

Status read_template(const Json& part, TokenizerParts& parts) {
  const auto& single = part_member(part, "single");
  const auto& special = part_member(part, "special_tokens");
  if (!single.is_array())
    return fail(ErrorCode::corrupt, "tokenizer.json: TemplateProcessing without its list");
  bool text_seen = false;
  for (const auto& piece : single) {
    if (piece.is_object() && piece.contains("Sequence")) {
      if (text_seen) return unsupported("TemplateProcessing", "text twice");
      text_seen = true;
      continue;
    }
    const auto& name = part_member(part_member(piece, "SpecialToken"), "id");
    if (!name.is_string())
      return fail(ErrorCode::corrupt, "tokenizer.json: TemplateProcessing with a piece that is none");
    const auto& ids = part_member(part_member(special, name.get_ref<const std::string&>()), "ids");
    if (!ids.is_array() || ids.size() != 1 || !ids[0].is_number_unsigned() ||
        ids[0].get<std::uint64_t>() > 0x7fffffff) {
      return unsupported("special token of TemplateProcessing", name.get_ref<const std::string&>());
    }
    bool& add = text_seen ? parts.spec.add_eos : parts.spec.add_bos;
    if (add) return unsupported("TemplateProcessing", "two special tokens on one side of the text");
    add = true;
    (text_seen ? parts.spec.eos : parts.spec.bos) = ids[0].get<std::int32_t>();
  }
  return {};
}

}  // namespace

std::string_view part_type(const Json& part) {
  const auto& type = part_member(part, "type");
  return type.is_string() ? std::string_view(type.get_ref<const std::string&>()) : std::string_view();
}

const Json& part_member(const Json& part, std::string_view key) {
  static const Json null;
  if (!part.is_object()) return null;
  const auto found = part.find(key);
  return found == part.end() ? null : *found;
}

Status read_normalizer(const Json& part, TokenizerParts& parts) {
  if (part.is_null()) return {};
  const auto type = part_type(part);
  if (type == "Sequence") return each(part_member(part, "normalizers"), parts, read_normalizer);
  if (type == "NFC") {
    parts.spec.normalize_nfc = true;
    return {};
  }
  if (type == "Prepend" && is_text(part_member(part, "prepend"), kBlank) && !parts.spec.add_prefix_space) {
    parts.spec.add_prefix_space = true;
    parts.spec.prefix_style = PrefixStyle::always;
    return {};
  }
  if (type == "Replace" && is_text(part_member(part_member(part, "pattern"), "String"), " ") &&
      is_text(part_member(part, "content"), kBlank)) {
    parts.blanks = true;
    return {};
  }
  return unsupported("normalizer", type);
}

Status read_pre_tokenizer(const Json& part, TokenizerParts& parts) {
  if (part.is_null()) return {};
  const auto type = part_type(part);
  if (type == "Sequence") return each(part_member(part, "pretokenizers"), parts, read_pre_tokenizer);
  if (parts.byte_level) {
    return fail(ErrorCode::unsupported,
                "tokenizer.json: the pre-tokenizer '{}' behind ByteLevel is not known here",
                type.substr(0, 64));
  }
  if (type == "ByteLevel") return read_byte_level(part, parts);
  if (type == "Metaspace") return read_metaspace(part, parts);
  if (type == "Split") return read_split(part, parts);
  SplitRule rule;
  if (type == "Digits") {
    const auto individual = flag(part, "individual_digits", false);
    if (!individual) return pass(individual.error());
    rule.kind = *individual ? SplitRule::Kind::digits_individually : SplitRule::Kind::digits_runs;
  } else if (type == "Punctuation") {
    rule.kind = SplitRule::Kind::punctuation;
    if (auto status = read_behaviour(part, rule); !status) return status;
  } else if (type == "WhitespaceSplit") {
    rule.kind = SplitRule::Kind::whitespace;
  } else if (type == "Whitespace") {
    rule.pattern = R"(\w+|[^\w\s]+)";
    rule.behaviour = SplitRule::Behaviour::removed;
    rule.invert = true;
  } else {
    return unsupported("pre-tokenizer", type);
  }
  parts.spec.splits.push_back(std::move(rule));
  return {};
}

Status read_post_processor(const Json& part, TokenizerParts& parts) {
  if (part.is_null()) return {};
  const auto type = part_type(part);
  if (type == "Sequence") return each(part_member(part, "processors"), parts, read_post_processor);
  if (type == "ByteLevel") return {};  // moves offsets alone
  if (type == "TemplateProcessing") return read_template(part, parts);
  return unsupported("post-processor", type);
}

Status read_decoder(const Json& part, TokenizerParts& parts) {
  if (part.is_null()) return {};
  const auto type = part_type(part);
  if (type == "Sequence") return each(part_member(part, "decoders"), parts, read_decoder);
  if (type == "ByteLevel" || type == "ByteFallback" || type == "Fuse") return {};
  if (type == "Metaspace") {
    const auto scheme = prepend_scheme(part);
    if (!scheme) return pass(scheme.error());
    parts.spec.leading_space = *scheme == "never" ? LeadingSpace::kept : LeadingSpace::first_token_removed;
    return {};
  }
  if (type == "Replace" && is_text(part_member(part_member(part, "pattern"), "String"), kBlank) &&
      is_text(part_member(part, "content"), " ")) {
    return {};
  }
  if (type == "Strip" && is_text(part_member(part, "content"), " ")) {
    const auto start = json_integer(part, "start");
    const auto stop = json_integer(part, "stop");
    if (start && stop && start->value_or(0) <= 1 && stop->value_or(0) == 0) {
      if (start->value_or(0) == 1) parts.spec.leading_space = LeadingSpace::one_removed;
      return {};
    }
  }
  return unsupported("decoder", type);
}

}  // namespace switchyard::model
