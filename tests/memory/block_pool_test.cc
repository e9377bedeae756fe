#include "memory/block_pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <random>
#include <set>
#include <string>
#include <utility>

#include "memory/arena.h"

namespace switchyard {
namespace {

TEST(Arena, IsPageAlignedAndZero) {
  auto arena = Arena::create(5000);
  ASSERT_TRUE(arena);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(arena->base()) % 4096, 0u);
  EXPECT_EQ(arena->bytes(), 8192u);
  EXPECT_EQ(arena->base()[8191], std::byte{0});
}

TEST(Arena, AbsurdSizesAreErrors) {
  EXPECT_EQ(Arena::create(0).error().code, ErrorCode::invalid);
  EXPECT_EQ(Arena::create(SIZE_MAX).error().code, ErrorCode::invalid);
  EXPECT_EQ(Arena::create(std::size_t{1} << 60).error().code, ErrorCode::exhausted);
}

TEST(BlockPool, ASlabMustHoldABlock) {
  auto arena = *Arena::create(1 << 20);
  SlabPool slabs(arena.span(), 64 << 10);
  EXPECT_EQ(BlockPool::create(slabs, 0).error().code, ErrorCode::invalid);
  EXPECT_EQ(BlockPool::create(slabs, (64 << 10) + 1).error().code, ErrorCode::invalid);
  EXPECT_EQ(BlockPool::create(slabs, 64 << 10)->capacity(), 16u);
  // Rounded up to whole units: 3 KiB, of which 21 fit.
  EXPECT_EQ(BlockPool::create(slabs, 3000)->capacity(), 16u * 21);
}

TEST(BlockPool, BlocksAreOffsetsInUnits) {
  auto arena = *Arena::create(256 << 10);
  SlabPool slabs(arena.span(), 64 << 10);
  auto pool = *BlockPool::create(slabs, 20'000);  // 20 units; three to a slab of 64
  std::vector<BlockId> blocks;
  ASSERT_TRUE(pool.take(12, blocks));
  std::ranges::sort(blocks);
  EXPECT_EQ(blocks, (std::vector<BlockId>{0, 20, 40, 64, 84, 104, 128, 148, 168, 192, 212, 232}));
  EXPECT_EQ(block_offset(blocks.back()), 232u * 1024);
}

TEST(BlockPool, TakesAllOrNothing) {
  auto arena = *Arena::create(1 << 20);
  SlabPool slabs(arena.span(), 64 << 10);
  auto pool = *BlockPool::create(slabs, 4096);
  std::vector<BlockId> blocks;
  EXPECT_EQ(pool.take(257, blocks).error().code, ErrorCode::exhausted);
  EXPECT_TRUE(blocks.empty());
  EXPECT_TRUE(pool.take(256, blocks));
  EXPECT_EQ(std::set(blocks.begin(), blocks.end()).size(), 256u);
  EXPECT_EQ(pool.available(), 0u);
  EXPECT_EQ(pool.owned_slabs(), 16u);
  pool.give_back(blocks);
  EXPECT_EQ(slabs.free_slabs(), slabs.slabs());
  EXPECT_EQ(pool.owned_slabs(), 0u);
}

TEST(BlockPool, FullerSlabsAreTakenFromFirst) {
  auto arena = *Arena::create(1 << 20);
  SlabPool slabs(arena.span(), 64 << 10);
  auto pool = *BlockPool::create(slabs, 4096);
  std::vector<BlockId> blocks;
  ASSERT_TRUE(pool.take(32, blocks));  // two slabs
  std::ranges::sort(blocks);
  pool.give_back(std::span(blocks).first(12));  // of the first; the second then has more
  pool.give_back(std::span(blocks).subspan(16, 3));
  std::vector<BlockId> more;
  ASSERT_TRUE(pool.take(3, more));
  for (const BlockId block : more) EXPECT_GE(block_offset(block), 64u << 10);
}

TEST(BlockPool, ChargeIsAShareOfASlab) {
  EXPECT_EQ(block_charge(64 << 10, 4096), 4096u);
  EXPECT_EQ(block_charge(64 << 10, 20 << 10), (64u * 1024 + 2) / 3);
  EXPECT_EQ(block_charge(64 << 10, 40 << 10), 64u << 10);
  EXPECT_EQ(block_charge(64 << 10, 65 << 10), 0u);
  EXPECT_EQ(block_charge(64 << 10, 0), 0u);
}

// Blocks of sixteen tokens of six small models.
const std::vector<std::size_t> kSixSizes = {368'640, 196'608, 360'448, 655'360, 524'288, 458'752};

TEST(SlabSize, LeavesLittleAtTheEnd) {
  const std::size_t slab = choose_slab_bytes(kSixSizes, std::uint64_t{4} << 30);
  EXPECT_EQ(slab % kBlockUnit, 0u);
  EXPECT_GE(slab, 8u * 655'360);
  EXPECT_LE(slab, 16u * 655'360);
  for (const std::size_t size : kSixSizes) EXPECT_LT(slab % size, slab / 25) << size;
  EXPECT_EQ(choose_slab_bytes(std::span(kSixSizes).first(1), std::uint64_t{4} << 30), 8u * 368'640);
}

TEST(SlabSize, IsSmallInASmallMemory) {
  const std::uint64_t memory = 32u << 20;
  const std::size_t slab = choose_slab_bytes(kSixSizes, memory);
  EXPECT_GE(slab, 655'360u);
  EXPECT_GE(memory / slab, 12u);
  EXPECT_EQ(choose_slab_bytes(kSixSizes, 0), 655'360u);
  EXPECT_EQ(choose_slab_bytes({}, 0), kBlockUnit);
}

// Pools that share slabs, and what a user of theirs holds. Every block's bytes have an owner.
struct Shared {
  Shared(std::uint64_t memory_bytes, std::span<const std::size_t> sizes)
      : arena(*Arena::create(memory_bytes)), slabs(arena.span(), choose_slab_bytes(sizes, memory_bytes)) {
    for (const std::size_t size : sizes) pools.push_back(*BlockPool::create(slabs, size));
    held.resize(sizes.size());
  }

  void give_back(std::size_t which, std::size_t count, std::mt19937& random) {
    for (; count > 0 && !held[which].empty(); --count) {
      std::swap(held[which][random() % held[which].size()], held[which].back());
      pools[which].give_back(std::span(held[which]).last(1));
      held[which].pop_back();
    }
  }

  void compact(std::size_t which) {
    const std::uint32_t owned = pools[which].owned_slabs();
    const auto moves = pools[which].compact();
    for (const auto& [from, to] : moves) {
      const auto at = std::ranges::find(held[which], from);
      ASSERT_NE(at, held[which].end()) << "a block moved that nobody holds";
      *at = to;
    }
    EXPECT_EQ(pools[which].owned_slabs(), moves.empty() ? owned : owned - 1);
  }

  // Whether what is held lies in the slabs and apart, and the books agree.
  void check() const {
    std::vector<std::pair<std::uint64_t, std::uint64_t>> runs;
    std::uint32_t owned = 0;
    for (std::size_t which = 0; which < pools.size(); ++which) {
      ASSERT_EQ(pools[which].used(), held[which].size());
      owned += pools[which].owned_slabs();
      for (const BlockId block : held[which]) {
        const std::uint64_t at = block_offset(block);
        const std::uint64_t end = at + pools[which].block_bytes();
        ASSERT_LE(end, slabs.slabs() * slabs.slab_bytes());
        ASSERT_EQ(at / slabs.slab_bytes(), (end - 1) / slabs.slab_bytes()) << "a block crosses slabs";
        runs.emplace_back(at, end);
      }
    }
    ASSERT_EQ(owned + slabs.free_slabs(), slabs.slabs());
    std::ranges::sort(runs);
    for (std::size_t i = 1; i < runs.size(); ++i) ASSERT_LE(runs[i - 1].second, runs[i].first) << "overlap";
  }

  // The part of the taken slabs that holds no block.
  double fragmentation() const {
    double used = 0;
    std::uint32_t owned = 0;
    for (const BlockPool& pool : pools) {
      used += static_cast<double>(pool.used()) * static_cast<double>(pool.block_bytes());
      owned += pool.owned_slabs();
    }
    return owned == 0 ? 0 : 1 - used / (static_cast<double>(owned) * static_cast<double>(slabs.slab_bytes()));
  }

  Arena arena;
  SlabPool slabs;
  std::vector<BlockPool> pools;
  std::vector<std::vector<BlockId>> held;
};

TEST(BlockPool, BlocksNeverOverlapWhateverIsTakenGivenBackAndMoved) {
  for (const std::uint32_t seed : {1u, 2u, 3u}) {
    std::mt19937 random(seed);
    std::vector<std::size_t> sizes;
    for (int i = 0; i < 4; ++i) sizes.push_back(1 + random() % 40'000);
    Shared shared(4 << 20, sizes);
    for (int round = 0; round < 3000; ++round) {
      const std::size_t which = random() % sizes.size();
      const std::uint32_t action = random() % 10;
      if (action < 5) {
        const std::uint32_t count = random() % 9;
        const bool possible = count <= shared.pools[which].available();
        ASSERT_EQ(shared.pools[which].take(count, shared.held[which]).has_value(), possible);
      } else if (action < 9) {
        shared.give_back(which, random() % 9, random);
      } else {
        shared.compact(which);
      }
      if (HasFatalFailure()) return;
      shared.check();
      if (HasFatalFailure()) return;
    }
    for (std::size_t which = 0; which < sizes.size(); ++which) {
      shared.pools[which].give_back(shared.held[which]);
    }
    EXPECT_EQ(shared.slabs.free_slabs(), shared.slabs.slabs());
  }
}

TEST(BlockPool, MovedBlocksLeaveTheirSlabFreeAndNoTargetIsASource) {
  auto arena = *Arena::create(1 << 20);
  SlabPool slabs(arena.span(), 64 << 10);
  auto pool = *BlockPool::create(slabs, 4096);
  std::vector<BlockId> blocks;
  EXPECT_TRUE(pool.compact().empty());
  ASSERT_TRUE(pool.take(48, blocks));
  EXPECT_TRUE(pool.compact().empty()) << "all slabs are full";
  std::ranges::sort(blocks);
  pool.give_back(std::span(blocks).subspan(0, 14));  // 2 stay in the first
  pool.give_back(std::span(blocks).subspan(16, 8));  // 8 in the second
  const auto moves = pool.compact();
  ASSERT_EQ(moves.size(), 2u);
  for (const auto& move : moves) {
    EXPECT_LT(block_offset(move.from), 64u << 10);
    EXPECT_GE(block_offset(move.to), 64u << 10);
  }
  EXPECT_EQ(pool.owned_slabs(), 2u);
  EXPECT_EQ(pool.used(), 26u);
  EXPECT_EQ(slabs.free_slabs(), 14u);
  EXPECT_TRUE(pool.compact().empty()) << "the rest does not fit into one slab";
}

// Six models whose requests come and go, each with more and less to do in turn: what is in use moves between
// the sizes all the time. The mean over samples, each taken after compaction if `compacting`.
double mean_fragmentation(std::uint64_t memory_bytes, bool compacting) {
  Shared shared(memory_bytes, kSixSizes);
  std::mt19937 random(7);
  double sum = 0;
  int samples = 0;
  // What the models want together is three quarters of the memory.
  const double share = 0.75 * static_cast<double>(memory_bytes) / 6;
  for (int round = 0; round < 20'000; ++round) {
    const std::size_t which = random() % kSixSizes.size();
    const double phase = round / 3000.0 + static_cast<double>(which);
    const double wanted = share * (1 + std::sin(phase)) / static_cast<double>(kSixSizes[which]);
    const std::uint32_t request = 1 + random() % 32;
    if (static_cast<double>(shared.held[which].size()) < wanted) {
      (void)shared.pools[which].take(request, shared.held[which]);
    } else {
      shared.give_back(which, request, random);
    }
    if (round % 500 != 499) continue;
    for (std::size_t each = 0; compacting && each < kSixSizes.size(); ++each) {
      for (std::uint32_t before = UINT32_MAX; shared.pools[each].owned_slabs() < before;) {
        before = shared.pools[each].owned_slabs();
        shared.compact(each);
      }
    }
    shared.check();
    if (testing::Test::HasFatalFailure()) return 1;
    sum += shared.fragmentation();
    ++samples;
  }
  return sum / samples;
}

TEST(BlockPool, SixSizesInOneMemoryLeaveLittleUnused) {
  for (const std::uint64_t megabytes : {1024u, 4096u}) {
    const double plain = mean_fragmentation(megabytes << 20, false);
    const double compacted = mean_fragmentation(megabytes << 20, true);
    std::printf("%u MiB: %.1f %% of taken slabs unused, %.1f %% after compaction\n",
                static_cast<unsigned>(megabytes), plain * 100, compacted * 100);
    EXPECT_LT(compacted, 0.2);
    EXPECT_LT(compacted, plain);
  }
}

}  // namespace
}  // namespace switchyard
