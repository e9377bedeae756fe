// Blocks of one size, cut from slabs of a shared memory.
//
// A SlabPool divides memory into slabs of equal size. A BlockPool takes a slab when it needs blocks and gives
// it back when its last block is released, so that pools of other block sizes can have it. A block is known
// by where it lies, in units of kBlockUnit bytes from the start of the memory, so that blocks of any size, in
// any slab, are pages of the same memory at the same stride. Blocks are taken from the fullest slabs, so that
// the others empty. Both are used by one thread at a time and, compact() aside, allocate nothing after
// construction; taking or returning a block or a slab costs O(1).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "switchyard/result.h"

namespace switchyard {

inline constexpr std::size_t kBlockUnit = 1024;
using BlockId = std::uint32_t;  // offset / kBlockUnit

constexpr std::uint64_t block_offset(BlockId block) { return std::uint64_t{block} * kBlockUnit; }
// What a block of so many bytes takes, in whole units: the distance of neighbours.
constexpr std::uint64_t block_units(std::uint64_t block_bytes) {
  return (block_bytes + kBlockUnit - 1) / kBlockUnit;
}

class SlabPool {
 public:
  // Uses the whole slabs that `memory` holds, up to what a BlockId can name (4 TiB); the memory stays the
  // caller's. `slab_bytes` is a multiple of kBlockUnit.
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

// What a block costs in a slab memory, rounded up: its share of a slab, the rest at the slab's end included.
// 0: no slab holds one.
std::uint64_t block_charge(std::size_t slab_bytes, std::size_t block_bytes);

// A slab size for blocks of these sizes in a memory of so many bytes: at least eight of the largest (fewer
// where the memory is small, so that every size can have several slabs), and of the sizes up to twice that,
// the one that leaves the least at its end for the size that suits it worst. Costs milliseconds.
std::size_t choose_slab_bytes(std::span<const std::size_t> block_bytes, std::uint64_t memory_bytes);

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

  // Empties the slab with the fewest blocks into free places of the fullest others, so that another pool can
  // have it. The pool's books are changed already: the caller copies the bytes (block_bytes() each, no target
  // is a source) and changes its lists before anybody takes blocks or slabs. Empty: nothing to be gained.
  // Costs O(slabs + blocks of a slab).
  struct Relocation {
    BlockId from;
    BlockId to;
  };
  std::vector<Relocation> compact();

 private:
  // Owned slabs with free blocks are listed by how full they are.
  static constexpr std::uint32_t kFills = 8;
  static constexpr std::uint32_t kNone = UINT32_MAX;

  struct Slab {
    std::vector<BlockId> free;  // reserved once
    bool owned = false;
    std::uint32_t list = kNone;  // of kFills, or in none
    std::uint32_t previous = kNone;
    std::uint32_t next = kNone;
  };

  BlockPool(SlabPool& slabs, std::size_t block_bytes);
  BlockId take_one();
  std::uint32_t fullest() const;  // an owned slab with free blocks; kNone: there is none
  void own(std::uint32_t index);
  void release(std::uint32_t index);
  // Lists the slab where its free blocks say.
  void list(std::uint32_t index);
  void unlist(std::uint32_t index);
  BlockId first_of(std::uint32_t slab) const {
    return static_cast<BlockId>(slab * (slabs_->slab_bytes() / kBlockUnit));
  }

  SlabPool* slabs_;
  std::size_t block_bytes_;
  std::uint32_t units_;
  std::uint32_t per_slab_;
  std::uint32_t used_ = 0;
  std::uint32_t owned_slabs_ = 0;
  std::uint32_t free_in_owned_ = 0;
  std::vector<Slab> owned_;                  // by slab index
  std::array<std::uint32_t, kFills> lists_;  // first slab of each, the fullest first
};

}  // namespace switchyard
