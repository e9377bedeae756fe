#include "memory/block_pool.h"

#include <gtest/gtest.h>

#include <random>
#include <set>

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

TEST(BlockPool, ASlabMustHoldWholeBlocks) {
  auto arena = *Arena::create(1 << 20);
  SlabPool slabs(arena.span(), 64 << 10);
  EXPECT_EQ(BlockPool::create(slabs, 0).error().code, ErrorCode::invalid);
  EXPECT_EQ(BlockPool::create(slabs, 3000).error().code, ErrorCode::invalid);
}

TEST(BlockPool, TakesAllOrNothing) {
  auto arena = *Arena::create(1 << 20);
  SlabPool slabs(arena.span(), 64 << 10);
  auto pool = *BlockPool::create(slabs, 4096);
  std::vector<std::uint32_t> blocks;
  EXPECT_EQ(pool.take(257, blocks).error().code, ErrorCode::exhausted);
  EXPECT_TRUE(blocks.empty());
  EXPECT_TRUE(pool.take(256, blocks));
  EXPECT_EQ(std::set(blocks.begin(), blocks.end()).size(), 256u);
  EXPECT_EQ(pool.available(), 0u);
  pool.give_back(blocks);
  EXPECT_EQ(slabs.free_slabs(), slabs.slabs());
}

TEST(BlockPool, TwoSizesShareSlabsWithoutOverlap) {
  auto arena = *Arena::create(1 << 20);
  SlabPool slabs(arena.span(), 48 << 10);
  std::vector<BlockPool> pools = {*BlockPool::create(slabs, 4 << 10), *BlockPool::create(slabs, 12 << 10)};
  std::vector<std::vector<std::uint32_t>> held(2);
  std::mt19937 random(1);
  for (int round = 0; round < 5000; ++round) {
    const std::size_t which = random() % 2;
    if (random() % 2 == 0) {
      (void)pools[which].take(random() % 7, held[which]);
    } else if (!held[which].empty()) {
      std::swap(held[which][random() % held[which].size()], held[which].back());
      pools[which].give_back(std::span(held[which]).last(1));
      held[which].pop_back();
    }
    std::set<std::size_t> granules;
    std::size_t bytes = 0;
    for (std::size_t p = 0; p < 2; ++p) {
      ASSERT_EQ(pools[p].used(), held[p].size());
      for (auto block : held[p]) {
        for (std::size_t at = 0; at < pools[p].block_bytes(); at += 4096, bytes += 4096) {
          granules.insert((block * pools[p].block_bytes() + at) / 4096);
        }
      }
    }
    ASSERT_EQ(granules.size() * 4096, bytes) << "blocks overlap";
  }
  pools[0].give_back(held[0]);
  pools[1].give_back(held[1]);
  EXPECT_EQ(slabs.free_slabs(), slabs.slabs());
}

}  // namespace
}  // namespace switchyard
