#include "memory/block_pool.h"

#include <algorithm>
#include <cassert>

namespace switchyard {
namespace {

// What is left at a slab's end, as a share of it, for the block size that suits it worst.
double worst_waste(std::uint64_t slab_units, std::span<const std::size_t> block_bytes) {
  double worst = 0;
  for (const std::size_t bytes : block_bytes) {
    const std::uint64_t left = slab_units % std::max<std::uint64_t>(1, block_units(bytes));
    worst = std::max(worst, static_cast<double>(left) / static_cast<double>(slab_units));
  }
  return worst;
}

}  // namespace

SlabPool::SlabPool(std::span<std::byte> memory, std::size_t slab_bytes)
    : memory_(memory), slab_bytes_(slab_bytes) {
  assert(slab_bytes != 0 && slab_bytes % kBlockUnit == 0);
  constexpr std::uint64_t kMost = block_offset(UINT32_MAX);
  slabs_ = static_cast<std::uint32_t>(std::min<std::uint64_t>(memory.size(), kMost) / slab_bytes);
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

std::uint64_t block_charge(std::size_t slab_bytes, std::size_t block_bytes) {
  const std::uint64_t per_slab = block_bytes == 0 ? 0 : slab_bytes / kBlockUnit / block_units(block_bytes);
  return per_slab == 0 ? 0 : (slab_bytes + per_slab - 1) / per_slab;
}

std::size_t choose_slab_bytes(std::span<const std::size_t> block_bytes, std::uint64_t memory_bytes) {
  constexpr std::uint64_t kBlocks = 8;
  constexpr std::uint64_t kSlabsOfEach = 4;
  constexpr std::uint64_t kSteps = 4096;
  std::uint64_t largest = 1;
  for (const std::size_t bytes : block_bytes) largest = std::max(largest, block_units(bytes));
  const std::uint64_t wanted_slabs = kSlabsOfEach * std::max<std::size_t>(1, block_bytes.size());
  std::uint64_t blocks = kBlocks;
  while (blocks > 1 && memory_bytes / (blocks * largest * kBlockUnit) < wanted_slabs) blocks /= 2;
  const std::uint64_t least = blocks * largest;
  const std::uint64_t step = std::max<std::uint64_t>(1, least / kSteps);
  std::uint64_t best = least;
  double best_waste = worst_waste(least, block_bytes);
  // A single block to a slab is all that such a memory allows: no larger slab then.
  for (std::uint64_t units = least + step; blocks > 1 && units <= 2 * least; units += step) {
    const double waste = worst_waste(units, block_bytes);
    if (waste < best_waste) {
      best = units;
      best_waste = waste;
    }
  }
  return best * kBlockUnit;
}

Result<BlockPool> BlockPool::create(SlabPool& slabs, std::size_t block_bytes) {
  if (block_bytes == 0 || block_bytes > slabs.slab_bytes()) {
    return fail(ErrorCode::invalid, "a slab of {} bytes holds no block of {} bytes", slabs.slab_bytes(),
                block_bytes);
  }
  return BlockPool(slabs, block_bytes);
}

BlockPool::BlockPool(SlabPool& slabs, std::size_t block_bytes)
    : slabs_(&slabs),
      block_bytes_(block_bytes),
      units_(static_cast<std::uint32_t>(block_units(block_bytes))),
      per_slab_(static_cast<std::uint32_t>(slabs.slab_bytes() / kBlockUnit / units_)),
      owned_(slabs.slabs()) {
  for (Slab& slab : owned_) slab.free.reserve(per_slab_);
  lists_.fill(kNone);
}

std::uint32_t BlockPool::available() const { return free_in_owned_ + slabs_->free_slabs() * per_slab_; }

Status BlockPool::take(std::uint32_t count, std::vector<BlockId>& out) {
  if (count > available()) {
    return fail(ErrorCode::exhausted, "{} blocks are needed and {} of {} are free", count, available(),
                capacity());
  }
  for (std::uint32_t i = 0; i < count; ++i) out.push_back(take_one());
  return {};
}

BlockId BlockPool::take_one() {
  std::uint32_t index = fullest();
  if (index == kNone) {
    index = *slabs_->take();  // available() counted it
    own(index);
  }
  Slab& slab = owned_[index];
  const BlockId block = slab.free.back();
  slab.free.pop_back();
  --free_in_owned_;
  ++used_;
  list(index);
  return block;
}

void BlockPool::give_back(std::span<const BlockId> blocks) {
  for (const BlockId block : blocks) {
    const auto index = static_cast<std::uint32_t>(block_offset(block) / slabs_->slab_bytes());
    Slab& slab = owned_[index];
    assert(slab.owned && (block - first_of(index)) % units_ == 0 && slab.free.size() < per_slab_);
    slab.free.push_back(block);
    ++free_in_owned_;
    --used_;
    if (slab.free.size() == per_slab_) {
      release(index);
    } else {
      list(index);
    }
  }
}

std::vector<BlockPool::Relocation> BlockPool::compact() {
  std::uint32_t emptiest = kNone;
  for (std::uint32_t index = 0; index < owned_.size(); ++index) {
    if (!owned_[index].owned) continue;
    if (emptiest == kNone || owned_[index].free.size() > owned_[emptiest].free.size()) emptiest = index;
  }
  if (emptiest == kNone) return {};
  Slab& source = owned_[emptiest];
  const std::uint32_t count = per_slab_ - static_cast<std::uint32_t>(source.free.size());
  if (free_in_owned_ - source.free.size() < count) return {};

  std::vector<bool> free(per_slab_);
  for (const BlockId block : source.free) free[(block - first_of(emptiest)) / units_] = true;
  unlist(emptiest);  // nothing moves into the slab that is emptied
  free_in_owned_ -= static_cast<std::uint32_t>(source.free.size());
  used_ -= count;
  std::vector<Relocation> moves;
  moves.reserve(count);
  for (std::uint32_t i = 0; i < per_slab_; ++i) {
    if (!free[i]) moves.push_back({.from = first_of(emptiest) + i * units_, .to = take_one()});
  }
  free_in_owned_ += per_slab_;  // release() takes them off
  release(emptiest);
  return moves;
}

std::uint32_t BlockPool::fullest() const {
  for (const std::uint32_t first : lists_) {
    if (first != kNone) return first;
  }
  return kNone;
}

void BlockPool::own(std::uint32_t index) {
  Slab& slab = owned_[index];
  slab.owned = true;
  for (std::uint32_t i = per_slab_; i > 0; --i) slab.free.push_back(first_of(index) + (i - 1) * units_);
  ++owned_slabs_;
  free_in_owned_ += per_slab_;
}

void BlockPool::release(std::uint32_t index) {
  unlist(index);
  owned_[index].owned = false;
  owned_[index].free.clear();
  --owned_slabs_;
  free_in_owned_ -= per_slab_;
  slabs_->give_back(index);
}

void BlockPool::list(std::uint32_t index) {
  Slab& slab = owned_[index];
  const auto free = static_cast<std::uint32_t>(slab.free.size());
  const std::uint32_t wanted = free == 0
                                   ? kNone
                                   : static_cast<std::uint32_t>(std::min<std::uint64_t>(
                                         kFills - 1, std::uint64_t{free} * kFills / std::max(1u, per_slab_)));
  if (wanted == slab.list) return;
  unlist(index);
  if (wanted == kNone) return;
  slab.list = wanted;
  slab.next = lists_[wanted];
  if (slab.next != kNone) owned_[slab.next].previous = index;
  lists_[wanted] = index;
}

void BlockPool::unlist(std::uint32_t index) {
  Slab& slab = owned_[index];
  if (slab.list == kNone) return;
  if (slab.next != kNone) owned_[slab.next].previous = slab.previous;
  if (slab.previous != kNone) {
    owned_[slab.previous].next = slab.next;
  } else {
    lists_[slab.list] = slab.next;
  }
  slab.list = slab.previous = slab.next = kNone;
}

}  // namespace switchyard
