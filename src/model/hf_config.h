// config.json and generation_config.json of a Hugging Face checkpoint to a ModelConfig.
//
// What changes the numbers and is not known is refused rather than ignored. Pure; any thread.
#pragma once

#include <string_view>

#include "model/config.h"
#include "switchyard/result.h"

namespace switchyard::model {

// `generation_json` may be empty. Errors: corrupt, unsupported (naming architecture or setting), invalid
// (sizes).
Result<ModelConfig> parse_hf_config(std::string_view config_json, std::string_view generation_json);

}  // namespace switchyard::model
