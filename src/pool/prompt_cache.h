// KV of prompts that instances have computed, kept in its blocks until somebody else needs them.
//
// kv::PrefixIndex knows which tokens lie where and who uses them; this knows how large the blocks are.
// Owned by Requests; used on the instance's loop alone.
#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "kv/prefix_index.h"
#include "pool/instance_memory.h"

namespace switchyard::pool {

class PromptCache {
 public:
  using Model = kv::PrefixIndex::ModelId;

  explicit PromptCache(InstanceMemory& memory);

  // Appends blocks that hold the beginning of `tokens`, and says how many tokens that is: whole blocks, never
  // all tokens.
  std::uint32_t reuse(Model model, std::span<const std::int32_t> tokens, std::vector<BlockId>& blocks);
  // `blocks` hold the KV of `tokens`. What is full may be used by others from now on.
  void keep(Model model, std::size_t block_bytes, std::span<const std::int32_t> tokens,
            std::span<const BlockId> blocks);
  // Takes the blocks of a request; those that others use, or may use, stay.
  void give_back(std::size_t block_bytes, std::span<const BlockId> blocks);
  // Gives up a few blocks that nobody uses, of this size or (0) of any. False: there are none.
  bool give_up(std::size_t block_bytes);
  void forget(Model model);
  void moved(const MovedBlocks& moved);
  void add_stats(Stats& stats) const;

 private:
  // Given up at once: few, since more may not be needed.
  static constexpr std::uint32_t kFew = 4;

  void free(std::span<const kv::PrefixIndex::Evicted> evicted);

  InstanceMemory& memory_;
  kv::PrefixIndex index_;
  std::unordered_map<Model, std::size_t> block_bytes_;
  std::vector<kv::PrefixIndex::Evicted> evicted_;  // scratch
  std::vector<BlockId> freed_;                     // scratch
};

}  // namespace switchyard::pool
