// The KV memory of an instance: taken and registered once, cut into blocks of the shapes that its models
// have.
//
// Where no blocks are free, take() first has its users give up what they only keep for later, then has
// slabs of other shapes emptied, whose blocks it copies and whose users it tells. A take that finds blocks
// costs O(blocks); one that empties slabs copies a slab's bytes for each.
//
// Used by the instance's loop alone.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "memory/arena.h"
#include "memory/block_pool.h"
#include "pool/stats.h"
#include "switchyard/transfer.h"

namespace switchyard::pool {

// Blocks that lie elsewhere now.
class MovedBlocks {
 public:
  explicit MovedBlocks(std::span<const BlockPool::Relocation> moves);
  void apply(std::vector<BlockId>& blocks) const;
  template <class F>
  void for_each(F&& call) const {
    for (const auto& [from, to] : to_) call(from, to);
  }

 private:
  std::unordered_map<BlockId, BlockId> to_;
};

// A block's bytes as pools count them.
inline constexpr std::size_t whole_units(std::size_t bytes) {
  return (bytes + kBlockUnit - 1) / kBlockUnit * kBlockUnit;
}

class InstanceMemory {
 public:
  // What those who hold blocks do for those who want some.
  class Users {
   public:
    virtual ~Users() = default;
    // Whether blocks of this size may change their places: none is being sent, received or copied.
    virtual bool may_move(std::size_t block_bytes) const = 0;
    virtual void moved(std::size_t block_bytes, const MovedBlocks& moved) = 0;
    // Gives back blocks that are only kept for later, of this size or (0) of any. False: there are none.
    virtual bool give_up(std::size_t block_bytes) = 0;
  };

  // Errors: invalid (not one slab fits), exhausted, io.
  static Result<std::unique_ptr<InstanceMemory>> create(TransferEngine& engine, std::uint64_t kv_bytes,
                                                        std::uint64_t slab_bytes);

  std::span<std::byte> memory() const { return arena_.span().first(bytes()); }
  const Region& region() const { return region_; }
  std::uint64_t bytes() const { return std::uint64_t{slabs_->slabs()} * slabs_->slab_bytes(); }
  std::uint64_t slab_bytes() const { return slabs_->slab_bytes(); }

  // Appends blocks to `out`, all or none. Errors: invalid (no slab holds such a block), exhausted.
  Status take(std::size_t block_bytes, std::uint32_t count, std::vector<BlockId>& out, Users& users);
  void give_back(std::size_t block_bytes, std::span<const BlockId> blocks);

  std::uint64_t used_blocks() const;
  std::uint32_t used_slabs() const { return slabs_->slabs() - slabs_->free_slabs(); }
  void add_stats(Stats& stats) const;

 private:
  InstanceMemory() = default;
  BlockPool* pool_of(std::size_t block_bytes);
  // Empties a slab of another shape. False: none can be had.
  bool empty_a_slab(const BlockPool& except, Users& users);

  Arena arena_;
  std::unique_ptr<SlabPool> slabs_;
  std::map<std::size_t, BlockPool> pools_;  // by block bytes, whole units
  Region region_;                           // after the memory: unregistered first
  std::uint64_t slabs_emptied_ = 0;
};

}  // namespace switchyard::pool
