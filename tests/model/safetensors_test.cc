// Safetensors files, their index, and config.json: good ones, and what is refused.
#include "model/safetensors.h"

#include <gtest/gtest.h>

#include "model/bounded_json.h"
#include "model/checkpoint_parts.h"
#include "model/hf_config.h"
#include "model/temporary_directory.h"
#include "model/tiny_checkpoint.h"

namespace switchyard::model {
namespace {

bool contains(const std::string& text, std::string_view part) { return text.find(part) != std::string::npos; }

std::vector<std::byte> file_of(std::string_view header, std::size_t data_bytes) {
  ByteWriter file;
  file.write<std::uint64_t>(header.size());
  file.write_bytes(std::as_bytes(std::span(header)));
  file.write_bytes(std::vector<std::byte>(data_bytes));
  return file.take();
}

std::string error_of(std::string_view header, std::size_t data_bytes) {
  const auto bytes = file_of(header, data_bytes);
  const auto file = SafetensorsFile::parse(bytes);
  return file ? "no error" : file.error().message;
}

TEST(Safetensors, GoodFiles) {
  const auto bytes =
      file_of(R"({"__metadata__":{"format":"pt"},"b":{"dtype":"F32","shape":[2,1],"data_offsets":[3,11]},
      "a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},"none":{"dtype":"BF16","shape":[0,7],"data_offsets":[3,3]},
      "one":{"dtype":"F16","shape":[],"data_offsets":[11,13]}}   )",
              13);
  const auto file = SafetensorsFile::parse(bytes);
  ASSERT_TRUE(file) << file.error().message;
  ASSERT_EQ(file->tensors.size(), 4u);
  EXPECT_EQ(file->tensors[1].name, "b");
  EXPECT_EQ(file->tensors[1].shape, (std::vector<std::uint64_t>{2, 1}));
  EXPECT_EQ(file->tensors[1].bytes.size(), 8u);
  EXPECT_EQ(file->tensors[3].bytes.size(), 2u);
  EXPECT_EQ(file->metadata.at("format"), "pt");
  EXPECT_EQ(error_of("{}", 0), "no error");
}

TEST(Safetensors, WhatIsRefused) {
  const auto entry = [](std::string_view dtype, std::string_view shape, std::string_view offsets) {
    return error_of(
        fmt::format(R"({{"a":{{"dtype":{},"shape":{},"data_offsets":{}}}}})", dtype, shape, offsets), 8);
  };
  EXPECT_EQ(entry(R"("F32")", "[2]", "[0,8]"), "no error");
  EXPECT_TRUE(contains(entry(R"("F32")", "[2]", "[0,4]"), "not what its shape takes"));
  EXPECT_TRUE(contains(entry(R"("F32")", "[3]", "[0,12]"), "truncated"));
  EXPECT_TRUE(contains(entry(R"("F32")", "[2]", "[8,0]"), "start and an end"));
  EXPECT_TRUE(contains(entry(R"("F32")", "[2]", "[0,8,9]"), "start and an end"));
  EXPECT_TRUE(contains(entry(R"("F32")", "[2]", "[-1,7]"), "start and an end"));
  EXPECT_TRUE(contains(entry(R"("F32")", "[2]", "[0,18446744073709551615]"), "truncated"));
  EXPECT_TRUE(contains(entry(R"("F32")", "[4294967296,4294967296]", "[0,8]"), "not what its shape takes"));
  EXPECT_TRUE(contains(entry(R"("F32")", "[4294967296,4294967296,0]", "[0,8]"), "not what its shape takes"));
  EXPECT_TRUE(contains(entry(R"("F32")", "[-2]", "[0,8]"), "shape"));
  EXPECT_TRUE(contains(entry(R"("F32")", "[2.0]", "[0,8]"), "shape"));
  EXPECT_TRUE(contains(entry(R"("F32")", "[1,1,1,1,1,1,1,1,2]", "[0,8]"), "shape"));
  EXPECT_TRUE(contains(entry(R"("Q7")", "[2]", "[0,8]"), "type 'Q7'"));
  EXPECT_TRUE(contains(entry("7", "[2]", "[0,8]"), "dtype"));
  EXPECT_TRUE(contains(error_of(R"({"a":7})", 0), "lacks dtype"));
  EXPECT_TRUE(contains(error_of(R"({"\u001b[2J":7})", 0), "no plain text"));
  EXPECT_TRUE(contains(error_of(R"([])", 0), "not an object"));
  EXPECT_TRUE(contains(error_of("", 0), "JSON"));
  EXPECT_TRUE(contains(error_of("{\"a\": \xff}", 0), "JSON"));
  EXPECT_TRUE(contains(error_of(R"({"__metadata__":{"a":1}})", 0), "__metadata__"));
  EXPECT_TRUE(contains(error_of(R"({"a":{"dtype":"U8","shape":[5],"data_offsets":[0,5]},
                                    "b":{"dtype":"U8","shape":[5],"data_offsets":[4,9]}})",
                                9),
                       "overlap"));
  EXPECT_TRUE(contains(error_of(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},
                                    "a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
                                2),
                       "twice"));
}

