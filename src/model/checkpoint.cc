#include "model/checkpoint.h"

#include <algorithm>

#include "model/checkpoint_parts.h"
#include "model/checkpoint_tokenizer.h"

namespace switchyard::model {
namespace {

namespace fs = std::filesystem;

class OpenCheckpoint final : public Checkpoint {
 public:
  OpenCheckpoint(CheckpointParts parts, TokenizerSpec tokenizer)
      : parts_(std::move(parts)), tokenizer_(std::move(tokenizer)) {}

  const ModelConfig& config() const override { return parts_.config; }
  const TokenizerSpec& tokenizer() const override { return tokenizer_; }
  const std::vector<Tensor>& tensors() const override { return parts_.tensors; }
  std::string_view format() const override { return parts_.format; }
  const std::vector<fs::path>& files() const override { return parts_.files; }

 private:
  CheckpointParts parts_;
  TokenizerSpec tokenizer_;
};

}  // namespace

const Tensor* Checkpoint::find(std::string_view name) const {
  const auto found = std::ranges::find(tensors(), name, &Tensor::name);
  return found == tensors().end() ? nullptr : &*found;
}

Result<std::unique_ptr<Checkpoint>> Checkpoint::open(const fs::path& path) {
  auto parts = read_checkpoint(path);
  if (!parts) return pass(parts.error());
  auto tokenizer = read_tokenizer(*parts);
  if (!tokenizer) return fail_at(path.string(), tokenizer.error());
  parts->gguf.reset();  // the tokenizer has what it needs
  return std::make_unique<OpenCheckpoint>(std::move(*parts), std::move(*tokenizer));
}

}  // namespace switchyard::model
