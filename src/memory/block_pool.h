// Blocks of one size, cut from slabs of a shared memory.
//
// A SlabPool divides memory into slabs of equal size. A BlockPool takes a slab when it needs blocks and gives
// it back when its last block is released, so that pools of other block sizes can have it. A block is known
// by where it lies, in units of kBlockUnit bytes from the start of the memory, so that blocks of any size, in
// any slab, are pages of the same memory at the same stride. Both are used by one thread at a time and
// allocate nothing after construction; taking or returning a block costs O(1), emptying a slab O(slabs).
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "switchyard/result.h"

namespace switchyard {

inline constexpr std::size_t kBlockUnit = 1024;
using BlockId = std::uint32_t;  // offset / kBlockUnit

inline constexpr std::uint64_t block_offset(BlockId block) { return std::uint64_t{block} * kBlockUnit; }

class SlabPool {
 public:
  // Uses the whole slabs that `memory` holds; the memory stays the caller's. `slab_bytes` is a multiple of
  // kBlockUnit.
  SlabPool(std::span<std::byte> memory, std::size_t slab_bytes);

  std::byte* base() const { return memory_.data(); }
  std::size_t slab_bytes() const { return slab_bytes_; }
  std::uint32_t slabs() const { return slabs_; }
  std::uint32_t free_slabs() const { return static_cast<std::uint32_t>(free_.size()); }

  // Errors: exhausted.
  Result<std::uint32_t> take();
  void give_back(std::uint32_t slab);

 private:
  std::span<std::byte> memory_;
  std::size_t slab_bytes_;
  std::uint32_t slabs_;
  std::vector<std::uint32_t> free_;
};

// What a block costs in a slab memory: its share of a slab, the rest at the slab's end included.
std::uint64_t block_charge(std::size_t slab_bytes, std::size_t block_bytes);

class BlockPool {
 public:
  // A block's bytes are rounded up to whole units; a slab must hold at least one. `slabs` outlives the pool.
  // Errors: invalid.
  static Result<BlockPool> create(SlabPool& slabs, std::size_t block_bytes);

  std::size_t block_bytes() const { return block_bytes_; }
  // Blocks that exist if every slab were this pool's.
  std::uint32_t capacity() const { return slabs_->slabs() * per_slab_; }
  std::uint32_t used() const { return used_; }
  std::uint32_t owned_slabs() const { return owned_slabs_; }
  // Blocks that can be taken now, from slabs of its own and from free ones.
  std::uint32_t available() const;

  // Appends `count` blocks to `out`, all or none. Errors: exhausted.
  Status take(std::uint32_t count, std::vector<BlockId>& out);
  void give_back(std::span<const BlockId> blocks);

  // Empties the slab with the fewest blocks into free places of others, so that another pool can have it. The
  // caller copies the bytes (block_bytes() each) and changes its lists; the pool's books are changed already.
  // Empty: nothing to be gained. Costs O(slabs + blocks of a slab).
  struct Relocation {
    BlockId from;
    BlockId to;
  };
  std::vector<Relocation> compact();

 private:
  BlockPool(SlabPool& slabs, std::size_t block_bytes);
  BlockId take_one();

  struct Slab {
    std::vector<BlockId> free;  // reserved once
    bool owned = false;
    bool listed = false;  // stands in open_
  };

  SlabPool* slabs_;
  std::size_t block_bytes_;
  std::uint32_t per_slab_;
  std::uint32_t used_ = 0;
  std::uint32_t owned_slabs_ = 0;
  std::uint32_t free_in_owned_ = 0;
  std::vector<Slab> owned_;          // by slab index
  std::vector<std::uint32_t> open_;  // owned slabs that may have free blocks
};

}  // namespace switchyard
