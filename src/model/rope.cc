#include "model/rope.h"

#include <cmath>
#include <cstddef>
#include <numbers>
#include <utility>

namespace switchyard::model {
namespace {

// Llama 3.1's scaling: long wavelengths are divided, short ones kept, those between blended
// (_compute_llama3_parameters in transformers' modeling_rope_utils.py).
double scale_llama3(double frequency, const RopeScaling& scaling) {
  const double context = scaling.original_context;
  const double wavelength = 2 * std::numbers::pi / frequency;
  const double low = scaling.low_frequency_factor;
  const double high = scaling.high_frequency_factor;
  if (wavelength > context / low) return frequency / scaling.factor;
  if (wavelength < context / high) return frequency;
  const double smooth = (context / wavelength - low) / (high - low);
  return (1 - smooth) * frequency / scaling.factor + smooth * frequency;
}

}  // namespace

std::vector<float> rope_frequencies(const ModelConfig& config, std::span<const float> factors) {
  std::vector<float> frequencies(config.head_dim / 2);
  for (std::size_t i = 0; i < frequencies.size(); ++i) {
    double frequency =
        std::pow(static_cast<double>(config.rope_theta), -2.0 * static_cast<double>(i) / config.head_dim);
    if (i < factors.size()) {
      frequency /= factors[i];
    } else if (config.rope_scaling.kind == RopeScaling::Kind::linear) {
      frequency /= config.rope_scaling.factor;
    } else if (config.rope_scaling.kind == RopeScaling::Kind::llama3) {
      frequency = scale_llama3(frequency, config.rope_scaling);
    }
    frequencies[i] = static_cast<float>(frequency);
  }
  return frequencies;
}

SineCosine sine_cosine(double angle) {
  // Quarter turns are taken off with pi / 2 in three parts, the first two short enough for exact products
  // (Cody and Waite; constants of fdlibm's e_rem_pio2.c); Taylor's series does the rest.
  constexpr double kPart1 = 1.57079632673412561417e+00;
  constexpr double kPart2 = 6.07710050630396597660e-11;
  constexpr double kPart3 = 2.02226624879595063154e-21;
  const double turns = std::floor(angle * (2 / std::numbers::pi) + 0.5);
  const double r = ((angle - turns * kPart1) - turns * kPart2) - turns * kPart3;
  const double square = r * r;
  double sine = 0;
  double cosine = 0;
  for (int n = 20; n >= 2; n -= 2) {
    cosine = (1 + cosine) * (-square / (n * (n - 1)));
    sine = (1 + sine) * (-square / (n * (n + 1)));
  }
  sine = r * (1 + sine);
  cosine = 1 + cosine;
  switch (static_cast<std::int64_t>(turns) & 3) {
    case 0:
      return {sine, cosine};
    case 1:
      return {cosine, -sine};
    case 2:
      return {-sine, -cosine};
    default:
      return {-cosine, sine};
  }
}

RopeTable::RopeTable(std::span<const float> frequencies, std::uint32_t positions)
    : half_(static_cast<std::uint32_t>(frequencies.size())),
      frequencies_(frequencies.begin(), frequencies.end()) {
  grow(positions);
}

void RopeTable::grow(std::uint32_t positions) {
  while (runs_.size() * kRun < positions) {
    const auto first = static_cast<double>(runs_.size() * kRun);
    std::vector<float> run(std::size_t{kRun} * 2 * half_);
    for (std::uint32_t i = 0; i < kRun; ++i) {
      float* row = run.data() + std::size_t{i} * 2 * half_;
      for (std::uint32_t pair = 0; pair < half_; ++pair) {
        // The product of a position and a float is exact in double.
        const SineCosine at = sine_cosine((first + i) * static_cast<double>(frequencies_[pair]));
        row[pair] = static_cast<float>(at.cosine);
        row[half_ + pair] = static_cast<float>(at.sine);
      }
    }
    runs_.push_back(std::move(run));
  }
}

}  // namespace switchyard::model
