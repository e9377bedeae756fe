#include "model/tokenizer_json.h"

#include <algorithm>
#include <unordered_map>

#include "base/files.h"
#include "model/bounded_json.h"
#include "model/tokenizer.h"
#include "model/tokenizer_alphabet.h"

namespace switchyard::model {
namespace {

using Json = nlohmann::json;
using Ids = std::unordered_map<std::string_view, std::int32_t>;

constexpr std::uint64_t kMaxTokens = 4 << 20;
constexpr std::uintmax_t kMaxFileBytes = 256 << 20;
constexpr std::uintmax_t kMaxTemplateBytes = 1 << 20;

// Gives `id` a text; the tokens between are unused until they get one.
Status put_token(TokenizerSpec& spec, const Json& id, const std::string& text, TokenKind kind, bool replace) {
  if (!id.is_number_unsigned() || id.get<std::uint64_t>() >= kMaxTokens) {
    return fail(ErrorCode::corrupt,
                "tokenizer.json: token '{}' has the id {}; ids are whole numbers below {}",
                text.substr(0, 64), id.dump().substr(0, 64), kMaxTokens);
  }
  const auto place = id.get<std::size_t>();
  if (place >= spec.tokens.size()) {
    spec.tokens.resize(place + 1);
    spec.kinds.resize(place + 1, TokenKind::unused);
  }
  if (spec.kinds[place] != TokenKind::unused && (!replace || spec.tokens[place] != text)) {
    return fail(ErrorCode::corrupt, "tokenizer.json: '{}' and '{}' are both token {}",
                spec.tokens[place].substr(0, 64), text.substr(0, 64), place);
  }
  spec.tokens[place] = text;
  spec.kinds[place] = kind;
  return {};
}

// A list as large as the highest id is only made when the file has about as many tokens.
Status check_ids(const Json& vocabulary, const Json& added) {
  std::uint64_t highest = 0;
  for (const auto& [text, id] : vocabulary.items()) {
    if (id.is_number_unsigned()) highest = std::max(highest, id.get<std::uint64_t>());
  }
  for (const auto& token : added) {
    const auto& id = part_member(token, "id");
    if (id.is_number_unsigned()) highest = std::max(highest, id.get<std::uint64_t>());
  }
  const std::uint64_t count = vocabulary.size() + added.size();
  if (highest > 16 * count + 4096) {
    return fail(ErrorCode::corrupt, "tokenizer.json: the highest of {} ids is {}", count, highest);
  }
  return {};
}

Status read_merges(const Json& merges, TokenizerSpec& spec) {
  if (!merges.is_array()) return fail(ErrorCode::corrupt, "tokenizer.json: no list of merges");
  spec.merges.reserve(merges.size());
  for (const auto& merge : merges) {
    if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
      spec.merges.emplace_back(merge[0].get<std::string>(), merge[1].get<std::string>());
      continue;
    }
    const std::string text = merge.is_string() ? merge.get<std::string>() : std::string();
    const auto blank = text.find(' ');
    if (blank == std::string::npos || text.find(' ', blank + 1) != std::string::npos) {
      return fail(ErrorCode::corrupt, "tokenizer.json: merge {} is not two tokens", spec.merges.size());
    }
    spec.merges.emplace_back(text.substr(0, blank), text.substr(blank + 1));
  }
  return {};
}

Status read_model(const Json& model, TokenizerSpec& spec) {
  const auto type = part_type(model);
  if (!type.empty() && type != "BPE") {
    return fail(ErrorCode::unsupported, "tokenizer.json: the model '{}' is not known here; BPE is",
                type.substr(0, 64));
  }
  for (const char* key : {"dropout", "continuing_subword_prefix", "end_of_word_suffix"}) {
    const auto& value = part_member(model, key);
    const bool nothing = value.is_null() ||
                         (value.is_string() && value.get_ref<const std::string&>().empty()) ||
                         (value.is_number() && value.get<double>() == 0);
    if (!nothing)
      return fail(ErrorCode::unsupported, "tokenizer.json: '{}' of the model is not known here", key);
  }
  const std::pair<const char*, bool*> flags[] = {{"fuse_unk", &spec.fuse_unknown},
                                                 {"byte_fallback", &spec.byte_fallback},
                                                 {"ignore_merges", &spec.ignore_merges}};
  for (const auto& [key, target] : flags) {
    const auto value = json_boolean(model, key);
    if (!value) return fail_at("tokenizer.json", value.error());
    *target = value->value_or(false);
  }
  const auto& vocabulary = part_member(model, "vocab");
  if (!vocabulary.is_object() || vocabulary.empty())
    return fail(ErrorCode::corrupt, "tokenizer.json: no vocabulary");
  for (const auto& [text, id] : vocabulary.items()) {
    const bool byte = spec.byte_fallback && byte_token_value(text) >= 0;
    if (auto put = put_token(spec, id, text, byte ? TokenKind::byte : TokenKind::normal, false); !put)
      return put;
  }
  if (auto merges = read_merges(part_member(model, "merges"), spec); !merges) return merges;
  const auto unknown = json_string(model, "unk_token");
  if (!unknown) return fail_at("tokenizer.json", unknown.error());
  if (*unknown) {
    const auto found = vocabulary.find(**unknown);
    if (found == vocabulary.end()) {
      return fail(ErrorCode::corrupt, "tokenizer.json: the unknown token '{}' is not in the vocabulary",
                  (*unknown)->substr(0, 64));
    }
    spec.unknown = found->get<std::int32_t>();
    spec.kinds[static_cast<std::size_t>(spec.unknown)] = TokenKind::unknown;
  }
  return {};
}

Status read_added(const Json& list, TokenizerSpec& spec) {
  if (list.is_null()) return {};
  if (!list.is_array()) return fail(ErrorCode::corrupt, "tokenizer.json: 'added_tokens' is not a list");
  for (const auto& item : list) {
    AddedToken token;
    const auto& content = part_member(item, "content");
    if (!content.is_string())
      return fail(ErrorCode::corrupt, "tokenizer.json: an added token without its content");
    token.content = content.get<std::string>();
    const std::pair<const char*, bool*> flags[] = {{"special", &token.special},
                                                   {"lstrip", &token.lstrip},
                                                   {"rstrip", &token.rstrip},
                                                   {"single_word", &token.single_word},
                                                   {"normalized", &token.normalized}};
    for (const auto& [key, target] : flags) {
      const auto value = json_boolean(item, key);
      if (!value) return fail_at("tokenizer.json", value.error());
      *target = value->value_or(false);
    }
    const auto& id = part_member(item, "id");
    auto kind = token.special ? TokenKind::control : TokenKind::user_defined;
    if (id.is_number_unsigned() && spec.unknown >= 0 &&
        id.get<std::uint64_t>() == static_cast<std::uint64_t>(spec.unknown)) {
      kind = TokenKind::unknown;
    }
    if (auto put = put_token(spec, id, token.content, kind, true); !put) return put;
    token.id = id.get<std::int32_t>();
    spec.added.push_back(std::move(token));
  }
  return {};
}

// "<s>", or {"content": "<s>", ...}: the token's id; -1 for none.
Result<std::int32_t> special_id(const Json& config, const char* key, const Ids& ids) {
  const auto& named = part_member(config, key);
  const auto& text = named.is_object() ? part_member(named, "content") : named;
  if (text.is_null()) return -1;
  if (!text.is_string()) return fail(ErrorCode::corrupt, "tokenizer_config.json: '{}' is not a token", key);
  const auto found = ids.find(text.get_ref<const std::string&>());
  return found == ids.end() ? -1 : found->second;
}

Status read_template(const Json& config, TokenizerSpec& spec) {
  const auto& given = part_member(config, "chat_template");
  if (given.is_null()) return {};
  if (given.is_string()) {
    spec.chat_template = given.get<std::string>();
    return {};
  }
  if (!given.is_array()) {
    return fail(ErrorCode::corrupt, "tokenizer_config.json: 'chat_template' is neither a text nor a list");
  }
  // Of several, the one called "default"; without it, the first.
  for (const auto& named : given) {
    const auto& text = part_member(named, "template");
    if (!text.is_string())
      return fail(ErrorCode::corrupt, "tokenizer_config.json: a chat template without its text");
    const auto& name = part_member(named, "name");
    const bool is_default = name.is_string() && name.get_ref<const std::string&>() == "default";
    if (spec.chat_template.empty() || is_default) spec.chat_template = text.get<std::string>();
  }
  return {};
}

Status read_config(std::string_view text, TokenizerSpec& spec) {
  const auto config = parse_json_object(text);
  if (!config) return fail_at("tokenizer_config.json", config.error());
  Ids ids;
  for (std::size_t i = 0; i < spec.tokens.size(); ++i) {
    if (spec.kinds[i] != TokenKind::unused) ids.try_emplace(spec.tokens[i], static_cast<std::int32_t>(i));
  }
  const std::pair<const char*, std::int32_t*> tokens[] = {{"bos_token", &spec.bos},
                                                          {"eos_token", &spec.eos},
                                                          {"unk_token", &spec.unknown},
                                                          {"pad_token", &spec.pad}};
  for (const auto& [key, target] : tokens) {
    const auto id = special_id(*config, key, ids);
    if (!id) return pass(id.error());
    if (target == &spec.unknown) continue;  // the model's own is the one that encoding uses
    // What frames the text is said by the post-processor where there is one.
    const bool framed = (target == &spec.bos && spec.add_bos) || (target == &spec.eos && spec.add_eos);
    if (*id >= 0 && !framed) *target = *id;
  }
  const std::pair<const char*, bool*> flags[] = {{"add_bos_token", &spec.add_bos},
                                                 {"add_eos_token", &spec.add_eos}};
  for (const auto& [key, target] : flags) {
    const auto value = json_boolean(*config, key);
    if (!value) return fail_at("tokenizer_config.json", value.error());
    *target = value->value_or(*target);
  }
  return read_template(*config, spec);
}

}  // namespace

