#include "model/runtime_weights.h"

#include <string>

namespace switchyard::model {
namespace {

// Remembers the first error, so that a list of look-ups reads as one.
class Finder {
 public:
  explicit Finder(const ModelImage& image) : image_(image) {}

  bool has_matrix(const std::string& name) const { return image_.matrix(name).has_value(); }

  PackedMatrix matrix(const std::string& name, std::uint32_t rows, std::uint32_t columns) {
    auto found = image_.matrix(name);
    if (!found) return note(found.error()), PackedMatrix{};
    if (found->rows != rows || found->columns != columns || found->bytes.size() != found->packed_bytes()) {
      note(Error{ErrorCode::corrupt,
                 fmt::format("'{}' is {} x {}, {} bytes; {} x {} expected: make the image anew", name,
                             found->rows, found->columns, found->bytes.size(), rows, columns)});
    }
    return *found;
  }

  std::span<const float> vector(const std::string& name, std::uint32_t size, bool required = true) {
    auto found = image_.vector(name);
    if (!found) {
      if (required) note(found.error());
      return {};
    }
    if (found->size() != size) {
      note(Error{ErrorCode::corrupt, fmt::format("'{}' has {} values; {} expected: make the image anew", name,
                                                 found->size(), size)});
    }
    return *found;
  }

  Status status() const {
    if (!error_.message.empty()) return pass(error_);
    return {};
  }

 private:
  void note(const Error& error) {
    if (error_.message.empty()) error_ = error;
  }

  const ModelImage& image_;
  Error error_{ErrorCode::corrupt, {}};
};

}  // namespace

Result<RuntimeWeights> RuntimeWeights::find(const ModelImage& image) {
  const ModelConfig& config = image.config();
  const std::uint32_t q = config.heads * config.head_dim;
  const std::uint32_t kv = config.kv_heads * config.head_dim;
  Finder finder(image);
  RuntimeWeights weights;
  weights.embedding = finder.matrix("embedding", config.vocab, config.hidden);
  weights.output =
      config.tied_embeddings ? weights.embedding : finder.matrix("output", config.vocab, config.hidden);
  weights.output_norm = finder.vector("output_norm", config.hidden);
  weights.rope_factors = finder.vector("rope_factors", config.head_dim / 2, false);
  for (std::uint32_t i = 0; i < config.layers; ++i) {
    const std::string in = fmt::format("layers.{}.", i);
    LayerWeights layer;
    layer.attention_norm = finder.vector(in + "attention_norm", config.hidden);
    if (finder.has_matrix(in + "qkv")) {
      layer.qkv.push_back(finder.matrix(in + "qkv", q + 2 * kv, config.hidden));
    } else {
      layer.qkv.push_back(finder.matrix(in + "q", q, config.hidden));
      layer.qkv.push_back(finder.matrix(in + "k", kv, config.hidden));
      layer.qkv.push_back(finder.matrix(in + "v", kv, config.hidden));
    }
    layer.qkv_bias = finder.vector(in + "qkv_bias", q + 2 * kv, config.qkv_bias);
    layer.attention_output = finder.matrix(in + "attention_output", config.hidden, q);
    layer.ffn_norm = finder.vector(in + "ffn_norm", config.hidden);
    if (finder.has_matrix(in + "gate_up")) {
      layer.gate_up.push_back(finder.matrix(in + "gate_up", 2 * config.intermediate, config.hidden));
    } else {
      layer.gate_up.push_back(finder.matrix(in + "gate", config.intermediate, config.hidden));
      layer.gate_up.push_back(finder.matrix(in + "up", config.intermediate, config.hidden));
    }
    layer.down = finder.matrix(in + "down", config.hidden, config.intermediate);
    if (auto status = finder.status(); !status) return pass(status.error());
    weights.layers.push_back(std::move(layer));
  }
  return weights;
}

}  // namespace switchyard::model
