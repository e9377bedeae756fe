// A model image that is packed into memory, without a file; for tests.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "model/image.h"
#include "model/image_plan.h"

namespace switchyard::model {

class MemoryImage final : public ModelImage {
 public:
  static Result<std::shared_ptr<const ModelImage>> make(const ModelConfig& config,
                                                        std::span<const Tensor> tensors) {
    auto plan = plan_image(config, tensors);
    if (!plan) return pass(plan.error());
    auto image = std::make_shared<MemoryImage>();
    image->config_ = config;
    for (const PlannedEntry& entry : *plan) {
      if (entry.is_matrix) {
        image->matrices_[entry.name] = {entry.matrix, pack(entry.matrix, entry.tensors)};
      } else {
        image->vectors_[entry.name] = pack_vector(entry);
      }
    }
    return image;
  }

  const ModelConfig& config() const override { return config_; }
  std::span<const std::byte> tokenizer() const override { return {}; }
  std::string_view hash() const override { return "memory"; }
  std::span<const std::byte> bytes() const override { return {}; }
  std::span<const std::byte> file() const override { return {}; }
  std::shared_ptr<const ModelImage> placed_at(std::span<const std::byte>) const override { return nullptr; }

  Result<PackedMatrix> matrix(std::string_view name) const override {
    const auto at = matrices_.find(name);
    if (at == matrices_.end()) return fail(ErrorCode::not_found, "no matrix '{}'", name);
    PackedMatrix matrix = at->second.first;
    matrix.bytes = at->second.second;
    return matrix;
  }
  Result<std::span<const float>> vector(std::string_view name) const override {
    const auto at = vectors_.find(name);
    if (at == vectors_.end()) return fail(ErrorCode::not_found, "no vector '{}'", name);
    return std::span<const float>(at->second);
  }

 private:
  ModelConfig config_;
  std::map<std::string, std::pair<PackedMatrix, std::vector<std::byte>>, std::less<>> matrices_;
  std::map<std::string, std::vector<float>, std::less<>> vectors_;
};

}  // namespace switchyard::model
