#include "pool/prompt_cache.h"

#include "base/random.h"
#include "model/kv_layout.h"

namespace switchyard::pool {

// The seed: prompts come from strangers, who must not be able to choose what collides.
PromptCache::PromptCache(InstanceMemory& memory)
    : memory_(memory), index_({.block_tokens = model::kBlockTokens, .seed = random_word()}) {}

std::uint32_t PromptCache::reuse(Model model, std::span<const std::int32_t> tokens,
                                 std::vector<BlockId>& blocks) {
  return index_.match(model, tokens, blocks) * model::kBlockTokens;
}

void PromptCache::keep(Model model, std::size_t block_bytes, std::span<const std::int32_t> tokens,
                       std::span<const BlockId> blocks) {
  const auto known = block_bytes_.emplace(model, whole_units(block_bytes)).first;
  // A model does not change its shape while anything of it is known.
  if (known->second != whole_units(block_bytes)) return;
  index_.insert(model, tokens, blocks);
}

void PromptCache::give_back(std::size_t block_bytes, std::span<const BlockId> blocks) {
  freed_.clear();
  index_.release(blocks, freed_);
  memory_.give_back(block_bytes, freed_);
}

bool PromptCache::give_up(std::size_t block_bytes) {
  evicted_.clear();
  if (block_bytes == 0) {
    index_.evict(kFew, evicted_);
  } else {
    for (const auto& [model, bytes] : block_bytes_) {
      if (bytes == block_bytes && index_.evict(model, kFew, evicted_) != 0) break;
    }
  }
  free(evicted_);
  return !evicted_.empty();
}

void PromptCache::forget(Model model) {
  evicted_.clear();
  index_.evict_all(model, evicted_);
  free(evicted_);
}

void PromptCache::free(std::span<const kv::PrefixIndex::Evicted> evicted) {
  for (const auto& each : evicted) memory_.give_back(block_bytes_.at(each.model), std::span(&each.block, 1));
}

void PromptCache::moved(const MovedBlocks& moved) {
  moved.for_each([this](BlockId from, BlockId to) { index_.moved(from, to); });
}

void PromptCache::add_stats(Stats& stats) const {
  const kv::PrefixIndex::Stats index = index_.stats();
  stats.gauge("prefix_blocks", "KV blocks of prompts that others may use", index.blocks);
  stats.gauge("prefix_blocks_unused", "Of these, blocks that nobody uses now",
              index.blocks - index.referenced_blocks);
  stats.count("prefix_lookups_total", "Prompts whose beginning was looked for",
              static_cast<double>(index.lookups));
  stats.count("prefix_hits_total", "Prompts whose beginning was found", static_cast<double>(index.hits));
  stats.count("prefix_evictions_total", "KV blocks of prompts that were given up",
              static_cast<double>(index.evictions));
}

}  // namespace switchyard::pool
