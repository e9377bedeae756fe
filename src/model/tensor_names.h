// Names and shapes of a model's tensors: this project's, and what GGUF and Hugging Face call them.
//
//   token_embedding            [vocab][hidden]
//   output_norm                [hidden]
//   output                     [vocab][hidden]              absent when the embeddings are tied
//   rope_factors               [head_dim / 2]               optional; each divides the frequency of its pair
//   layers.N.attention_norm    [hidden]
//   layers.N.attention.q       [heads * head_dim][hidden]
//   layers.N.attention.k|v     [kv_heads * head_dim][hidden]
//   layers.N.attention.output  [hidden][heads * head_dim]
//   layers.N.attention.q_bias|k_bias|v_bias                 where the model has them
//   layers.N.ffn_norm          [hidden]
//   layers.N.ffn.gate|up       [intermediate][hidden]
//   layers.N.ffn.down          [hidden][intermediate]
//
// Pure; any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "model/checkpoint.h"
#include "model/config.h"
#include "switchyard/result.h"

namespace switchyard::model {

enum class NameScheme { gguf, hugging_face };

// nullopt: a name that has no place in this project.
std::optional<std::string> project_name(NameScheme scheme, std::string_view original);
// Tensors of old exporters that hold nothing of the model ("…rotary_emb.inv_freq").
bool is_ignored(NameScheme scheme, std::string_view original);

struct ExpectedTensor {
  std::string name;
  std::vector<std::uint64_t> shape;
  bool required = true;
};
// In the order in which a forward pass meets them, those without a layer first.
std::vector<ExpectedTensor> expected_tensors(const ModelConfig& config);

// `found`, in the order of expected_tensors(), when it is what the configuration asks for. Errors: corrupt
// (missing, twice, of another shape or size), unsupported (a tensor that is not expected, a quantised
// vector).
Result<std::vector<Tensor>> arrange_tensors(const ModelConfig& config, std::vector<Tensor> found);

}  // namespace switchyard::model
