#include "model/checkpoint_tokenizer.h"

#include "model/tokenizer.h"

namespace switchyard::model {

Result<TokenizerSpec> read_tokenizer(CheckpointParts& parts) {
  auto spec =
      parts.gguf ? tokenizer_spec_from_gguf(*parts.gguf) : tokenizer_spec_from_directory(parts.directory);
  if (!spec) return spec;
  if (spec->tokens.size() > parts.config.vocab) {
    return fail(ErrorCode::corrupt, "the tokenizer has {} tokens and the embedding {} rows",
                spec->tokens.size(), parts.config.vocab);
  }
  const bool has_eos = spec->eos >= 0 && static_cast<std::uint32_t>(spec->eos) < parts.config.vocab;
  if (parts.config.end_tokens.empty() && has_eos) parts.config.end_tokens.push_back(spec->eos);
  return spec;
}

}  // namespace switchyard::model
