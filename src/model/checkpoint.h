// A checkpoint as it comes: GGUF file, or Hugging Face safetensors with config.json and tokenizer.json.
//
// Mapped read-only; every offset, count and size is checked before it is believed. Tensors have the names of
// this project ("layers.0.attention.q", …, see tensor_names.h), whatever the format calls them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "model/config.h"
#include "model/tokenizer_spec.h"
#include "switchyard/result.h"

namespace switchyard::model {

enum class DType : std::uint32_t { f32, f16, bf16, q8_0, q4_0, q4_1, q4_k, q5_0, q5_1, q5_k, q6_k };

std::string_view to_string(DType type);
// Values per block and bytes per block of a type; 1 and the element's size for plain ones.
std::uint32_t block_values(DType type);
std::uint32_t block_bytes(DType type);

struct Tensor {
  std::string name;           // this project's name
  std::string original_name;  // the checkpoint's
  DType type = DType::f32;
  // Outermost first: a matrix is {rows = outputs, columns = inputs}, a vector {size}. Row-major.
  std::vector<std::uint64_t> shape;
  std::span<const std::byte> bytes;
};

class Checkpoint {
 public:
  // `path`: a .gguf file, a .safetensors file beside its config.json, or a directory of either.
  // Errors: not_found, corrupt, unsupported (architecture, type), io.
  static Result<std::unique_ptr<Checkpoint>> open(const std::filesystem::path& path);
  virtual ~Checkpoint() = default;

  virtual const ModelConfig& config() const = 0;
  virtual const TokenizerSpec& tokenizer() const = 0;
  virtual const std::vector<Tensor>& tensors() const = 0;
  virtual std::string_view format() const = 0;  // "GGUF v3", "safetensors"
  // Files that make up the checkpoint; their bytes decide its hash.
  virtual const std::vector<std::filesystem::path>& files() const = 0;
  const Tensor* find(std::string_view name) const;
};

// Turns `count` values, starting at value `first` (a multiple of block_values), into floats: the reference for
// every layout and test. Formulas: the types' definitions in GGUF's specification.
void dequantize(const Tensor& tensor, std::uint64_t first, std::span<float> out);

}  // namespace switchyard::model
