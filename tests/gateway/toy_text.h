// A tokenizer that a test can follow by eye: tokens 0 to 255 are bytes, the rest are a few words and markers.
#pragma once

#include <memory>

#include "gateway/served_text.h"

namespace switchyard::gateway::testing {

inline constexpr std::int32_t kToyEnd = 256;        // "<|end|>", ends a generation
inline constexpr std::int32_t kToyBegin = 257;      // "<|begin|>", put before completions' prompts
inline constexpr std::int32_t kToyUser = 258;       // "<|user|>"
inline constexpr std::int32_t kToyAssistant = 259;  // "<|assistant|>"
inline constexpr std::int32_t kToyHello = 260;      // "Hello"
inline constexpr std::int32_t kToyWorld = 261;      // " world"
inline constexpr std::int32_t kToyEuroHead = 262;   // first two bytes of "€"
inline constexpr std::uint32_t kToyVocab = 263;

// Chats are written as "<|role|>content" with "<|user|>" for every role but the assistant's, tools before
// them as "tools:" and their JSON. A message "refuse" makes the template fail.
Result<std::shared_ptr<const ServedText>> toy_text(const pool::ServedModel& model);

// One token per byte.
std::vector<std::int32_t> byte_tokens(std::string_view text);
std::string toy_bytes(std::int32_t token);

}  // namespace switchyard::gateway::testing
