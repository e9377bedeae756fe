#include "model/packed_matrix.h"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "model/random_tensor.h"

namespace switchyard::model {
namespace {

class PackedTypes : public testing::TestWithParam<DType> {};

TEST_P(PackedTypes, RowsComeBackExactly) {
  const RandomTensor source(GetParam(), 40, 512, 5);
  const Tensor* tensors[] = {&source.tensor};
  PackedMatrix matrix = *plan_packing(tensors);
  const std::vector<std::byte> bytes = pack(matrix, tensors);
  matrix.bytes = bytes;
  EXPECT_EQ(matrix.panels(), 4u);  // 40 rows are 3 panels, padded to 4
  std::vector<float> row(512);
  std::vector<float> expected(512);
  for (std::uint32_t i = 0; i < 40; ++i) {
    unpack_row(matrix, i, row);
    dequantize_row(source.tensor, i, expected);
    EXPECT_EQ(row, expected) << "row " << i;
  }
}

TEST_P(PackedTypes, RowsOfSeveralTensorsFollowEachOther) {
  const RandomTensor q(GetParam(), 32, 256, 1, 16);  // rows of each head in GGUF's order
  const RandomTensor k(GetParam(), 16, 256, 2, 16);
  const RandomTensor v(GetParam(), 16, 256, 3);
  const Tensor* tensors[] = {&q.tensor, &k.tensor, &v.tensor};
  PackedMatrix matrix = *plan_packing(tensors);
  const std::vector<std::byte> bytes = pack(matrix, tensors);
  matrix.bytes = bytes;
  EXPECT_EQ(matrix.rows, 64u);
  std::vector<float> row(256);
  std::vector<float> expected(256);
  for (std::uint32_t i = 0; i < 64; ++i) {
    unpack_row(matrix, i, row);
    const RandomTensor& from = i < 32 ? q : i < 48 ? k : v;
    dequantize_row(from.tensor, i < 32 ? i : i < 48 ? i - 32 : i - 48, expected);
    EXPECT_EQ(row, expected) << "row " << i;
  }
}

TEST_P(PackedTypes, InterleavedPanelsTakeTurns) {
  const RandomTensor gate(GetParam(), 40, 256, 1);
  const RandomTensor up(GetParam(), 40, 256, 2);
  const Tensor* both[] = {&gate.tensor, &up.tensor};
  const PackedMatrix plan = *plan_packing(both, true);
  EXPECT_EQ(plan.panels(), 6u);
  const std::vector<std::byte> bytes = pack(plan, both);
  for (const RandomTensor* one : {&gate, &up}) {
    const Tensor* alone[] = {&one->tensor};
    const PackedMatrix single = *plan_packing(alone);
    const std::vector<std::byte> expected = pack(single, alone);
    for (std::size_t panel = 0; panel < 3; ++panel) {
      const std::size_t at = 2 * panel + (one == &up ? 1 : 0);
      EXPECT_EQ(0, std::memcmp(bytes.data() + at * plan.panel_bytes(),
                               expected.data() + panel * single.panel_bytes(), plan.panel_bytes()));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, PackedTypes, testing::ValuesIn(kAllTypes),
                         [](const auto& type) { return type_name(type.param); });

TEST(PackedMatrix, TypesThatDifferAreNotPackedAsOne) {
  const RandomTensor a(DType::q4_k, 32, 256, 1);
  const RandomTensor b(DType::q6_k, 32, 256, 2);
  const RandomTensor c(DType::q4_k, 20, 256, 3);
  const Tensor* types[] = {&a.tensor, &b.tensor};
  EXPECT_FALSE(plan_packing(types));
  const Tensor* rows[] = {&c.tensor, &a.tensor};  // 20 rows end inside a panel
  EXPECT_FALSE(plan_packing(rows));
  const Tensor* fits[] = {&a.tensor, &c.tensor};
  EXPECT_TRUE(plan_packing(fits));
  EXPECT_FALSE(plan_packing(fits, true));
}

TEST(PackedMatrix, SizeIsThatOfTheCheckpoint) {
  // Four bits and two halves for 32 weights, as Q4_1 has them; padded columns are zeros.
  const RandomTensor q4(DType::q4_1, 64, 576, 1);
  const Tensor* tensors[] = {&q4.tensor};
  EXPECT_EQ(plan_packing(tensors)->packed_bytes(), q4.bytes.size());
  const RandomTensor odd(DType::f32, 16, 40, 1);
  const Tensor* plain[] = {&odd.tensor};
  EXPECT_EQ(plan_packing(plain)->padded_columns(), 64u);
}

}  // namespace
}  // namespace switchyard::model
