// Patterns that cut text into words: those that checkpoints know by name, and their way into PCRE2's dialect.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "model/tokenizer_spec.h"
#include "switchyard/result.h"

namespace switchyard::model {

// The pattern of GPT-2, which Hugging Face's ByteLevel splits with.
extern const std::string_view kGpt2Pattern;

// Says how GGUF's "tokenizer.ggml.pre" cuts, normalises and frames. Sets splits, normalize_nfc, ignore_merges
// and the default of add_bos. Errors: unsupported (a name that is not known).
Status apply_gguf_pretokenizer(std::string_view name, TokenizerSpec& spec);

// A pattern in the dialect of tokenizer.json (Oniguruma) as PCRE2 has to read it to find the same:
//  - \s is the property White_Space; PCRE2 would take U+180E too;
//  - \w is a letter, mark, decimal digit or connector; PCRE2 would take other numbers, and no marks;
//  - \h, which is a hexadecimal digit there and a blank here, and set operations in classes are refused.
// Errors: unsupported, corrupt (too long).
Result<std::string> pattern_for_pcre2(std::string_view pattern);

// A pattern that matches exactly this text.
std::string pattern_of_literal(std::string_view text);

}  // namespace switchyard::model
