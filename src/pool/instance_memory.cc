#include "pool/instance_memory.h"

#include <cstring>

namespace switchyard::pool {
namespace {

// Shapes that have blocks at a time; far more than models that an instance sees in its life.
constexpr std::size_t kMaxShapes = 1024;

}  // namespace

MovedBlocks::MovedBlocks(std::span<const BlockPool::Relocation> moves) {
  for (const auto& move : moves) to_.emplace(move.from, move.to);
}

void MovedBlocks::apply(std::vector<BlockId>& blocks) const {
  for (BlockId& block : blocks) {
    if (const auto found = to_.find(block); found != to_.end()) block = found->second;
  }
}

Result<std::unique_ptr<InstanceMemory>> InstanceMemory::create(TransferEngine& engine, std::uint64_t kv_bytes,
                                                               std::uint64_t slab_bytes) {
  if (slab_bytes == 0 || slab_bytes % kBlockUnit != 0 || kv_bytes < slab_bytes) {
    return fail(
        ErrorCode::invalid,
        "KV memory of {} bytes cannot be cut into slabs of {} bytes: a slab is a multiple of {} bytes, "
        "and one at least has to fit",
        kv_bytes, slab_bytes, kBlockUnit);
  }
  if (kv_bytes / kBlockUnit > UINT32_MAX) {
    return fail(ErrorCode::out_of_range, "KV memory of {} bytes is more than blocks can be numbered in",
                kv_bytes);
  }
  auto memory = std::unique_ptr<InstanceMemory>(new InstanceMemory());
  auto arena = Arena::create(kv_bytes / slab_bytes * slab_bytes);
  if (!arena) return pass(arena.error());
  memory->arena_ = *std::move(arena);
  memory->slabs_ = std::make_unique<SlabPool>(memory->arena_.span(), slab_bytes);
  auto region = engine.register_region(memory->arena_.base(), memory->arena_.bytes());
  if (!region) return fail_at("registering the KV memory", region.error());
  memory->region_ = *std::move(region);
  return memory;
}

BlockPool* InstanceMemory::pool_of(std::size_t block_bytes) {
  const std::size_t bytes = whole_units(block_bytes);
  const auto found = pools_.find(bytes);
  if (found != pools_.end()) return &found->second;
  if (pools_.size() >= kMaxShapes) {
    std::erase_if(pools_, [](const auto& entry) { return entry.second.used() == 0; });
  }
  auto pool = BlockPool::create(*slabs_, bytes);
  if (!pool) return nullptr;
  return &pools_.emplace(bytes, *std::move(pool)).first->second;
}

Status InstanceMemory::take(std::size_t block_bytes, std::uint32_t count, std::vector<BlockId>& out,
                            Users& users) {
  BlockPool* pool = pool_of(block_bytes);
  if (pool == nullptr || count > pool->capacity()) {
    return fail(ErrorCode::invalid, "{} KV blocks of {} bytes never fit {} bytes of KV memory in slabs of {}",
                count, block_bytes, bytes(), slab_bytes());
  }
  while (pool->available() < count) {
    // Its own shape's first: that helps at once. Others' only where emptying slabs is not enough.
    if (users.give_up(whole_units(block_bytes))) continue;
    if (empty_a_slab(*pool, users)) continue;
    if (!users.give_up(0)) break;
  }
  return pool->take(count, out);
}

bool InstanceMemory::empty_a_slab(const BlockPool& except, Users& users) {
  for (auto& [bytes, pool] : pools_) {
    if (&pool == &except || pool.owned_slabs() == 0 || !users.may_move(bytes)) continue;
    const auto moves = pool.compact();
    if (moves.empty()) continue;
    for (const auto& move : moves) {
      std::memcpy(arena_.base() + block_offset(move.to), arena_.base() + block_offset(move.from), bytes);
    }
    users.moved(bytes, MovedBlocks(moves));
    ++slabs_emptied_;
    return true;
  }
  return false;
}

void InstanceMemory::give_back(std::size_t block_bytes, std::span<const BlockId> blocks) {
  if (!blocks.empty()) pool_of(block_bytes)->give_back(blocks);
}

std::uint64_t InstanceMemory::used_blocks() const {
  std::uint64_t used = 0;
  for (const auto& [bytes, pool] : pools_) used += pool.used();
  return used;
}

void InstanceMemory::add_stats(Stats& stats) const {
  std::uint64_t used = 0;
  std::uint64_t owned = 0;
  for (const auto& [block_bytes, pool] : pools_) {
    used += pool.used() * block_bytes;
    owned += pool.owned_slabs() * slab_bytes();
  }
  stats.gauge("kv_bytes", "KV memory that the instance has", static_cast<double>(bytes()));
  stats.gauge("kv_bytes_used", "KV memory in blocks that are held", static_cast<double>(used));
  stats.gauge("kv_blocks_used", "KV blocks that are held", static_cast<double>(used_blocks()));
  stats.gauge("kv_slabs", "Slabs that the KV memory is cut into", slabs_->slabs());
  stats.gauge("kv_slabs_free", "Slabs that no block shape has", slabs_->free_slabs());
  stats.gauge("kv_fragmentation", "Share of the slabs in use that no block takes",
              owned == 0 ? 0 : 1 - static_cast<double>(used) / static_cast<double>(owned));
  stats.count("kv_slabs_emptied_total", "Slabs whose blocks were moved together for another shape",
              static_cast<double>(slabs_emptied_));
}

}  // namespace switchyard::pool
