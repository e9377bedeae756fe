// The shape of a KV block: kBlockTokens tokens of one request for all layers, [layer][K|V][kv head][token][dim].
//
// One block is one run of bytes. One layer of a block is a run at a fixed stride, so that a layer of many
// blocks is a page list. Heads are outermost within K or V, so that tensor-parallel peers address slices.
#pragma once

#include <cstddef>
#include <cstdint>

namespace switchyard::model {

inline constexpr std::uint32_t kBlockTokens = 16;

struct KvLayout {
  std::uint32_t layers = 0;
  std::uint32_t kv_heads = 0;
  std::uint32_t head_dim = 0;
  std::uint32_t element_bytes = 2;  // IEEE half precision

  // Bytes of one head's K (or V) of a block.
  constexpr std::size_t head_bytes() const { return std::size_t{kBlockTokens} * head_dim * element_bytes; }
  // Bytes of K and V of one layer of a block; the page of a layer-wise hand-over.
  constexpr std::size_t layer_bytes() const { return 2 * kv_heads * head_bytes(); }
  constexpr std::size_t block_bytes() const { return layers * layer_bytes(); }

  constexpr std::size_t key_offset(std::uint32_t layer, std::uint32_t head) const {
    return layer * layer_bytes() + head * head_bytes();
  }
  constexpr std::size_t value_offset(std::uint32_t layer, std::uint32_t head) const {
    return key_offset(layer, head) + kv_heads * head_bytes();
  }

  static constexpr std::uint32_t blocks_for(std::uint32_t tokens) {
    return (tokens + kBlockTokens - 1) / kBlockTokens;
  }

  friend constexpr bool operator==(const KvLayout&, const KvLayout&) = default;
};

}  // namespace switchyard::model
