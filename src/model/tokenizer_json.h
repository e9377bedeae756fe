// tokenizer.json as Hugging Face's tokenizers write it, and the files beside it, as a TokenizerSpec.
//
// What is not known is refused by name: a tokenizer that is nearly right gives wrong ids without a word.
#pragma once

#include <nlohmann/json.hpp>
#include <string_view>

#include "model/tokenizer_spec.h"
#include "switchyard/result.h"

namespace switchyard::model {

// `config` (tokenizer_config.json) and `chat_template` (chat_template.jinja) may be empty.
// Errors: corrupt, unsupported (naming the part that is not).
Result<TokenizerSpec> tokenizer_spec_from_json(std::string_view tokenizer, std::string_view config,
                                               std::string_view chat_template);

// The steps of it, each of one part of tokenizer.json; a null part is fine where Hugging Face takes one.
struct TokenizerParts {
  TokenizerSpec spec;
  bool byte_level = false;  // a ByteLevel pre-tokenizer
  bool blanks = false;      // something makes blanks of spaces
};
Status read_normalizer(const nlohmann::json& part, TokenizerParts& parts);
Status read_pre_tokenizer(const nlohmann::json& part, TokenizerParts& parts);
Status read_post_processor(const nlohmann::json& part, TokenizerParts& parts);
Status read_decoder(const nlohmann::json& part, TokenizerParts& parts);

// "type" of a part, or "" where there is none.
std::string_view part_type(const nlohmann::json& part);
// A member, or null where it is missing.
const nlohmann::json& part_member(const nlohmann::json& part, std::string_view key);

}  // namespace switchyard::model
