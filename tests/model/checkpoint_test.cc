// Small checkpoints of every form, read as the same tensors.
#include <gtest/gtest.h>

#include <cmath>

#include "model/checkpoint_parts.h"
#include "model/temporary_directory.h"
#include "model/tiny_checkpoint.h"

namespace switchyard::model {
namespace {

const Tensor& tensor(const CheckpointParts& parts, std::string_view name) {
  const auto found = std::ranges::find(parts.tensors, name, &Tensor::name);
  EXPECT_NE(found, parts.tensors.end()) << name;
  return *found;
}

std::string error_of(const Result<CheckpointParts>& parts) {
  return parts ? "no error" : parts.error().message;
}

class Architectures : public testing::TestWithParam<Architecture> {};

TEST_P(Architectures, GgufAndSafetensorsHoldTheSameNumbers) {
  TemporaryDirectory directory;
  const TinyModel model = TinyModel::of_type(DType::f32, GetParam());
  write_tiny_gguf(directory / "tiny.gguf", model);
  write_tiny_safetensors(directory / "hf", model);
  write_tiny_safetensors(directory / "sharded", model, 3);
  const auto gguf = read_checkpoint(directory / "tiny.gguf");
  const auto plain = read_checkpoint(directory / "hf");
  const auto sharded = read_checkpoint(directory / "sharded");
  ASSERT_TRUE(gguf) << error_of(gguf);
  ASSERT_TRUE(plain) << error_of(plain);
  ASSERT_TRUE(sharded) << error_of(sharded);
  EXPECT_EQ(gguf->config, plain->config);
  EXPECT_EQ(plain->config, sharded->config);
  EXPECT_EQ(gguf->config, model.config);
  EXPECT_EQ(gguf->format, "GGUF v3");
  EXPECT_EQ(plain->format, "safetensors");
  EXPECT_EQ(sharded->files.size(), 7u);  // config, two of the tokenizer, index, three shards
  for (const auto& parts : {&gguf, &plain, &sharded}) {
    const auto path = parts == &gguf ? directory / "tiny.gguf" : (*parts)->directory;
    EXPECT_EQ(checkpoint_files(path), (*parts)->files);
  }
  ASSERT_EQ(gguf->tensors.size(), plain->tensors.size());
  ASSERT_EQ(sharded->tensors.size(), plain->tensors.size());
  for (std::size_t i = 0; i < gguf->tensors.size(); ++i) {
    EXPECT_EQ(gguf->tensors[i].name, plain->tensors[i].name);
    EXPECT_EQ(gguf->tensors[i].shape, plain->tensors[i].shape);
    const std::vector<float> values = dequantize_all(plain->tensors[i]);
    EXPECT_EQ(dequantize_all(gguf->tensors[i]), values) << gguf->tensors[i].name;
    EXPECT_EQ(dequantize_all(sharded->tensors[i]), values);
    const auto& stored = gguf->tensors[i];
    EXPECT_EQ(values, tiny_values(model.seed, stored.name, stored.rows(), stored.columns()));
  }
}

INSTANTIATE_TEST_SUITE_P(All, Architectures, testing::Values(Architecture::llama, Architecture::qwen2));

TEST(Checkpoint, LlamaGgufRowsAreInterleavedInTheFile) {
  const TinyModel model;
  const auto bytes = tiny_gguf(model).build();
  const auto parts = read_gguf_bytes(bytes, "tiny");
  ASSERT_TRUE(parts) << error_of(parts);
  EXPECT_EQ(tensor(*parts, "layers.0.attention.q").interleaved_head_rows, 16u);
  EXPECT_EQ(tensor(*parts, "layers.1.attention.k").interleaved_head_rows, 16u);
  EXPECT_EQ(tensor(*parts, "layers.0.attention.v").interleaved_head_rows, 0u);
  EXPECT_EQ(tensor(*parts, "layers.0.ffn.gate").interleaved_head_rows, 0u);
  // weights.reshape(heads, 2, head_dim / 2, columns).swapaxes(1, 2), as the converter does.
  for (std::uint64_t head = 0; head < 4; ++head) {
    for (std::uint64_t half = 0; half < 2; ++half) {
      for (std::uint64_t i = 0; i < 8; ++i)
        EXPECT_EQ(stored_row(16, head * 16 + half * 8 + i), head * 16 + 2 * i + half);
    }
  }
  const Tensor& q = tensor(*parts, "layers.0.attention.q");
  EXPECT_EQ(row_bytes(q, 1).data(), q.bytes.data() + 2 * 64 * sizeof(float));
}

class Types : public testing::TestWithParam<DType> {};

TEST_P(Types, EveryTypeOpens) {
  TemporaryDirectory directory;
  TinyModel model = TinyModel::of_type(GetParam());
  model.config.tied_embeddings = false;
  write_tiny_gguf(directory / "tiny.gguf", model);
  const auto parts = read_checkpoint(directory.path());  // the folder's only GGUF file
  ASSERT_TRUE(parts) << error_of(parts);
  EXPECT_EQ(tensor(*parts, "output").type, GetParam());
  for (const Tensor& stored : parts->tensors) {
    double squares = 0;
    const auto values = dequantize_all(stored);
    for (const float value : values) {
      ASSERT_TRUE(std::isfinite(value));
      squares += value * value;
    }
    EXPECT_GT(squares, 0) << stored.name;
  }
}

INSTANTIATE_TEST_SUITE_P(All, Types,
                         testing::Values(DType::f32, DType::f16, DType::bf16, DType::q8_0, DType::q4_0,
                                         DType::q4_1, DType::q4_k, DType::q5_0, DType::q5_1, DType::q5_k,
                                         DType::q6_k),
                         [](const auto& test) { return std::string(to_string(test.param)); });

TEST(Checkpoint, HalfPrecisionSafetensors) {
  TemporaryDirectory directory;
  TinyModel model = TinyModel::of_type(DType::bf16, Architecture::qwen2);
  write_tiny_safetensors(directory.path(), model);
  const auto parts = read_checkpoint(directory / "model.safetensors");
  ASSERT_TRUE(parts) << error_of(parts);
  const Tensor& down = tensor(*parts, "layers.0.ffn.down");
  EXPECT_EQ(down.type, DType::bf16);
  const auto values = tiny_values(model.seed, down.name, down.rows(), down.columns());
  const auto read = dequantize_all(down);
  for (std::size_t i = 0; i < values.size(); ++i) EXPECT_NEAR(read[i], values[i], std::abs(values[i]) / 256);
}

TEST(Checkpoint, RopeFactorsOfGgufAreRead) {
  const std::vector<float> factors = {1, 2, 3, 4, 5, 6, 7, 8};
  const auto bytes =
      tiny_gguf({}).tensor("rope_freqs.weight", {8}, 0, std::as_bytes(std::span(factors))).build();
  const auto parts = read_gguf_bytes(bytes, "tiny");
  ASSERT_TRUE(parts) << error_of(parts);
  EXPECT_EQ(dequantize_all(tensor(*parts, "rope_factors")), factors);
}

TEST(Checkpoint, ErrorsNameTensorAndShape) {
  TinyModel model;
  const auto narrower = [&](const char* key, std::uint32_t value) {
    ModelConfig config = model.config;
    if (std::string_view(key) == "intermediate") config.intermediate = value;
    if (std::string_view(key) == "layers") config.layers = value;
    return config;
  };
  std::vector<Tensor> tensors;
  const auto bytes = tiny_gguf(model).build();
  const auto parts = read_gguf_bytes(bytes, "tiny");
  ASSERT_TRUE(parts);
  const auto wrong = arrange_tensors(narrower("intermediate", 128), parts->tensors);
  ASSERT_FALSE(wrong);
  EXPECT_EQ(wrong.error().code, ErrorCode::corrupt);
  EXPECT_EQ(wrong.error().message,
            "tensor 'blk.0.ffn_gate.weight' ('layers.0.ffn.gate') has shape [96, 64]; the configuration asks "
            "for [128, 64]");
  const auto missing = arrange_tensors(narrower("layers", 3), parts->tensors);
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().message, "tensor 'layers.2.attention_norm' with shape [64] is missing");
  const auto more = arrange_tensors(narrower("layers", 1), parts->tensors);
  ASSERT_FALSE(more);
  EXPECT_EQ(more.error().code, ErrorCode::unsupported);
}

TEST(Checkpoint, WhatIsNotKnownIsNamed) {
  const auto message = [](const GgufBuilder& file) {
    const auto bytes = file.build();
    const auto parts = read_gguf_bytes(bytes, "x");
    return error_of(parts);
  };
  EXPECT_NE(message(GgufBuilder().string("general.architecture", "mamba")).find("'mamba'"),
            std::string::npos);
  EXPECT_NE(message(tiny_gguf({}).number("llama.expert_count", 8u)).find("mixture of experts"),
            std::string::npos);
  EXPECT_NE(message(tiny_gguf({}).string("llama.rope.scaling.type", "yarn")).find("yarn"), std::string::npos);
  EXPECT_NE(message(tiny_gguf({}).number("split.count", 3u)).find("merge"), std::string::npos);
  EXPECT_NE(message(tiny_gguf({}).directory("blk.0.attn_output.bias", {64}, 0, 0)).find("overlaps"),
            std::string::npos);
  const std::vector<float> bias(64);
  const auto with_bias =
      tiny_gguf({}).tensor("blk.0.attn_output.bias", {64}, 0, std::as_bytes(std::span(bias)));
  EXPECT_NE(message(with_bias).find("'blk.0.attn_output.bias' has no place"), std::string::npos);
  const std::vector<std::byte> blocks(84);
  EXPECT_NE(message(tiny_gguf({}).tensor("rope_freqs.weight", {256}, 10, blocks)).find("Q2_K"),
            std::string::npos);
}

TEST(Checkpoint, PathsThatAreNone) {
  TemporaryDirectory directory;
  EXPECT_EQ(read_checkpoint(directory / "none").error().code, ErrorCode::not_found);
  EXPECT_EQ(read_checkpoint(directory.path()).error().code, ErrorCode::not_found);
  write_file(directory / "a.gguf", "");
  EXPECT_EQ(read_checkpoint(directory / "a.gguf").error().code, ErrorCode::corrupt);
  write_file(directory / "b.gguf", "GGUF");
  EXPECT_EQ(read_checkpoint(directory / "b.gguf").error().code, ErrorCode::corrupt);
  EXPECT_EQ(read_checkpoint(directory.path()).error().code, ErrorCode::invalid);  // which of two?
  write_file(directory / "text", "hello");
  EXPECT_EQ(read_checkpoint(directory / "text").error().code, ErrorCode::unsupported);
  EXPECT_FALSE(read_checkpoint("/dev/zero"));
}

}  // namespace
}  // namespace switchyard::model
