// Cosines and sines of rotary position embeddings (Su et al. 2021; half-split pairs, as Hugging Face).
//
// Computed once, in double precision by arithmetic alone, so that every machine has the same bits. Immutable;
// any thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "model/config.h"

namespace switchyard::model {

// Angle per position of each pair, as Hugging Face's float32 inv_freq: theta^(-2i / head_dim), scaled.
// `factors`: a divisor for each pair, which replaces the configuration's scaling; or empty.
std::vector<float> rope_frequencies(const ModelConfig& config, std::span<const float> factors);

// Of any finite angle up to 2^40; error below 1e-9.
struct SineCosine {
  double sine = 0;
  double cosine = 1;
};
SineCosine sine_cosine(double angle);

class RopeTable {
 public:
  RopeTable(std::span<const float> frequencies, std::uint32_t positions);

  const float* cosines(std::uint32_t position) const {
    return values_.data() + std::size_t{position} * 2 * half_;
  }
  const float* sines(std::uint32_t position) const { return cosines(position) + half_; }
  std::uint32_t half() const { return half_; }

 private:
  std::uint32_t half_;
  std::vector<float> values_;  // [position][cosines, sines]
};

}  // namespace switchyard::model
