// The tokenizer of a checkpoint that has been read. Pure but for the files of a directory; any thread.
#pragma once

#include "model/checkpoint_parts.h"
#include "model/tokenizer_spec.h"
#include "switchyard/result.h"

namespace switchyard::model {

// Also gives the configuration the tokenizer's end token when it has none. Errors: those of
// tokenizer_spec_from_…, corrupt (more tokens than the embedding has rows).
Result<TokenizerSpec> read_tokenizer(CheckpointParts& parts);

}  // namespace switchyard::model