Result<TokenizerSpec> tokenizer_spec_from_json(std::string_view tokenizer, std::string_view config,
                                               std::string_view chat_template) {
  const auto json = parse_json_object(tokenizer);
  if (!json) return fail_at("tokenizer.json", json.error());
  const auto& added = part_member(*json, "added_tokens");
  const auto& model = part_member(*json, "model");
  if (auto checked = check_ids(part_member(model, "vocab"), added); !checked) return pass(checked.error());
  TokenizerParts parts;
  auto status = read_model(model, parts.spec);
  if (status) status = read_added(added, parts.spec);
  if (status) status = read_normalizer(part_member(*json, "normalizer"), parts);
  if (status) status = read_pre_tokenizer(part_member(*json, "pre_tokenizer"), parts);
  if (status) status = read_post_processor(part_member(*json, "post_processor"), parts);
  if (status) status = read_decoder(part_member(*json, "decoder"), parts);
  if (!status) return pass(status.error());
  auto& spec = parts.spec;
  if (parts.byte_level && parts.blanks) {
    return fail(ErrorCode::unsupported,
                "tokenizer.json: U+2581 for spaces together with ByteLevel is not known here");
  }
  if (!parts.byte_level && !parts.blanks) {
    return fail(ErrorCode::unsupported,
                "tokenizer.json: BPE with neither ByteLevel nor U+2581 for spaces is not known here");
  }
  spec.algorithm = parts.byte_level ? TokenizerSpec::Algorithm::byte_level_bpe
                                    : TokenizerSpec::Algorithm::sentencepiece_bpe;
  if (!config.empty()) status = read_config(config, spec);
  if (!status) return pass(status.error());
  if (!chat_template.empty()) spec.chat_template = chat_template;
  return std::move(spec);
}

Result<TokenizerSpec> tokenizer_spec_from_directory(const std::filesystem::path& directory) {
  auto tokenizer = read_file(directory / "tokenizer.json", kMaxFileBytes);
  if (!tokenizer) return pass(tokenizer.error());
  const std::pair<const char*, std::uintmax_t> beside[] = {{"tokenizer_config.json", kMaxFileBytes},
                                                           {"chat_template.jinja", kMaxTemplateBytes}};
  std::string texts[2];
  for (std::size_t i = 0; i < 2; ++i) {
    const auto path = directory / beside[i].first;
    std::error_code error;
    if (!std::filesystem::exists(path, error)) continue;
    auto text = read_file(path, beside[i].second);
    if (!text) return pass(text.error());
    texts[i] = std::move(*text);
  }
  auto spec = tokenizer_spec_from_json(*tokenizer, texts[0], texts[1]);
  if (!spec) return fail_at(directory.string(), spec.error());
  return spec;
}

}  // namespace switchyard::model
