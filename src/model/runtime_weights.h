// The weights of a model as the runtime meets them: views into an image, shapes checked. Immutable; any
// thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "model/config.h"
#include "model/image.h"
#include "model/packed_matrix.h"
#include "switchyard/result.h"

namespace switchyard::model {

struct LayerWeights {
  std::span<const float> attention_norm;
  std::vector<PackedMatrix> qkv;    // one, or three: their outputs side by side
  std::span<const float> qkv_bias;  // empty: none
  PackedMatrix attention_output;
  std::span<const float> ffn_norm;
  std::vector<PackedMatrix> gate_up;  // one, interleaved; or two
  PackedMatrix down;
};

struct RuntimeWeights {
  PackedMatrix embedding;
  PackedMatrix output;
  std::span<const float> output_norm;
  std::span<const float> rope_factors;  // empty: none
  std::vector<LayerWeights> layers;

  // Errors: not_found, corrupt (a shape that the configuration does not ask for).
  static Result<RuntimeWeights> find(const ModelImage& image);
};

}  // namespace switchyard::model
