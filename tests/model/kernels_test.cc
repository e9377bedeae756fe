#include "model/cpu/kernels.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "model/half.h"
#include "model/packed_matrix.h"
#include "model/random_tensor.h"

namespace switchyard::model {
namespace {

using cpu::Finish;
using cpu::Kernels;
using cpu::ProductTask;

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

// A matrix with activations, and what is needed to multiply any of their rows.
struct Product {
  Product(DType type, std::uint64_t rows, std::uint64_t columns, std::uint32_t inputs,
          bool interleave = false)
      : a(type, rows, columns, 11),
        b(type, rows, columns, 12),
        tensors(interleave ? std::vector<const Tensor*>{&a.tensor, &b.tensor}
                           : std::vector<const Tensor*>{&a.tensor}),
        matrix(*plan_packing(tensors, interleave)),
        bytes(pack(matrix, tensors)),
        stride(matrix.padded_columns() + 16),
        x(inputs * stride),
        sums(inputs * matrix.padded_columns() / 32) {
    matrix.bytes = bytes;
    const std::vector<float> values = random_floats(inputs * columns, 13);
    for (std::size_t i = 0; i < inputs; ++i) {
      std::copy_n(values.begin() + static_cast<std::ptrdiff_t>(i * columns), columns,
                  x.begin() + static_cast<std::ptrdiff_t>(i * stride));
      cpu::kernels(cpu::Isa::scalar)->group_sums(x.data() + i * stride, sums.data() + i * groups(), groups());
    }
  }

  std::uint32_t groups() const { return matrix.padded_columns() / 32; }

  // Rows [first, first + count) of the products.
  std::vector<float> run(const Kernels& kernels, std::uint32_t first, std::uint32_t count,
                         Finish finish = Finish::store, const std::vector<float>& bias = {}) const {
    const std::uint32_t columns = matrix.interleaved ? matrix.rows / 2 : matrix.rows;
    std::vector<float> y(std::size_t{count} * columns, 0.5f);
    ProductTask task;
    task.format = matrix.format;
    task.finish = finish;
    task.minimum = matrix.minimum;
    task.wide_scales = matrix.wide_scales;
    task.group = matrix.group;
    task.columns = matrix.padded_columns();
    task.panels = matrix.bytes.data();
    task.panel_bytes = matrix.panel_bytes();
    task.last_panel = matrix.panels();
    task.rows = count;
    task.x = x.data() + first * stride;
    task.x_stride = stride;
    task.sums = sums.data() + first * groups();
    task.sums_stride = groups();
    task.y = y.data();
    task.y_stride = columns;
    task.y_columns = columns;
    task.bias = bias.empty() ? nullptr : bias.data();
    kernels.product(task);
    return y;
  }

