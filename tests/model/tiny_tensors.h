// Random tensors for tests: the same numbers from the same seed and name on every machine.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "model/checkpoint.h"
#include "model/half.h"

namespace switchyard::model {

// SplitMix64 (Steele, Lea and Flood 2014).
class TinyRandom {
 public:
  TinyRandom(std::uint64_t seed, std::string_view name) : state_(seed) {
    for (const char c : name) state_ = (state_ ^ static_cast<std::uint8_t>(c)) * 0x100000001b3;
  }

  std::uint64_t next() {
    std::uint64_t z = state_ += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  std::uint8_t byte() { return static_cast<std::uint8_t>(next() >> 56); }
  // In [-1, 1).
  float number() { return static_cast<float>(next() >> 40) * 0x1p-23f - 1.0f; }

 private:
  std::uint64_t state_;
};

inline std::vector<float> tiny_values(std::uint64_t seed, std::string_view name, std::uint64_t rows,
                                      std::uint64_t columns) {
  TinyRandom random(seed, name);
  std::vector<float> values(rows * columns);
  const bool norm = name.ends_with("norm");
  const float amplitude = norm ? 0.1f : std::sqrt(3.0f / static_cast<float>(columns));
  for (float& value : values) value = random.number() * amplitude + (norm ? 1.0f : 0.0f);
  return values;
}

// `values` in a plain type.
inline std::vector<std::byte> tiny_bytes(DType type, std::span<const float> values) {
  ByteWriter writer;
  for (const float value : values) {
    if (type == DType::f32) writer.write(value);
    if (type == DType::f16) writer.write(float_to_half(value));
    if (type == DType::bf16) writer.write(float_to_bfloat16(value));
  }
  return writer.take();
}

// Blocks of random quants whose values are mostly within +-amplitude.
inline std::vector<std::byte> tiny_blocks(DType type, TinyRandom& random, std::uint64_t blocks,
                                          float amplitude) {
  ByteWriter writer;
  const auto half = [&](float value) { writer.write(float_to_half(value)); };
  const auto noise = [&](int count) {
    for (int i = 0; i < count; ++i) writer.write(random.byte());
  };
  for (std::uint64_t block = 0; block < blocks; ++block) {
    const float a = amplitude * (1.0f + 0.25f * random.number());
    switch (type) {
      case DType::q8_0:
        half(a / 127), noise(32);
        break;
      case DType::q4_0:
        half(a / 8), noise(16);
        break;
      case DType::q5_0:
        half(a / 16), noise(20);
        break;
      case DType::q4_1:
        half(2 * a / 15), half(-a), noise(16);
        break;
      case DType::q5_1:
        half(2 * a / 31), half(-a), noise(20);
        break;
      case DType::q4_k:
        half(2 * a / 15 / 32), half(a / 32), noise(12 + 128);
        break;
      case DType::q5_k:
        half(2 * a / 31 / 32), half(a / 32), noise(12 + 32 + 128);
        break;
      case DType::q6_k:
        noise(128 + 64 + 16), half(a / 32 / 64);
        break;
      default:
        break;
    }
  }
  return writer.take();
}

}  // namespace switchyard::model
