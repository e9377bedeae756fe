// Random tensors and activations that own their bytes; for tests.
#pragma once

#include <string>
#include <vector>

#include "model/checkpoint.h"
#include "model/cpu/kernels.h"
#include "model/tiny_tensors.h"

namespace switchyard::model {

inline constexpr DType kAllTypes[] = {DType::f32,  DType::f16,  DType::bf16, DType::q8_0,
                                      DType::q4_0, DType::q4_1, DType::q4_k, DType::q5_0,
                                      DType::q5_1, DType::q5_k, DType::q6_k};

struct RandomTensor {
  RandomTensor(DType type, std::uint64_t rows, std::uint64_t columns, std::uint64_t seed,
               std::uint32_t interleaved_head_rows = 0) {
    if (block_values(type) == 1) {
      bytes = tiny_bytes(type, tiny_values(seed, "weights", rows, columns));
    } else {
      TinyRandom random(seed, "weights");
      bytes = tiny_blocks(type, random, rows * columns / block_values(type), 0.1f);
    }
    tensor = {.name = "weights",
              .original_name = "weights",
              .type = type,
              .shape = {rows, columns},
              .bytes = bytes,
              .interleaved_head_rows = interleaved_head_rows};
  }
  RandomTensor(const RandomTensor&) = delete;

  std::vector<std::byte> bytes;
  Tensor tensor;
};

inline std::vector<float> random_floats(std::size_t count, std::uint64_t seed, float amplitude = 1.0f) {
  TinyRandom random(seed, "floats");
  std::vector<float> values(count);
  for (float& value : values) value = amplitude * random.number();
  return values;
}

// The instruction sets that this CPU has, scalar first.
inline std::vector<const cpu::Kernels*> all_kernels() {
  std::vector<const cpu::Kernels*> found;
  for (const cpu::Isa isa : {cpu::Isa::scalar, cpu::Isa::avx2, cpu::Isa::avx512}) {
    if (const cpu::Kernels* kernels = cpu::kernels(isa); kernels != nullptr) found.push_back(kernels);
  }
  return found;
}

inline std::string type_name(DType type) { return std::string(to_string(type)); }

}  // namespace switchyard::model
