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
#include "model/dtype.h"
#include "model/tokenizer_spec.h"
#include "switchyard/result.h"

namespace switchyard::model {

struct Tensor {
  std::string name;           // this project's name
  std::string original_name;  // the checkpoint's
  DType type = DType::f32;
  // Outermost first: a matrix is {rows = outputs, columns = inputs}, a vector {size}. Row-major; a row of a
  // block-quantised type is a whole number of blocks.
  std::vector<std::uint64_t> shape;
  std::span<const std::byte> bytes;
  // Rows per head when the file keeps the rows of each head in another order than this project; else 0.
  // The project's order, that of Hugging Face, rotates dimension i of a head with i + head_dim / 2. GGUF
  // files of architecture "llama" hold the query and key projections (and their biases) with these two side
  // by side, as 2i and 2i + 1 (LlamaModel.permute in llama.cpp's convert_hf_to_gguf.py). Always read rows by
  // stored_row().
  std::uint32_t interleaved_head_rows = 0;

  std::uint64_t rows() const { return shape.empty() ? 0 : shape.front(); }
  std::uint64_t columns() const { return shape.size() == 2 ? shape.back() : 1; }
};

// Where row `row` of the project's order lies in the file.
constexpr std::uint64_t stored_row(std::uint32_t interleaved_head_rows, std::uint64_t row) {
  if (interleaved_head_rows == 0) return row;
  const std::uint64_t head = row / interleaved_head_rows;
  const std::uint64_t i = row % interleaved_head_rows;
  const std::uint64_t half = interleaved_head_rows / 2;
  return head * interleaved_head_rows + (i < half ? 2 * i : 2 * (i - half) + 1);
}
// Bytes of row `row` (the project's order) of a matrix, or of element `row` of a vector of a plain type.
std::span<const std::byte> row_bytes(const Tensor& tensor, std::uint64_t row);

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

// The files of the checkpoint at `path`, as Checkpoint::files() lists them, without opening it. Errors:
// not_found, corrupt (an index of shards), invalid (a folder of several), unsupported, io.
Result<std::vector<std::filesystem::path>> checkpoint_files(const std::filesystem::path& path);

// Turns out.size() values, starting at value `first` as the file has them (both multiples of block_values),
// into floats: the reference for every layout and test. Formulas: the types' definitions in ggml-quants.c.
void dequantize(const Tensor& tensor, std::uint64_t first, std::span<float> out);
// Row `row`, in the project's order, of a matrix: out.size() == columns. A vector: one value.
void dequantize_row(const Tensor& tensor, std::uint64_t row, std::span<float> out);
// All values, rows in the project's order.
std::vector<float> dequantize_all(const Tensor& tensor);

}  // namespace switchyard::model
