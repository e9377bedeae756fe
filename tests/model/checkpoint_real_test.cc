// The real default model, when SWITCHYARD_TEST_MODEL names its GGUF file.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>

#include "model/checkpoint_parts.h"

namespace switchyard::model {
namespace {

TEST(CheckpointReal, SmolLm2OpensWithAllItsTensors) {
  const char* path = std::getenv("SWITCHYARD_TEST_MODEL");
  if (path == nullptr || *path == '\0') GTEST_SKIP() << "SWITCHYARD_TEST_MODEL does not name a GGUF file";
  const auto parts = read_checkpoint(path);
  ASSERT_TRUE(parts) << parts.error().message;
  const ModelConfig& config = parts->config;
  if (config.layers != 30 || config.hidden != 576) GTEST_SKIP() << "the test model is not SmolLM2-135M";
  EXPECT_EQ(config.architecture, Architecture::llama);
  EXPECT_EQ(config.heads, 9u);
  EXPECT_EQ(config.kv_heads, 3u);
  EXPECT_EQ(config.head_dim, 64u);
  EXPECT_EQ(config.intermediate, 1536u);
  EXPECT_EQ(config.vocab, 49152u);
  EXPECT_EQ(config.context, 8192u);
  EXPECT_FLOAT_EQ(config.rope_theta, 100000.0f);
  EXPECT_TRUE(config.tied_embeddings);
  EXPECT_EQ(config.end_tokens.front(), 2);
  EXPECT_EQ(parts->tensors.size(), 2u + 30u * 9u);
  for (const Tensor& tensor : parts->tensors) {
    for (const float value : dequantize_all(tensor)) ASSERT_TRUE(std::isfinite(value)) << tensor.name;
  }
}

}  // namespace
}  // namespace switchyard::model