TEST(Safetensors, LengthsOfTheHeader) {
  for (const std::uint64_t length : {std::uint64_t{3}, kMaxSafetensorsHeader + 1, ~std::uint64_t{0}}) {
    ByteWriter file;
    file.write(length);
    file.write_bytes(std::as_bytes(std::span("{}", 2)));
    EXPECT_EQ(SafetensorsFile::parse(file.bytes()).error().code, ErrorCode::corrupt) << length;
  }
}

TEST(Safetensors, DeepAndVastJsonIsRefusedBeforeItIsBuilt) {
  EXPECT_TRUE(contains(error_of(std::string(1'000'000, '['), 0), "deeper"));
  std::string objects = "{";
  for (int i = 0; i < 100'000; ++i) objects += "\"a\":{";
  EXPECT_TRUE(contains(error_of(objects, 0), "deeper"));
  std::string brackets = R"({"[[[[[[[[[[[[[[[[[[[[[[\"[[[[": 1})";  // within a name they are nothing
  EXPECT_TRUE(contains(error_of(brackets, 0), "lacks dtype"));
  const JsonLimits few{.depth = 4, .values = 10};
  EXPECT_EQ(parse_json_object(R"({"a":[1,2,3,4,5,6,7,8,9,10,11]})", few).error().code,
            ErrorCode::unsupported);
}

TEST(Safetensors, EveryTruncationIsRefused) {
  const TinyModel model;
  TemporaryDirectory directory;
  write_tiny_safetensors(directory.path(), model);
  const auto mapping = MappedFile::open(directory / "model.safetensors");
  const auto bytes = mapping->bytes();
  std::uint64_t header = 0;
  std::memcpy(&header, bytes.data(), sizeof(header));
  for (std::size_t size = 0; size < bytes.size(); size += size < header + 8 ? 1 : 997) {
    const std::vector<std::byte> part(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(size));
    ASSERT_FALSE(SafetensorsFile::parse(part)) << size;
  }
  std::vector<std::byte> copy(bytes.begin(), bytes.end());
  for (std::size_t bit = 0; bit < (header + 8) * 8; bit += 7) {
    const auto flip = static_cast<std::byte>(1u << (bit % 8));
    copy[bit / 8] ^= flip;
    const auto file = SafetensorsFile::parse(copy);
    EXPECT_TRUE(file || !file.error().message.empty());
    copy[bit / 8] ^= flip;
  }
}

TEST(SafetensorsIndex, FilesBesideItAlone) {
  const auto good =
      parse_safetensors_index(R"({"weight_map":{"a":"one.safetensors","b":"two.safetensors"}})");
  ASSERT_TRUE(good);
  EXPECT_EQ(good->at("b"), "two.safetensors");
  for (const char* file : {"../x", "/etc/passwd", "..", ".", "", "a/b"}) {
    const auto bad = parse_safetensors_index(fmt::format(R"({{"weight_map":{{"a":"{}"}}}})", file));
    ASSERT_FALSE(bad) << file;
    EXPECT_TRUE(contains(bad.error().message, "beside the index"));
  }
  EXPECT_FALSE(parse_safetensors_index("{}"));
  EXPECT_FALSE(parse_safetensors_index(R"({"weight_map":{"a":1}})"));
}

TEST(SafetensorsIndex, ShardsThatDisagreeWithIt) {
  TemporaryDirectory directory;
  write_tiny_safetensors(directory.path(), {}, 2);
  ASSERT_TRUE(read_checkpoint(directory.path()));
  const auto first = directory / "model-00001-of-00002.safetensors";
  const auto second = directory / "model-00002-of-00002.safetensors";
  std::filesystem::copy_file(first, second, std::filesystem::copy_options::overwrite_existing);
  const auto wrong = read_checkpoint(directory.path());
  ASSERT_FALSE(wrong);
  EXPECT_TRUE(contains(wrong.error().message, "index"));
  std::filesystem::remove(second);
  EXPECT_EQ(read_checkpoint(directory.path()).error().code, ErrorCode::not_found);
}

class HfConfig : public testing::Test {
 protected:
  Result<ModelConfig> parse(const nlohmann::json& changes, std::string_view generation = {}) {
    nlohmann::json config = tiny_hf_config(TinyModel().config);
    config.merge_patch(changes);  // null removes
    return parse_hf_config(config.dump(), generation);
  }
  std::string error_of(const nlohmann::json& changes) {
    const auto config = parse(changes);
    return config ? "no error" : config.error().message;
  }
};

TEST_F(HfConfig, RotaryEmbeddingInEveryForm) {
  EXPECT_EQ(parse({{"rope_theta", 100000}})->rope_theta, 100000.0f);
  EXPECT_EQ(parse({{"rope_theta", nullptr}})->rope_theta, 10000.0f);
  EXPECT_EQ(
      parse({{"rope_theta", nullptr}, {"rope_parameters", {{"rope_theta", 5e5}, {"rope_type", "default"}}}})
          ->rope_theta,
      500000.0f);
  const RopeScaling linear{.kind = RopeScaling::Kind::linear, .factor = 2.5f};
  EXPECT_EQ(parse({{"rope_scaling", {{"type", "linear"}, {"factor", 2.5}}}})->rope_scaling, linear);
  const RopeScaling llama3{.kind = RopeScaling::Kind::llama3,
                           .factor = 8,
                           .low_frequency_factor = 1,
                           .high_frequency_factor = 4,
                           .original_context = 8192};
  const nlohmann::json scaling = {{"rope_type", "llama3"},  {"factor", 8.0},
                                  {"low_freq_factor", 1.0}, {"high_freq_factor", 4.0},
                                  {"rope_theta", 500000.0}, {"original_max_position_embeddings", 8192}};
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    const auto config = parse({{key, scaling}});
    ASSERT_TRUE(config) << config.error().message;
    EXPECT_EQ(config->rope_scaling, llama3);
    EXPECT_EQ(config->rope_theta, 500000.0f);
  }
  EXPECT_TRUE(contains(error_of({{"rope_scaling", {{"rope_type", "yarn"}, {"factor", 2.0}}}}), "'yarn'"));
  EXPECT_TRUE(contains(error_of({{"rope_scaling", {{"rope_type", "linear"}}}}), "factor"));
  EXPECT_TRUE(contains(error_of({{"rope_parameters", {{"full_attention", {{"rope_theta", 1e6}}}}}}),
                       "between layers"));
  EXPECT_TRUE(contains(error_of({{"rope_scaling", {{"rope_type", "linear"}, {"factor", 0}}}}), "positive"));
}

TEST_F(HfConfig, EndTokens) {
  using Tokens = std::vector<std::int32_t>;
  EXPECT_EQ(parse({{"eos_token_id", 7}})->end_tokens, Tokens{7});
  EXPECT_EQ(parse({{"eos_token_id", {7, 9}}})->end_tokens, (Tokens{7, 9}));
  EXPECT_EQ(parse({{"eos_token_id", nullptr}})->end_tokens, Tokens{});
  EXPECT_EQ(parse({{"eos_token_id", 7}}, R"({"eos_token_id":[8,9]})")->end_tokens, (Tokens{8, 9}));
  EXPECT_EQ(parse({{"eos_token_id", 7}}, R"({"bos_token_id":1})")->end_tokens, Tokens{7});
  EXPECT_TRUE(contains(error_of({{"eos_token_id", -1}}), "eos_token_id"));
  EXPECT_TRUE(contains(error_of({{"eos_token_id", 99999}}), "outside of the vocabulary"));
}

TEST_F(HfConfig, Architectures) {
  EXPECT_EQ(parse({{"architectures", {"MistralForCausalLM"}}})->architecture, Architecture::llama);
  const auto qwen = parse({{"architectures", {"Qwen2ForCausalLM"}}, {"sliding_window", 256}});
  ASSERT_TRUE(qwen) << qwen.error().message;
  EXPECT_TRUE(qwen->qkv_bias);
  EXPECT_TRUE(
      parse({{"architectures", {"MistralForCausalLM"}}, {"sliding_window", 512}}));  // the whole context
  EXPECT_TRUE(contains(error_of({{"architectures", {"MistralForCausalLM"}}, {"sliding_window", 256}}),
                       "window (256 of 512"));
  EXPECT_TRUE(contains(
      error_of(
          {{"architectures", {"Qwen2ForCausalLM"}}, {"use_sliding_window", true}, {"sliding_window", 256}}),
      "window"));
  EXPECT_TRUE(contains(error_of({{"architectures", {"GPT2LMHeadModel"}}}), "'GPT2LMHeadModel'"));
  EXPECT_TRUE(contains(error_of({{"architectures", nullptr}}), "architectures"));
}

TEST_F(HfConfig, SettingsThatAreNotKnownAreRefused) {
  EXPECT_TRUE(contains(error_of({{"hidden_act", "gelu"}}), "'gelu'"));
  EXPECT_TRUE(contains(error_of({{"attention_bias", true}}), "attention_bias"));
  EXPECT_TRUE(contains(error_of({{"mlp_bias", true}}), "mlp_bias"));
  EXPECT_TRUE(contains(error_of({{"quantization_config", {{"bits", 4}}}}), "quantised"));
  EXPECT_TRUE(contains(error_of({{"partial_rotary_factor", 0.5}}), "partial_rotary_factor"));
  EXPECT_TRUE(
      contains(error_of({{"layer_types", {"full_attention", "sliding_attention"}}}), "sliding_attention"));
}

TEST_F(HfConfig, Sizes) {
  EXPECT_EQ(parse({{"num_key_value_heads", nullptr}})->kv_heads, 4u);
  EXPECT_EQ(parse({{"head_dim", nullptr}})->head_dim, 16u);
  EXPECT_FALSE(parse({{"tie_word_embeddings", nullptr}})->tied_embeddings);
  for (const char* key : {"hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
                          "intermediate_size", "vocab_size", "max_position_embeddings", "head_dim"}) {
    for (const nlohmann::json& value :
         {nlohmann::json(0), nlohmann::json(-1), nlohmann::json(1e30), nlohmann::json(~std::uint64_t{0}),
          nlohmann::json("64"), nlohmann::json(0xffffffffu)}) {
      EXPECT_FALSE(parse({{key, value}})) << key << " " << value;
    }
  }
  EXPECT_TRUE(contains(error_of({{"hidden_size", nullptr}}), "'hidden_size' is missing"));
  EXPECT_TRUE(contains(error_of({{"num_key_value_heads", 3}}), "evenly"));
  EXPECT_TRUE(contains(error_of({{"head_dim", 15}}), "odd"));
  EXPECT_TRUE(contains(error_of({{"rms_norm_eps", -1.0}}), "rms epsilon"));
}

}  // namespace
}  // namespace switchyard::model
