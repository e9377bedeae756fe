// What Hugging Face checkpoints are made of: a safetensors file, an index of shards, config.json.
// Seeds: files of tests/model/tiny_checkpoint.h.
#include "model/safetensors.h"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string_view>

#include "model/hf_config.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace switchyard::model;
  const auto bytes = std::as_bytes(std::span(data, size));
  if (const auto file = SafetensorsFile::parse(bytes)) {
    unsigned sum = 0;
    for (const SafetensorsTensor& tensor : file->tensors) {
      for (const std::byte byte : tensor.bytes) sum += std::to_integer<unsigned>(byte);
    }
    if (sum == 0xffffffff) std::abort();  // so that the bytes are read
  }
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  (void)parse_safetensors_index(text);
  (void)parse_hf_config(text, {});
  (void)parse_hf_config(R"({"architectures":["LlamaForCausalLM"],"num_hidden_layers":1,"hidden_size":8,
      "num_attention_heads":1,"intermediate_size":8,"vocab_size":8,"max_position_embeddings":8})",
                        text);
  return 0;
}
