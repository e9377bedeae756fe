#include <algorithm>
#include <array>
#include <cassert>
#include <cstring>

#include "model/checkpoint.h"
#include "model/half.h"
#include "model/quant_blocks.h"

namespace switchyard::model {
namespace {

void dequantize_plain(DType type, const std::byte* bytes, std::span<float> out) {
  if (type == DType::f32) {
    if (!out.empty()) std::memcpy(out.data(), bytes, out.size_bytes());
    return;
  }
  for (std::size_t i = 0; i < out.size(); ++i) {
    std::uint16_t bits = 0;
    std::memcpy(&bits, bytes + i * sizeof(bits), sizeof(bits));
    out[i] = type == DType::f16 ? half_to_float(bits) : bfloat16_to_float(bits);
  }
}

void dequantize_blocks(DType type, const QuantGroups& groups, const std::byte* bytes, std::span<float> out) {
  constexpr std::size_t kMaxValues = 256;
  constexpr std::size_t kMaxGroups = 16;
  std::array<std::int8_t, kMaxValues> q;
  std::array<float, kMaxGroups> scales;
  std::array<float, kMaxGroups> minimums;
  for (std::size_t done = 0; done < out.size(); done += groups.block_values, bytes += groups.block_bytes) {
    const std::size_t count = groups.groups_per_block();
    unpack_groups(type, {bytes, groups.block_bytes}, std::span(q).first(groups.block_values),
                  std::span(scales).first(count), std::span(minimums).first(count));
    for (std::size_t i = 0; i < groups.block_values; ++i) {
      const std::size_t group = i / groups.group_values;
      const float product = scales[group] * static_cast<float>(q[i]);
      out[done + i] = groups.has_minimum ? product + minimums[group] : product;
    }
  }
}

}  // namespace

void dequantize(const Tensor& tensor, std::uint64_t first, std::span<float> out) {
  const std::uint64_t values = block_values(tensor.type);
  const std::uint64_t offset = first / values * block_bytes(tensor.type);
  assert(first % values == 0 && out.size() % values == 0);
  assert(offset + out.size() / values * block_bytes(tensor.type) <= tensor.bytes.size());
  const std::byte* bytes = tensor.bytes.data() + offset;
  if (const auto groups = quant_groups(tensor.type)) {
    dequantize_blocks(tensor.type, *groups, bytes, out);
  } else {
    dequantize_plain(tensor.type, bytes, out);
  }
}

void dequantize_row(const Tensor& tensor, std::uint64_t row, std::span<float> out) {
  assert(row < tensor.rows() && out.size() == tensor.columns());
  dequantize(tensor, stored_row(tensor.interleaved_head_rows, row) * tensor.columns(), out);
}

std::vector<float> dequantize_all(const Tensor& tensor) {
  std::vector<float> values(tensor.rows() * tensor.columns());
  if (tensor.interleaved_head_rows == 0) {
    dequantize(tensor, 0, values);
    return values;
  }
  for (std::uint64_t row = 0; row < tensor.rows(); ++row) {
    dequantize_row(tensor, row, std::span(values).subspan(row * tensor.columns(), tensor.columns()));
  }
  return values;
}

std::span<const std::byte> row_bytes(const Tensor& tensor, std::uint64_t row) {
  const std::size_t size = tensor.columns() / block_values(tensor.type) * block_bytes(tensor.type);
  return tensor.bytes.subspan(stored_row(tensor.interleaved_head_rows, row) * size, size);
}

}  // namespace switchyard::model
