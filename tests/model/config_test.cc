// A model's configuration as a record, and its limits.
#include "model/config.h"

#include <gtest/gtest.h>

#include <limits>

#include "model/tiny_checkpoint.h"

namespace switchyard::model {
namespace {

TEST(ModelConfig, WhatIsWrittenIsRead) {
  ModelConfig config = TinyModel::of_type(DType::q4_k, Architecture::qwen2).config;
  config.rope_scaling = {.kind = RopeScaling::Kind::llama3,
                         .factor = 8,
                         .low_frequency_factor = 1,
                         .high_frequency_factor = 4,
                         .original_context = 8192};
  const auto bytes = serialize(config);
  const auto read = parse_config(bytes);
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_EQ(*read, config);
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_FALSE(parse_config(std::span(bytes).first(size))) << size;
  }
  auto longer = bytes;
  longer.push_back(std::byte{0});
  EXPECT_FALSE(parse_config(longer));
}

TEST(ModelConfig, SizesThatNoModelHasAreRefused) {
  const auto refuses = [](auto change) {
    ModelConfig config = TinyModel().config;
    change(config);
    const auto status = validate(config);
    return !status && status.error().code == ErrorCode::invalid;
  };
  EXPECT_FALSE(refuses([](ModelConfig&) {}));
  EXPECT_TRUE(refuses([](ModelConfig& config) { config.layers = 0; }));
  EXPECT_TRUE(refuses([](ModelConfig& config) { config.hidden = 1u << 31; }));
  EXPECT_TRUE(refuses([](ModelConfig& config) { config.kv_heads = 3; }));
  EXPECT_TRUE(refuses([](ModelConfig& config) { config.kv_heads = 8; }));
  EXPECT_TRUE(refuses([](ModelConfig& config) { config.head_dim = 7; }));
  EXPECT_TRUE(
      refuses([](ModelConfig& config) { config.rms_epsilon = std::numeric_limits<float>::quiet_NaN(); }));
  EXPECT_TRUE(
      refuses([](ModelConfig& config) { config.rope_theta = std::numeric_limits<float>::infinity(); }));
  EXPECT_TRUE(refuses([](ModelConfig& config) { config.end_tokens = {-1}; }));
  EXPECT_TRUE(refuses([](ModelConfig& config) { config.end_tokens = {320}; }));
  EXPECT_TRUE(refuses([](ModelConfig& config) { config.end_tokens.assign(1000, 1); }));
  EXPECT_TRUE(refuses([](ModelConfig& config) { config.architecture = static_cast<Architecture>(9); }));
  EXPECT_TRUE(
      refuses([](ModelConfig& config) { config.rope_scaling.kind = static_cast<RopeScaling::Kind>(9); }));
}

TEST(ModelConfig, NamesAreMadePrintable) {
  EXPECT_EQ(printable_name("SmolLM2 135M"), "SmolLM2 135M");
  EXPECT_EQ(printable_name("a\x1b[2Jb\n\xff"), "a[2Jb\xEF\xBF\xBD");
  EXPECT_EQ(printable_name("\xE6\x97\xA5"), "\xE6\x97\xA5");
  EXPECT_EQ(printable_name(std::string(500, 'x')).size(), 200u);
}

}  // namespace
}  // namespace switchyard::model
