// Blocks of one size, cut from slabs of a shared memory.
//
// A SlabPool divides memory into slabs of equal size. A BlockPool takes a slab when it needs blocks and gives
// it back when its last block is released, so that pools of other block sizes can have it. Both are used by
// one thread at a time and allocate nothing after construction; taking or returning a block costs O(1),
// emptying a slab O(slabs).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "switchyard/result.h"

namespace switchyard {

class SlabPool {
 public:
  // Uses the whole slabs that `memory` holds; the memory stays the caller's.
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

class BlockPool {
 public:
  // A slab must hold a whole number of blocks, so that block i lies at base + i * block_bytes. Errors:
  // invalid.
  static Result<BlockPool> create(SlabPool& slabs, std::size_t block_bytes);

  std::size_t block_bytes() const { return block_bytes_; }
  // Blocks that exist if every slab were this pool's.
  std::uint32_t capacity() const { return slabs_->slabs() * per_slab_; }
  std::uint32_t used() const { return used_; }
  std::uint32_t available() const;

  // Appends `count` block indices to `out`, all or none. Errors: exhausted.
  Status take(std::uint32_t count, std::vector<std::uint32_t>& out);
  void give_back(std::span<const std::uint32_t> blocks);

 private:
  BlockPool(SlabPool& slabs, std::size_t block_bytes);
  std::uint32_t take_one();

  struct Slab {
    std::vector<std::uint32_t> free;  // reserved once
    bool listed = false;              // stands in open_
  };

  SlabPool* slabs_;
  std::size_t block_bytes_;
  std::uint32_t per_slab_;
  std::uint32_t used_ = 0;
  std::uint32_t free_in_owned_ = 0;
  std::vector<Slab> owned_;          // by slab index
  std::vector<std::uint32_t> open_;  // owned slabs that may have free blocks
};

}  // namespace switchyard
