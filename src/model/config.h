// What a decoder-only transformer is made of. Read from a checkpoint, kept in the model image.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "switchyard/result.h"

namespace switchyard::model {

enum class Architecture : std::uint32_t { llama = 1, qwen2 = 2 };
std::string_view to_string(Architecture architecture);  // "llama"

struct RopeScaling {
  enum class Kind : std::uint32_t { none = 0, linear = 1, llama3 = 2 };
  Kind kind = Kind::none;
  float factor = 1.0f;
  float low_frequency_factor = 1.0f;   // llama3
  float high_frequency_factor = 4.0f;  // llama3
  std::uint32_t original_context = 0;  // llama3

  friend bool operator==(const RopeScaling&, const RopeScaling&) = default;
};

struct ModelConfig {
  Architecture architecture = Architecture::llama;
  std::string name;  // as the checkpoint calls itself; for people
  std::uint32_t layers = 0;
  std::uint32_t hidden = 0;
  std::uint32_t heads = 0;
  std::uint32_t kv_heads = 0;
  std::uint32_t head_dim = 0;
  std::uint32_t intermediate = 0;
  std::uint32_t vocab = 0;
  std::uint32_t context = 0;  // longest sequence that the model was made for
  float rms_epsilon = 1e-5f;
  float rope_theta = 10000.0f;
  RopeScaling rope_scaling;
  bool tied_embeddings = false;
  bool qkv_bias = false;
  std::vector<std::int32_t> end_tokens;  // any of these ends a generation

  friend bool operator==(const ModelConfig&, const ModelConfig&) = default;
};

// A name from outside as it may be shown: valid UTF-8 without control characters, at most 200 bytes.
std::string printable_name(std::string_view name);

// Refuses what no model has (zero sizes, heads that do not divide, numbers that are not finite or so large
// that sizes computed from them overflow), so that what comes after may multiply freely. Errors: invalid,
// naming the field.
Status validate(const ModelConfig& config);

// A record that is the same on every machine. Errors of parse_config: corrupt, and those of validate().
std::vector<std::byte> serialize(const ModelConfig& config);
Result<ModelConfig> parse_config(std::span<const std::byte> bytes);

}  // namespace switchyard::model
