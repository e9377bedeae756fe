#include "memory/block_pool.h"

#include <algorithm>

namespace switchyard {

SlabPool::SlabPool(std::span<std::byte> memory, std::size_t slab_bytes)
    : memory_(memory),
      slab_bytes_(slab_bytes),
      slabs_(static_cast<std::uint32_t>(memory.size() / slab_bytes)) {
  free_.reserve(slabs_);
  for (std::uint32_t slab = slabs_; slab > 0; --slab) free_.push_back(slab - 1);
}

Result<std::uint32_t> SlabPool::take() {
  if (free_.empty()) return fail(ErrorCode::exhausted, "all {} slabs are in use", slabs_);
  const std::uint32_t slab = free_.back();
  free_.pop_back();
  return slab;
}

void SlabPool::give_back(std::uint32_t slab) { free_.push_back(slab); }

Result<BlockPool> BlockPool::create(SlabPool& slabs, std::size_t block_bytes) {
  if (block_bytes == 0 || slabs.slab_bytes() % block_bytes != 0) {
    return fail(ErrorCode::invalid, "a slab of {} bytes does not hold a whole number of blocks of {} bytes",
                slabs.slab_bytes(), block_bytes);
  }
  return BlockPool(slabs, block_bytes);
}

BlockPool::BlockPool(SlabPool& slabs, std::size_t block_bytes)
    : slabs_(&slabs),
      block_bytes_(block_bytes),
      per_slab_(static_cast<std::uint32_t>(slabs.slab_bytes() / block_bytes)),
      owned_(slabs.slabs()) {
  for (Slab& slab : owned_) slab.free.reserve(per_slab_);
  open_.reserve(slabs.slabs());
}

std::uint32_t BlockPool::available() const { return free_in_owned_ + slabs_->free_slabs() * per_slab_; }

Status BlockPool::take(std::uint32_t count, std::vector<std::uint32_t>& out) {
  if (count > available()) {
    return fail(ErrorCode::exhausted, "{} blocks are needed and {} of {} are free", count, available(),
                capacity());
  }
  for (std::uint32_t i = 0; i < count; ++i) out.push_back(take_one());
  return {};
}

std::uint32_t BlockPool::take_one() {
  while (!open_.empty() && owned_[open_.back()].free.empty()) {
    owned_[open_.back()].listed = false;
    open_.pop_back();
  }
  if (open_.empty()) {
    const std::uint32_t slab = *slabs_->take();  // available() counted it
    Slab& fresh = owned_[slab];
    fresh.listed = true;
    fresh.free.clear();
    for (std::uint32_t i = per_slab_; i > 0; --i) fresh.free.push_back(slab * per_slab_ + i - 1);
    free_in_owned_ += per_slab_;
    open_.push_back(slab);
  }
  Slab& slab = owned_[open_.back()];
  const std::uint32_t block = slab.free.back();
  slab.free.pop_back();
  --free_in_owned_;
  ++used_;
  return block;
}

void BlockPool::give_back(std::span<const std::uint32_t> blocks) {
  for (const std::uint32_t block : blocks) {
    const std::uint32_t index = block / per_slab_;
    Slab& slab = owned_[index];
    slab.free.push_back(block);
    ++free_in_owned_;
    --used_;
    if (slab.free.size() == per_slab_) {
      free_in_owned_ -= per_slab_;
      slab.free.clear();
      if (slab.listed) open_.erase(std::find(open_.begin(), open_.end(), index));
      slab.listed = false;
      slabs_->give_back(index);
    } else if (!slab.listed) {
      slab.listed = true;
      open_.push_back(index);
    }
  }
}

}  // namespace switchyard
