// Cosines and sines of rotary position embeddings (Su et al. 2021; half-split pairs, as Hugging Face).
//
// Computed once, in double precision by arithmetic alone, so that every machine has the same bits. A table
// grows as positions are asked for (about 40 ns each pair); any thread may read while none lets it grow.
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

  // Has at least so many positions from then on. What is there stays where it is.
  void grow(std::uint32_t positions);

  const float* cosines(std::uint32_t position) const {
    return runs_[position / kRun].data() + std::size_t{position % kRun} * 2 * half_;
  }
  const float* sines(std::uint32_t position) const { return cosines(position) + half_; }
  std::uint32_t half() const { return half_; }

 private:
  static constexpr std::uint32_t kRun = 256;  // positions that are computed together

  std::uint32_t half_;
  std::vector<float> frequencies_;
  std::vector<std::vector<float>> runs_;  // [position / kRun][position % kRun][cosines, sines]
};

}  // namespace switchyard::model
