#include "model/describe.h"

#include <gtest/gtest.h>

#include "model/checkpoint_parts.h"
#include "model/tiny_checkpoint.h"

namespace switchyard::model {
namespace {

class PartsCheckpoint final : public Checkpoint {
 public:
  PartsCheckpoint(CheckpointParts parts, TokenizerSpec spec)
      : parts_(std::move(parts)), spec_(std::move(spec)) {}
  const ModelConfig& config() const override { return parts_.config; }
  const TokenizerSpec& tokenizer() const override { return spec_; }
  const std::vector<Tensor>& tensors() const override { return parts_.tensors; }
  std::string_view format() const override { return parts_.format; }
  const std::vector<std::filesystem::path>& files() const override { return parts_.files; }

 private:
  CheckpointParts parts_;
  TokenizerSpec spec_;
};

TEST(Describe, SizesTypesAndMemory) {
  TinyModel model = TinyModel::of_type(DType::q8_0, Architecture::qwen2);
  const auto bytes = tiny_gguf(model).build();
  auto parts = read_gguf_bytes(bytes, "tiny");
  ASSERT_TRUE(parts) << parts.error().message;
  parts->files = {"/models/tiny.gguf"};
  TokenizerSpec spec;
  spec.tokens.resize(264);
  spec.chat_template = "x";
  const auto description = describe(PartsCheckpoint(std::move(*parts), std::move(spec)));
  ASSERT_TRUE(description) << description.error().message;
  // Embedding, and per layer: q, k, v, output; gate, up, down; in blocks of 32 values in 34 bytes.
  const std::uint64_t matrices = 320 * 64 + 2 * (64 * 64 * 2 + 32 * 64 * 2 + 3 * 96 * 64);
  const std::uint64_t vectors = 64 + 2 * (64 * 2 + 64 + 32 * 2);
  EXPECT_EQ(description->parameters, matrices + vectors);
  EXPECT_EQ(description->types.at("q8_0").tensors, 1u + 2u * 7u);
  EXPECT_EQ(description->types.at("q8_0").bytes, matrices / 32 * 34);
  EXPECT_EQ(description->types.at("f32").bytes, vectors * 4);
  EXPECT_EQ(description->kv_bytes_per_token,
            2u * 2u * 2u * 16u * 2u);  // layers, K and V, heads, values, bytes
  EXPECT_GE(description->image_bytes, description->tensor_bytes);
  const nlohmann::json json = description->to_json();
  EXPECT_EQ(json["architecture"], "qwen2");
  EXPECT_EQ(json["tokenizer"]["tokens"], 264);
  EXPECT_EQ(json["tokenizer"]["chat_template"], true);
  EXPECT_EQ(json["files"][0], "/models/tiny.gguf");
  const std::string text = description->to_text();
  for (const char* part :
       {"GGUF v3", "qwen2", "with biases", "q8_0", "8.50 bits", "with a chat template", "256 B a token"}) {
    EXPECT_NE(text.find(part), std::string::npos) << part << "\n" << text;
  }
}

}  // namespace
}  // namespace switchyard::model
