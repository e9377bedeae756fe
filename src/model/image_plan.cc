#include "model/image_plan.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "model/image_file.h"

namespace switchyard::model {
namespace {

class Planner {
 public:
  explicit Planner(std::span<const Tensor> tensors) : tensors_(tensors) {}

  const Tensor* find(std::string_view name) const {
    const auto at =
        std::find_if(tensors_.begin(), tensors_.end(), [&](const Tensor& t) { return t.name == name; });
    return at == tensors_.end() ? nullptr : &*at;
  }

  void vector(std::string name, const std::vector<std::string>& from) {
    PlannedEntry entry;
    entry.name = std::move(name);
    for (const std::string& tensor : from) entry.tensors.push_back(require(tensor));
    entries.push_back(std::move(entry));
  }

  // False where the tensors cannot be packed as one.
  bool matrix(std::string name, const std::vector<std::string>& from, bool interleave = false) {
    PlannedEntry entry;
    entry.name = std::move(name);
    entry.is_matrix = true;
    for (const std::string& tensor : from) entry.tensors.push_back(require(tensor));
    if (!missing.empty()) return true;
    const auto plan = plan_packing(entry.tensors, interleave);
    if (!plan) return false;
    entry.matrix = *plan;
    entries.push_back(std::move(entry));
    return true;
  }

  std::vector<PlannedEntry> entries;
  std::string missing;  // the first tensor that is not there

 private:
  const Tensor* require(const std::string& name) {
    const Tensor* tensor = find(name);
    if (tensor == nullptr && missing.empty()) missing = name;
    return tensor;
  }

  std::span<const Tensor> tensors_;
};

}  // namespace

Result<std::vector<PlannedEntry>> plan_image(const ModelConfig& config, std::span<const Tensor> tensors) {
  Planner plan(tensors);
  plan.matrix("embedding", {"token_embedding"});
  if (plan.find("rope_factors") != nullptr) plan.vector("rope_factors", {"rope_factors"});
  for (std::uint32_t layer = 0; layer < config.layers; ++layer) {
    const std::string in = fmt::format("layers.{}.", layer);
    plan.vector(in + "attention_norm", {in + "attention_norm"});
    const std::string attention = in + "attention.";
    if (!plan.matrix(in + "qkv", {attention + "q", attention + "k", attention + "v"})) {
      for (const char* part : {"q", "k", "v"}) plan.matrix(in + part, {attention + part});
    }
    if (plan.find(attention + "q_bias") != nullptr) {
      plan.vector(in + "qkv_bias", {attention + "q_bias", attention + "k_bias", attention + "v_bias"});
    }
    plan.matrix(in + "attention_output", {attention + "output"});
    plan.vector(in + "ffn_norm", {in + "ffn_norm"});
    if (!plan.matrix(in + "gate_up", {in + "ffn.gate", in + "ffn.up"}, true)) {
      plan.matrix(in + "gate", {in + "ffn.gate"});
      plan.matrix(in + "up", {in + "ffn.up"});
    }
    plan.matrix(in + "down", {in + "ffn.down"});
  }
  plan.vector("output_norm", {"output_norm"});
  if (plan.find("output") != nullptr) plan.matrix("output", {"output"});
  if (!plan.missing.empty()) {
    return fail(ErrorCode::corrupt, "the checkpoint has no tensor '{}' ({} layers expected)", plan.missing,
                config.layers);
  }
  return std::move(plan.entries);
}

std::uint64_t planned_bytes(std::span<const PlannedEntry> plan) {
  std::uint64_t bytes = 0;
  for (const PlannedEntry& entry : plan) {
    std::uint64_t size = entry.is_matrix ? entry.matrix.packed_bytes() : 0;
    if (!entry.is_matrix) {
      for (const Tensor* tensor : entry.tensors) size += tensor->rows() * tensor->columns() * sizeof(float);
    }
    bytes += (size + kImageAlignment - 1) / kImageAlignment * kImageAlignment;
  }
  return bytes;
}

std::vector<float> pack_vector(const PlannedEntry& entry) {
  std::vector<float> values;
  for (const Tensor* tensor : entry.tensors) {
    const std::vector<float> part = dequantize_all(*tensor);
    values.insert(values.end(), part.begin(), part.end());
  }
  return values;
}

}  // namespace switchyard::model
