// What `switchyard inspect` says of a checkpoint, for people and for programs.
//
// Reads no weights. Any thread.
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "model/checkpoint.h"
#include "model/config.h"
#include "switchyard/result.h"

namespace switchyard::model {

struct TensorTypeSummary {
  std::uint64_t tensors = 0;
  std::uint64_t values = 0;
  std::uint64_t bytes = 0;
};

struct CheckpointDescription {
  std::string format;
  std::vector<std::string> files;
  ModelConfig config;
  std::uint64_t parameters = 0;
  std::uint64_t tensor_bytes = 0;
  std::map<std::string, TensorTypeSummary> types;  // by name of the type
  std::string tokenizer;                           // "byte-level BPE"
  std::uint64_t tokens = 0;
  bool chat_template = false;
  std::uint64_t image_bytes = 0;         // of the model image's data: what the weights take in memory
  std::uint64_t kv_bytes_per_token = 0;  // of one sequence, all layers

  // Several lines, each ended by a newline.
  std::string to_text() const;
  nlohmann::json to_json() const;
};

// Errors: those of plan_image().
Result<CheckpointDescription> describe(const Checkpoint& checkpoint);

}  // namespace switchyard::model
