#include "model/quant_blocks.h"

#include <algorithm>
#include <cassert>
#include <cstring>

#include "model/half.h"

namespace switchyard::model {
namespace {

std::uint8_t byte_at(const std::byte* bytes, std::size_t index) {
  return std::to_integer<std::uint8_t>(bytes[index]);
}

float half_at(const std::byte* bytes, std::size_t offset) {
  std::uint16_t half = 0;
  std::memcpy(&half, bytes + offset, sizeof(half));
  return half_to_float(half);
}

// 16 bytes of two values each: low halves are values 0..15, high halves 16..31.
void unpack_nibbles(const std::byte* packed, int bias, std::int8_t* q) {
  for (std::size_t i = 0; i < 16; ++i) {
    const int pair = byte_at(packed, i);
    q[i] = static_cast<std::int8_t>((pair & 15) - bias);
    q[i + 16] = static_cast<std::int8_t>((pair >> 4) - bias);
  }
}

// As unpack_nibbles, with a fifth bit for each value from a little-endian word.
void unpack_five_bits(const std::byte* high, const std::byte* packed, int bias, std::int8_t* q) {
  std::uint32_t fifth = 0;
  std::memcpy(&fifth, high, sizeof(fifth));
  for (std::size_t i = 0; i < 16; ++i) {
    const int pair = byte_at(packed, i);
    q[i] = static_cast<std::int8_t>(((pair & 15) | static_cast<int>((fifth >> i) & 1) << 4) - bias);
    q[i + 16] =
        static_cast<std::int8_t>(((pair >> 4) | static_cast<int>((fifth >> (i + 16)) & 1) << 4) - bias);
  }
}

// The 6-bit scale and minimum of group `group` (of 8) of a q4_k or q5_k block, packed into 12 bytes.
struct ScaleMinimum {
  std::uint8_t scale;
  std::uint8_t minimum;
};

ScaleMinimum scale_minimum(const std::byte* packed, std::size_t group) {
  const auto at = [&](std::size_t index) { return static_cast<unsigned>(byte_at(packed, index)); };
  if (group < 4) {
    return {static_cast<std::uint8_t>(at(group) & 63), static_cast<std::uint8_t>(at(group + 4) & 63)};
  }
  return {static_cast<std::uint8_t>((at(group + 4) & 15) | ((at(group - 4) >> 6) << 4)),
          static_cast<std::uint8_t>((at(group + 4) >> 4) | ((at(group) >> 6) << 4))};
}

// d, dmin, 12 bytes of scales, [32 bytes of fifth bits,] 128 bytes of low bits: 64 values to 32 of these
// bytes.
void unpack_k4_or_k5(bool five_bits, const std::byte* block, std::int8_t* q, float* scales, float* minimums) {
  const float scale = half_at(block, 0);
  const float minimum = half_at(block, 2);
  const std::byte* packed_scales = block + 4;
  const std::byte* high = block + 16;
  const std::byte* low = block + (five_bits ? 48 : 16);
  for (std::size_t group = 0; group < 8; ++group) {
    const ScaleMinimum factors = scale_minimum(packed_scales, group);
    scales[group] = scale * static_cast<float>(factors.scale);
    if (minimums != nullptr) minimums[group] = -(minimum * static_cast<float>(factors.minimum));
    const std::byte* run = low + 32 * (group / 2);
    for (std::size_t i = 0; i < 32; ++i) {
      int value = group % 2 == 0 ? byte_at(run, i) & 15 : byte_at(run, i) >> 4;
      if (five_bits) value |= ((byte_at(high, i) >> group) & 1) << 4;
      q[32 * group + i] = static_cast<std::int8_t>(value);
    }
  }
}

// 128 bytes of low four bits, 64 of high two bits, 16 signed scales, d.
void unpack_k6(const std::byte* block, std::int8_t* q, float* scales) {
  const float scale = half_at(block, 208);
  for (std::size_t group = 0; group < 16; ++group) {
    scales[group] = scale * static_cast<float>(static_cast<std::int8_t>(byte_at(block, 192 + group)));
  }
  for (std::size_t value = 0; value < 256; ++value) {
    const std::size_t half = value / 128;  // of the block
    const std::size_t part = value % 128 / 32;
    const std::size_t i = value % 32;
    const int low = byte_at(block, 64 * half + 32 * (part % 2) + i);
    const int high = byte_at(block, 128 + 32 * half + i) >> (2 * part);
    q[value] = static_cast<std::int8_t>(((part < 2 ? low & 15 : low >> 4) | (high & 3) << 4) - 32);
  }
}

void unpack_block(DType type, const std::byte* block, std::int8_t* q, float* scales, float* minimums) {
  switch (type) {
    case DType::q8_0:
      scales[0] = half_at(block, 0);
      std::memcpy(q, block + 2, 32);
      break;
    case DType::q4_0:
      scales[0] = half_at(block, 0);
      unpack_nibbles(block + 2, 8, q);
      break;
    case DType::q4_1:
      scales[0] = half_at(block, 0);
      if (minimums != nullptr) minimums[0] = half_at(block, 2);
      unpack_nibbles(block + 4, 0, q);
      break;
    case DType::q5_0:
      scales[0] = half_at(block, 0);
      unpack_five_bits(block + 2, block + 6, 16, q);
      break;
    case DType::q5_1:
      scales[0] = half_at(block, 0);
      if (minimums != nullptr) minimums[0] = half_at(block, 2);
      unpack_five_bits(block + 4, block + 8, 0, q);
      break;
    case DType::q4_k:
      unpack_k4_or_k5(false, block, q, scales, minimums);
      break;
    case DType::q5_k:
      unpack_k4_or_k5(true, block, q, scales, minimums);
      break;
    case DType::q6_k:
      unpack_k6(block, q, scales);
      break;
    case DType::f32:
    case DType::f16:
    case DType::bf16:
      break;
  }
}

}  // namespace

std::optional<QuantGroups> quant_groups(DType type) {
  const auto groups = [&](std::uint32_t group_values, bool has_minimum, int lowest, int highest) {
    return QuantGroups{.block_values = block_values(type),
                       .block_bytes = block_bytes(type),
                       .group_values = group_values,
                       .has_minimum = has_minimum,
                       .lowest = static_cast<std::int8_t>(lowest),
                       .highest = static_cast<std::int8_t>(highest)};
  };
  switch (type) {
    case DType::q8_0:
      return groups(32, false, -128, 127);
    case DType::q4_0:
      return groups(32, false, -8, 7);
    case DType::q5_0:
      return groups(32, false, -16, 15);
    case DType::q4_1:
      return groups(32, true, 0, 15);
    case DType::q5_1:
      return groups(32, true, 0, 31);
    case DType::q4_k:
      return groups(32, true, 0, 15);
    case DType::q5_k:
      return groups(32, true, 0, 31);
    case DType::q6_k:
      return groups(16, false, -32, 31);
    case DType::f32:
    case DType::f16:
    case DType::bf16:
      return std::nullopt;
  }
  return std::nullopt;
}

void unpack_groups(DType type, std::span<const std::byte> blocks, std::span<std::int8_t> q,
                   std::span<float> scales, std::span<float> minimums) {
  const std::optional<QuantGroups> groups = quant_groups(type);
  assert(groups.has_value());
  if (!groups) return;
  const std::size_t count = blocks.size() / groups->block_bytes;
  const std::size_t groups_per_block = groups->groups_per_block();
  assert(blocks.size() % groups->block_bytes == 0 && q.size() == count * groups->block_values);
  assert(scales.size() == count * groups_per_block && (minimums.empty() || minimums.size() == scales.size()));
  if (!groups->has_minimum) std::fill(minimums.begin(), minimums.end(), 0.0f);
  for (std::size_t block = 0; block < count; ++block) {
    unpack_block(type, blocks.data() + block * groups->block_bytes, q.data() + block * groups->block_values,
                 scales.data() + block * groups_per_block,
                 minimums.empty() ? nullptr : minimums.data() + block * groups_per_block);
  }
}

}  // namespace switchyard::model
