// A GGUF file: parsed, read as a checkpoint, its tokenizer taken out, the first row of every tensor turned
// into floats. Seeds: files of tests/model/tiny_checkpoint.h.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "model/checkpoint_parts.h"
#include "model/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace switchyard::model;
  const auto bytes = std::as_bytes(std::span(data, size));
  if (const auto file = GgufFile::parse(bytes)) {
    for (const auto& [key, value] : file->metadata.values) {
      file->metadata.integer(key);
      file->metadata.integers(key);
      file->metadata.reals(key);
    }
    (void)tokenizer_spec_from_gguf(file->metadata);
  }
  const auto parts = read_gguf_bytes(bytes, "fuzz");
  if (!parts) return 0;
  std::vector<float> row;
  for (const Tensor& tensor : parts->tensors) {
    row.resize(tensor.columns());
    dequantize_row(tensor, tensor.rows() - 1, row);
  }
  return 0;
}
