#include "pool/kv_store.h"

#include <algorithm>

namespace switchyard::pool {
Result<std::unique_ptr<KvStore>> KvStore::create(TransferEngine& engine, const model::ModelConfig& config,
                                                 const model::KvLayout& layout, const Options& options) {
  auto store = std::unique_ptr<KvStore>(new KvStore());
  const std::size_t block_bytes = layout.block_bytes();
  const std::uint64_t slab_bytes = choose_slab_bytes({&block_bytes, 1}, options.kv_bytes);
  const std::uint64_t slabs = std::max<std::uint64_t>(1, options.kv_bytes / slab_bytes);
  store->shape_ = {
      .layers = layout.layers, .block_tokens = model::kBlockTokens, .layer_bytes = layout.layer_bytes()};
  auto pool_memory = Arena::create(slabs * slab_bytes);
  if (!pool_memory) return pass(pool_memory.error());
  store->pool_memory_ = *std::move(pool_memory);
  store->slabs_.emplace(store->pool_memory_.span(), slab_bytes);
  auto blocks = BlockPool::create(*store->slabs_, block_bytes);
  if (!blocks) return pass(blocks.error());
  store->blocks_.emplace(*std::move(blocks));
  const std::uint64_t tokens = std::uint64_t{store->blocks_->capacity()} * model::kBlockTokens;
  store->context_ = static_cast<std::uint32_t>(std::min<std::uint64_t>(config.context, tokens));

  store->vocab_ = config.vocab;
  store->tail_stride_ = (config.vocab * sizeof(float) + 63) / 64 * 64;
  auto tail_memory = Arena::create(std::max<std::uint64_t>(1, options.tail_slots) * store->tail_stride_);
  if (!tail_memory) return pass(tail_memory.error());
  store->tail_memory_ = *std::move(tail_memory);
  for (std::uint32_t slot = options.tail_slots; slot > 0; --slot) store->free_tails_.push_back(slot - 1);

  auto pool_region = engine.register_region(store->pool_memory_.base(), store->pool_memory_.bytes());
  if (!pool_region) return fail_at("registering the KV pool", pool_region.error());
  store->pool_region_ = *std::move(pool_region);
  auto tail_region = engine.register_region(store->tail_memory_.base(), store->tail_memory_.bytes());
  if (!tail_region) return fail_at("registering the tail slots", tail_region.error());
  store->tail_region_ = *std::move(tail_region);
  return store;
}

std::optional<std::uint32_t> KvStore::take_tail() {
  if (free_tails_.empty()) return std::nullopt;
  const std::uint32_t slot = free_tails_.back();
  free_tails_.pop_back();
  return slot;
}

std::span<float> KvStore::tail(std::uint32_t slot) const {
  return {reinterpret_cast<float*>(tail_memory_.base() + tail_offset(slot)), vocab_};
}

}  // namespace switchyard::pool
