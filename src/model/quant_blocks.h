// Block-quantised types in one form: small integers, and a scale and a minimum for each group of them.
//
//   value = scale * q + minimum
//
// exact: `scale * q` is representable in a float for every type, so that a value is rounded once, where the
// minimum is added, as ggml does. Layouts: the block structures of ggml-common.h. Pure; any thread; allocates
// nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "model/dtype.h"

namespace switchyard::model {

struct QuantGroups {
  std::uint32_t block_values = 0;  // as block_values(type)
  std::uint32_t block_bytes = 0;   // as block_bytes(type)
  std::uint32_t group_values = 0;  // consecutive values that share a scale: 32, and 16 for q6_k
  bool has_minimum = false;        // else every minimum is 0
  std::int8_t lowest = 0;          // range of q
  std::int8_t highest = 0;

  constexpr std::uint32_t groups_per_block() const { return block_values / group_values; }
  friend constexpr bool operator==(const QuantGroups&, const QuantGroups&) = default;
};

// nullopt for f32, f16 and bf16.
std::optional<QuantGroups> quant_groups(DType type);

// Unpacks whole blocks, values in the order of the row. With n = blocks.size() / block_bytes: `q` takes
// n * block_values, `scales` n * groups_per_block, and `minimums` as many as `scales`, or nothing (an empty
// span) where the caller has no use for them. Sizes are the caller's to get right (asserted).
//
//   type  q           scale      minimum
//   q8_0  -128..127   d          0
//   q4_0    -8..7     d          0
//   q5_0   -16..15    d          0
//   q4_1     0..15    d          m
//   q5_1     0..31    d          m
//   q4_k     0..15    d * sc     -(dmin * m)
//   q5_k     0..31    d * sc     -(dmin * m)
//   q6_k   -32..31    d * sc     0
void unpack_groups(DType type, std::span<const std::byte> blocks, std::span<std::int8_t> q,
                   std::span<float> scales, std::span<float> minimums = {});

}  // namespace switchyard::model
