// What goes into a model image: the entries' names, and which tensors of a checkpoint each is made of.
//
//   embedding                    matrix [vocab][hidden]
//   output                       matrix [vocab][hidden]; absent when the embeddings are tied
//   output_norm, rope_factors    vectors; the latter where the checkpoint has it
//   layers.N.attention_norm      vector
//   layers.N.qkv                 matrix: rows of q, k and v; or layers.N.q|k|v where their types differ
//   layers.N.qkv_bias            vector, where the model has biases
//   layers.N.attention_output    matrix
//   layers.N.ffn_norm            vector
//   layers.N.gate_up             matrix, panels of gate and up in turn; or layers.N.gate|up where their types
//   differ layers.N.down                matrix
//
// Entries are in the order in which a forward pass reads them. Pure; any thread.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "model/checkpoint.h"
#include "model/config.h"
#include "model/packed_matrix.h"
#include "switchyard/result.h"

namespace switchyard::model {

struct PlannedEntry {
  std::string name;
  std::vector<const Tensor*> tensors;
  bool is_matrix = false;
  PackedMatrix matrix;  // how to pack it; no bytes
};

// `tensors`: complete, as Checkpoint::open makes sure. The plan points at them. Errors: corrupt, unsupported.
Result<std::vector<PlannedEntry>> plan_image(const ModelConfig& config, std::span<const Tensor> tensors);

// Of the image's weights, as they lie in memory.
std::uint64_t planned_bytes(std::span<const PlannedEntry> plan);

// The tensors' values one after the other.
std::vector<float> pack_vector(const PlannedEntry& entry);

}  // namespace switchyard::model