  RandomTensor a;
  RandomTensor b;
  std::vector<const Tensor*> tensors;
  PackedMatrix matrix;
  std::vector<std::byte> bytes;
  std::size_t stride;
  std::vector<float> x;
  std::vector<float> sums;
};

class ProductTypes : public testing::TestWithParam<DType> {};

TEST_P(ProductTypes, EveryInstructionSetAndNumberOfRowsGivesTheSameBits) {
  const std::uint32_t inputs = 31;
  const Product product(GetParam(), 150, 512, inputs);  // 150 rows: the last panel is partial
  const std::vector<float> expected = product.run(*all_kernels().front(), 0, inputs);
  for (const Kernels* kernels : all_kernels()) {
    for (std::uint32_t count = 1; count <= inputs; ++count) {
      const std::uint32_t first = inputs - count;
      const std::vector<float> part(expected.begin() + first * 150, expected.end());
      ASSERT_TRUE(same_bits(product.run(*kernels, first, count), part))
          << "kernels " << static_cast<int>(kernels->isa) << ", " << count << " rows";
    }
  }
}

TEST_P(ProductTypes, IsNearTheProductInDoublePrecision) {
  const Product product(GetParam(), 48, 512, 3);
  const std::vector<float> y = product.run(cpu::best_kernels(), 0, 3);
  std::vector<float> weights(512);
  for (std::uint32_t out = 0; out < 48; ++out) {
    dequantize_row(product.a.tensor, out, weights);
    for (std::uint32_t row = 0; row < 3; ++row) {
      double exact = 0;
      double size = 0;
      for (std::size_t k = 0; k < 512; ++k) {
        const double term = static_cast<double>(weights[k]) * product.x[row * product.stride + k];
        exact += term;
        size += std::abs(term);
      }
      EXPECT_NEAR(y[row * 48 + out], exact, 2e-6 * size);
    }
  }
}

TEST_P(ProductTypes, FinishesAgree) {
  const std::vector<float> bias = random_floats(150, 3);
  const Product product(GetParam(), 150, 256, 5);
  const Product pair(GetParam(), 150, 256, 5, true);
  const Kernels& scalar = *all_kernels().front();
  const std::vector<float> plain = product.run(scalar, 0, 5);
  for (const Kernels* kernels : all_kernels()) {
    EXPECT_TRUE(same_bits(product.run(*kernels, 0, 5, Finish::store, bias),
                          product.run(scalar, 0, 5, Finish::store, bias)));
    EXPECT_TRUE(same_bits(pair.run(*kernels, 0, 5, Finish::swiglu), pair.run(scalar, 0, 5, Finish::swiglu)));
    std::vector<float> added = plain;
    for (float& value : added) value = 0.5f + value;
    EXPECT_TRUE(same_bits(product.run(*kernels, 0, 5, Finish::add), added));
  }
  std::vector<float> biased = plain;
  for (std::size_t i = 0; i < biased.size(); ++i) biased[i] += bias[i % 150];
  EXPECT_TRUE(same_bits(product.run(scalar, 0, 5, Finish::store, bias), biased));
}

INSTANTIATE_TEST_SUITE_P(All, ProductTypes, testing::ValuesIn(kAllTypes),
                         [](const auto& type) { return type_name(type.param); });

TEST(Kernels, SwigluIsSiluOfTheGateTimesUp) {
  const Product pair(DType::f32, 40, 64, 2, true);
  const std::vector<float> y = pair.run(cpu::best_kernels(), 0, 2, Finish::swiglu);
  std::vector<float> gate(64);
  std::vector<float> up(64);
  for (std::uint32_t out = 0; out < 40; ++out) {
    dequantize_row(pair.a.tensor, out, gate);
    dequantize_row(pair.b.tensor, out, up);
    double g = 0;
    double u = 0;
    for (std::size_t k = 0; k < 64; ++k) {
      g += static_cast<double>(gate[k]) * pair.x[k];
      u += static_cast<double>(up[k]) * pair.x[k];
    }
    EXPECT_NEAR(y[out], g / (1 + std::exp(-g)) * u, 1e-5);
  }
}

TEST(Kernels, ColumnsThatAreNoMultipleOf32ArePadded) {
  const Product product(DType::bf16, 16, 40, 2);
  const std::vector<float> y = product.run(cpu::best_kernels(), 0, 2);
  std::vector<float> weights(40);
  for (std::uint32_t out = 0; out < 16; ++out) {
    dequantize_row(product.a.tensor, out, weights);
    double exact = 0;
    for (std::size_t k = 0; k < 40; ++k) exact += static_cast<double>(weights[k]) * product.x[k];
    EXPECT_NEAR(y[out], exact, 1e-5);
  }
}

TEST(Kernels, ExponentialsAreAccurateAndTheSameEverywhere) {
  std::vector<float> arguments;
  for (float x = -95; x < 0; x += 0.00731f) arguments.push_back(x);
  arguments.insert(arguments.end(), {0.0f, -0.0f, -1e-30f, -std::numeric_limits<float>::infinity(),
                                     std::numeric_limits<float>::quiet_NaN()});
  std::vector<float> expected = arguments;
  all_kernels().front()->exponentials(expected.data(), static_cast<std::uint32_t>(expected.size()), 0, 1);
  for (const Kernels* kernels : all_kernels()) {
    std::vector<float> x = arguments;
    kernels->exponentials(x.data(), static_cast<std::uint32_t>(x.size()), 0, 1);
    EXPECT_TRUE(same_bits(x, expected));
  }
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    if (arguments[i] >= -87) {
      const double exact = std::exp(static_cast<double>(arguments[i]));
      EXPECT_NEAR(expected[i] / exact, 1, 2.4e-7) << arguments[i];
    } else {
      EXPECT_EQ(expected[i], 0) << arguments[i];
    }
  }
}

TEST(Kernels, SingleRowsAgree) {
  const Kernels& scalar = *all_kernels().front();
  for (const std::uint32_t size : {16u, 64u, 100u, 576u}) {
    const std::vector<float> x = random_floats(size, size, 3);
    const std::vector<float> weight = random_floats(size, size + 1);
    std::vector<float> expected(size);
    scalar.rms_norm(x.data(), weight.data(), expected.data(), size, 1e-5f);
    double squares = 0;
    for (const float value : x) squares += static_cast<double>(value) * value;
    for (std::size_t i = 0; i < size; ++i) {
      EXPECT_NEAR(expected[i], x[i] / std::sqrt(squares / size + 1e-5) * weight[i], 1e-5);
    }
    for (const Kernels* kernels : all_kernels()) {
      std::vector<float> out(size);
      kernels->rms_norm(x.data(), weight.data(), out.data(), size, 1e-5f);
      EXPECT_TRUE(same_bits(out, expected));
    }
  }
  const std::vector<float> x = random_floats(640, 9);
  std::vector<float> sums(20);
  scalar.group_sums(x.data(), sums.data(), 20);
  for (const Kernels* kernels : all_kernels()) {
    std::vector<float> out(20);
    kernels->group_sums(x.data(), out.data(), 20);
    EXPECT_TRUE(same_bits(out, sums));
    std::vector<float> rotated = x;
    std::vector<float> expected = x;
    kernels->rotate(rotated.data(), x.data() + 100, x.data() + 200, 40);
    scalar.rotate(expected.data(), x.data() + 100, x.data() + 200, 40);
    EXPECT_TRUE(same_bits(rotated, expected));
    std::vector<float> active(320);
    std::vector<float> active_expected(320);
    kernels->swiglu(x.data(), x.data() + 320, active.data(), 320);
    scalar.swiglu(x.data(), x.data() + 320, active_expected.data(), 320);
    EXPECT_TRUE(same_bits(active, active_expected));
  }
}

TEST(Kernels, HalvesRoundToNearestEven) {
  std::vector<float> values;
  for (std::uint32_t bits = 0; bits < 0xffffffffu - 65521 * 7; bits += 65521 * 7) {
    const float value = std::bit_cast<float>(bits);
    if (!std::isnan(value)) values.push_back(value);
  }
  values.resize(values.size() / 16 * 16);
  for (const Kernels* kernels : all_kernels()) {
    std::vector<std::uint16_t> halves(values.size());
    kernels->store_half(values.data(), halves.data(), static_cast<std::uint32_t>(values.size()));
    for (std::size_t i = 0; i < values.size(); ++i)
      ASSERT_EQ(halves[i], float_to_half(values[i])) << values[i];
  }
}

}  // namespace
}  // namespace switchyard::model
