// Dequantisation against gguf-py (tools/make_dequantize_references.py), and the small floats.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "model/checkpoint.h"
#include "model/half.h"
#include "model/quant_blocks.h"

namespace switchyard::model {
namespace {

std::vector<std::byte> from_hexadecimal(const std::string& text) {
  std::vector<std::byte> bytes;
  for (std::size_t i = 0; i + 1 < text.size(); i += 2) {
    bytes.push_back(static_cast<std::byte>(std::stoi(text.substr(i, 2), nullptr, 16)));
  }
  return bytes;
}

class Dequantize : public testing::TestWithParam<DType> {
 protected:
  void SetUp() override {
    const auto data = std::filesystem::path("tests/data");
    std::ifstream file(data / "dequantize_references.json");
    const auto reference = nlohmann::json::parse(file).at(std::string(to_string(GetParam())));
    blocks_ = from_hexadecimal(reference.at("blocks"));
    const auto floats = from_hexadecimal(reference.at("values"));
    values_.resize(floats.size() / sizeof(float));
    std::memcpy(values_.data(), floats.data(), floats.size());
    tensor_ = {.name = "t", .type = GetParam(), .shape = {1, values_.size()}, .bytes = blocks_};
  }

  std::vector<std::byte> blocks_;
  std::vector<float> values_;
  Tensor tensor_;
};

TEST_P(Dequantize, EqualsTheReferenceBitForBit) {
  const auto values = dequantize_all(tensor_);
  ASSERT_EQ(values.size(), values_.size());
  for (std::size_t i = 0; i < values.size(); ++i) {
    ASSERT_EQ(std::bit_cast<std::uint32_t>(values[i]), std::bit_cast<std::uint32_t>(values_[i])) << i;
  }
  // From the middle on, too.
  const std::size_t first = values_.size() / 2;
  std::vector<float> second_half(values_.size() - first);
  dequantize(tensor_, first, second_half);
  EXPECT_TRUE(std::equal(second_half.begin(), second_half.end(),
                         values_.begin() + static_cast<std::ptrdiff_t>(first)));
}

TEST_P(Dequantize, GroupsGiveTheSameValues) {
  const auto groups = quant_groups(GetParam());
  if (!groups) {
    EXPECT_EQ(block_values(GetParam()), 1u);
    return;
  }
  ASSERT_EQ(blocks_.size() / groups->block_bytes * groups->block_values, values_.size());
  std::vector<std::int8_t> q(values_.size());
  std::vector<float> scales(values_.size() / groups->group_values);
  std::vector<float> minimums(scales.size(), std::numeric_limits<float>::quiet_NaN());
  unpack_groups(GetParam(), blocks_, q, scales, minimums);
  for (std::size_t i = 0; i < values_.size(); ++i) {
    const std::size_t group = i / groups->group_values;
    EXPECT_GE(q[i], groups->lowest);
    EXPECT_LE(q[i], groups->highest);
    EXPECT_TRUE(groups->has_minimum || minimums[group] == 0.0f);
    // The product is exact: in double it is the same.
    const float product = scales[group] * static_cast<float>(q[i]);
    EXPECT_EQ(static_cast<double>(product), static_cast<double>(scales[group]) * q[i]);
    EXPECT_EQ(product + minimums[group], values_[i]) << i;
  }
  std::vector<std::int8_t> again(values_.size());
  unpack_groups(GetParam(), blocks_, again, scales);  // without minimums
  EXPECT_EQ(again, q);
}

INSTANTIATE_TEST_SUITE_P(All, Dequantize,
                         testing::Values(DType::f16, DType::bf16, DType::q8_0, DType::q4_0, DType::q4_1,
                                         DType::q4_k, DType::q5_0, DType::q5_1, DType::q5_k, DType::q6_k),
                         [](const auto& test) { return std::string(to_string(test.param)); });

TEST(Half, EveryHalfSurvivesTheWayThroughFloat) {
  for (std::uint32_t bits = 0; bits <= 0xffff; ++bits) {
    const float value = half_to_float(static_cast<std::uint16_t>(bits));
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(half_to_float(float_to_half(value))));
    } else {
      ASSERT_EQ(float_to_half(value), bits);
    }
  }
}

TEST(Half, RoundsToNearestEven) {
  EXPECT_EQ(float_to_half(65504.0f), 0x7bff);
  EXPECT_EQ(float_to_half(65519.99f), 0x7bff);
  EXPECT_EQ(float_to_half(65520.0f), 0x7c00);
  EXPECT_EQ(float_to_half(-1e30f), 0xfc00);
  EXPECT_EQ(float_to_half(1.0f + 0x1p-11f), 0x3c00);      // tie, to even
  EXPECT_EQ(float_to_half(1.0f + 3 * 0x1p-11f), 0x3c02);  // tie, to even
  EXPECT_EQ(float_to_half(1.0f + 0x1p-11f + 0x1p-20f), 0x3c01);
  EXPECT_EQ(float_to_half(0x1p-24f), 0x0001);
  EXPECT_EQ(float_to_half(0x1p-25f), 0x0000);  // tie, to even
  EXPECT_EQ(float_to_half(0x1.8p-25f), 0x0001);
  EXPECT_EQ(float_to_half(0x1.ffcp-15f), 0x0400);  // rounds up into the normal ones
  EXPECT_EQ(float_to_half(-0.0f), 0x8000);
}

TEST(Bfloat16, RoundsToNearestEven) {
  EXPECT_EQ(float_to_bfloat16(1.0f), 0x3f80);
  EXPECT_EQ(float_to_bfloat16(1.0f + 0x1p-8f), 0x3f80);
  EXPECT_EQ(float_to_bfloat16(1.0f + 3 * 0x1p-8f), 0x3f82);
  EXPECT_EQ(float_to_bfloat16(std::numeric_limits<float>::max()), 0x7f80);
  EXPECT_TRUE(std::isnan(bfloat16_to_float(float_to_bfloat16(std::numeric_limits<float>::quiet_NaN()))));
}

}  // namespace
}  // namespace switchyard::model
