#include "kv/prefix_index.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <optional>
#include <random>
#include <set>
#include <span>
#include <utility>
#include <vector>

namespace switchyard::kv {
namespace {

using Tokens = std::vector<std::int32_t>;
using Blocks = std::vector<BlockId>;
using Evicted = PrefixIndex::Evicted;

Tokens tokens(std::size_t count, std::int32_t first = 0) {
  Tokens result(count);
  std::iota(result.begin(), result.end(), first);
  return result;
}

Blocks matched(PrefixIndex& index, PrefixIndex::ModelId model, const Tokens& prompt) {
  Blocks blocks;
  const std::uint32_t count = index.match(model, prompt, blocks);
  EXPECT_EQ(count, blocks.size());
  return blocks;
}

Blocks released(PrefixIndex& index, const Blocks& blocks) {
  Blocks freed;
  index.release(blocks, freed);
  return freed;
}

TEST(PrefixIndex, FindsTheLongestRunOfFullBlocks) {
  PrefixIndex index({});
  index.insert(1, tokens(40), Blocks{7, 8, 9});
  EXPECT_TRUE(index.knows(7) && index.knows(8));
  EXPECT_FALSE(index.knows(9)) << "it is not full";
  EXPECT_EQ(matched(index, 1, tokens(100)), (Blocks{7, 8}));
  EXPECT_EQ(matched(index, 1, tokens(31)), (Blocks{7}));
  EXPECT_EQ(matched(index, 2, tokens(100)), Blocks{}) << "another model";
  EXPECT_EQ(matched(index, 1, tokens(100, 1)), Blocks{}) << "other tokens";
  Tokens other = tokens(100);
  other[20] = -1;
  EXPECT_EQ(matched(index, 1, other), (Blocks{7}));
  EXPECT_EQ(matched(index, 1, {}), Blocks{});
}

TEST(PrefixIndex, NeverMatchesAWholePrompt) {
  PrefixIndex index({});
  index.insert(1, tokens(64), Blocks{1, 2, 3, 4});
  EXPECT_EQ(matched(index, 1, tokens(16)), Blocks{});
  EXPECT_EQ(matched(index, 1, tokens(17)), (Blocks{1}));
  EXPECT_EQ(matched(index, 1, tokens(64)), (Blocks{1, 2, 3}));
  EXPECT_EQ(matched(index, 1, tokens(65)), (Blocks{1, 2, 3, 4}));
}

TEST(PrefixIndex, TheSameTokensAfterOthersAreAnotherBlock) {
  PrefixIndex index({});
  Tokens twice = tokens(16);
  twice.insert(twice.end(), 16, 0);
  std::copy_n(twice.begin(), 16, twice.begin() + 16);
  index.insert(1, twice, Blocks{1, 2});
  twice.push_back(0);
  EXPECT_EQ(matched(index, 1, twice), (Blocks{1, 2}));
}

TEST(PrefixIndex, BlocksStayUntilTheyAreEvictedLeavesFirst) {
  PrefixIndex index({});
  const Blocks blocks{1, 2, 3, 4};
  index.insert(1, tokens(50), blocks);
  EXPECT_EQ(index.unused(1), 0u);
  EXPECT_EQ(released(index, blocks), (Blocks{4})) << "only the block that is not full";
  EXPECT_EQ(index.unused(1), 3u);
  std::vector<Evicted> evicted;
  EXPECT_EQ(index.evict(2, evicted), 2u);
  EXPECT_EQ(evicted, (std::vector<Evicted>{{1, 3}, {1, 2}}));
  EXPECT_EQ(matched(index, 1, tokens(100)), (Blocks{1}));
  EXPECT_EQ(index.evict(2, evicted), 0u) << "in use";
  EXPECT_EQ(released(index, {1}), Blocks{});
  EXPECT_EQ(index.evict(1, 9, evicted), 1u);
  EXPECT_EQ(index.stats().blocks, 0u);
}

TEST(PrefixIndex, TheLeastRecentlyUsedLeavesFirst) {
  PrefixIndex index({});
  for (std::int32_t i = 0; i < 3; ++i) {
    const Blocks block{static_cast<BlockId>(i)};
    index.insert(static_cast<PrefixIndex::ModelId>(i), tokens(16, 100 * i), block);
    released(index, block);
  }
  released(index, matched(index, 0, tokens(17)));
  std::vector<Evicted> evicted;
  EXPECT_EQ(index.evict(2, 5, evicted), 1u) << "of one model";
  EXPECT_EQ(index.evict(5, evicted), 2u);
  EXPECT_EQ(evicted, (std::vector<Evicted>{{2, 2}, {1, 1}, {0, 0}}));
}

TEST(PrefixIndex, ABlockComputedTwiceStaysItsRequests) {
  PrefixIndex index({});
  index.insert(1, tokens(32), Blocks{1, 2});
  index.insert(1, tokens(48), Blocks{11, 12, 13});
  EXPECT_FALSE(index.knows(11) || index.knows(12));
  EXPECT_TRUE(index.knows(13)) << "it goes on where the others end";
  EXPECT_EQ(matched(index, 1, tokens(49)), (Blocks{1, 2, 13}));
  EXPECT_EQ(released(index, {11, 12, 13}), (Blocks{11, 12}));
  EXPECT_EQ(released(index, {1, 2}), Blocks{});
  EXPECT_EQ(released(index, {1, 2, 13}), Blocks{});
  EXPECT_EQ(index.unused(1), 3u);
}

TEST(PrefixIndex, GrowsWithARequest) {
  PrefixIndex index({});
  index.insert(1, tokens(20), Blocks{1, 2});
  index.insert(1, tokens(33), Blocks{1, 2, 3});
  index.insert(1, tokens(33), Blocks{1, 2, 3});
  EXPECT_EQ(index.stats().blocks, 2u);
  EXPECT_EQ(released(index, {1, 2, 3}), (Blocks{3}));
  EXPECT_EQ(index.unused(1), 2u);
}

TEST(PrefixIndex, MovedBlocksAreFoundWhereTheyAre) {
  PrefixIndex index({});
  index.insert(1, tokens(32), Blocks{1, 2});
  EXPECT_TRUE(index.moved(2, 20));
  EXPECT_FALSE(index.moved(2, 30));
  EXPECT_EQ(matched(index, 1, tokens(33)), (Blocks{1, 20}));
}

TEST(PrefixIndex, AForgottenModelGivesBackWhatIsInUseLater) {
  PrefixIndex index({});
  index.insert(1, tokens(32), Blocks{1, 2});
  index.insert(2, tokens(32), Blocks{3, 4});
  matched(index, 1, tokens(17));
  released(index, {1, 2});  // 1 is still used by the match, 2 by nobody
  std::vector<Evicted> evicted;
  index.evict_all(1, evicted);
  EXPECT_EQ(evicted, (std::vector<Evicted>{{1, 2}}));
  EXPECT_EQ(index.unused(1), 0u);
  EXPECT_EQ(matched(index, 1, tokens(33)), Blocks{});
  index.insert(1, tokens(32), Blocks{1, 5});
  EXPECT_EQ(matched(index, 1, tokens(33)), Blocks{}) << "what was computed with old weights is not taken in";
  EXPECT_EQ(released(index, {1}), (Blocks{1}));
  EXPECT_FALSE(index.knows(1));
  EXPECT_EQ(matched(index, 2, tokens(33)), (Blocks{3, 4}));
}

TEST(PrefixIndex, KnowsNoMoreThanItMay) {
  PrefixIndex index({.max_blocks = 3});
  index.insert(1, tokens(64), Blocks{1, 2, 3, 4});
  EXPECT_EQ(index.stats().blocks, 3u);
  EXPECT_EQ(released(index, {1, 2, 3, 4}), (Blocks{4}));
}

TEST(PrefixIndex, CountsWhatItSaves) {
  PrefixIndex index({});
  index.insert(1, tokens(32), Blocks{1, 2});
  matched(index, 1, tokens(40));
  matched(index, 1, tokens(40, 5));
  const auto stats = index.stats();
  EXPECT_EQ(stats.lookups, 2u);
  EXPECT_EQ(stats.hits, 1u);
  EXPECT_EQ(stats.tokens_asked, 80u);
  EXPECT_EQ(stats.tokens_saved, 32u);
  EXPECT_EQ(stats.referenced_blocks, 2u);
}

// The same, done the plainest way: every block with all the tokens up to its end.
class Naive {
 public:
  struct Block {
    std::uint32_t model = 0;
    Tokens prefix;
    std::uint32_t references = 0;
    std::uint64_t last_used = 0;
    bool forgotten = false;
  };

  explicit Naive(std::size_t size) : size_(size) {}

  const Block* find(std::uint32_t model, std::span<const std::int32_t> prefix, BlockId& id) const {
    for (const auto& [block, known] : blocks) {
      if (!known.forgotten && known.model == model && std::ranges::equal(known.prefix, prefix)) {
        id = block;
        return &known;
      }
    }
    return nullptr;
  }
  Blocks match(std::uint32_t model, std::span<const std::int32_t> prompt) {
    ++clock;
    Blocks result;
    BlockId id = 0;
    while ((result.size() + 1) * size_ < prompt.size() &&
           find(model, prompt.first((result.size() + 1) * size_), id) != nullptr) {
      ++blocks[id].references;
      blocks[id].last_used = clock;
      result.push_back(id);
    }
    return result;
  }
  void insert(std::uint32_t model, std::span<const std::int32_t> all, const Blocks& of) {
    ++clock;
    for (std::size_t i = 0; i < of.size() && (i + 1) * size_ <= all.size(); ++i) {
      const auto prefix = all.first((i + 1) * size_);
      BlockId id = of[i];
      if (find(model, prefix, id) == nullptr) {
        if (blocks.contains(of[i])) return;
        blocks[of[i]] = {.model = model, .prefix = {prefix.begin(), prefix.end()}, .references = 1};
      }
      blocks[id].last_used = clock;
    }
  }
  Blocks release(const Blocks& of) {
    ++clock;
    Blocks freed;
    for (const BlockId id : of) {
      if (!blocks.contains(id)) {
        freed.push_back(id);
      } else if (--blocks[id].references == 0 && blocks[id].forgotten) {
        blocks.erase(id);
        freed.push_back(id);
      } else if (!blocks[id].forgotten) {
        blocks[id].last_used = clock;
      }
    }
    return freed;
  }
  bool goes_on(const Block& from, const Block& with) const {
    return !with.forgotten && with.model == from.model && with.prefix.size() > from.prefix.size() &&
           std::ranges::equal(from.prefix, std::span(with.prefix).first(from.prefix.size()));
  }
  // Of the blocks that can leave, when the one was used last that should leave first; 0: there is none.
  std::uint64_t first_to_leave(std::optional<std::uint32_t> model) const {
    std::uint64_t first = 0;
    for (const auto& [id, block] : blocks) {
      if (!can_leave(block) || (model && block.model != *model)) continue;
      if (first == 0 || block.last_used < first) first = block.last_used;
    }
    return first;
  }
  bool can_leave(const Block& block) const {
    return block.references == 0 && !block.forgotten &&
           std::ranges::none_of(blocks, [&](const auto& other) { return goes_on(block, other.second); });
  }
  std::uint32_t unused(std::uint32_t model) const {
    std::uint32_t count = 0;
    for (const auto& [id, block] : blocks) {
      if (block.model != model || block.forgotten || block.references != 0) continue;
      count += std::ranges::none_of(blocks, [&, &from = block](const auto& other) {
        return goes_on(from, other.second) && other.second.references != 0;
      });
    }
    return count;
  }

  std::map<BlockId, Block> blocks;
  std::uint64_t clock = 0;

 private:
  std::size_t size_;
};

struct Request {
  std::uint32_t model = 0;
  Tokens tokens;
  Blocks blocks;
};

class PrefixIndexAgainstNaive : public testing::TestWithParam<std::uint32_t> {};

TEST_P(PrefixIndexAgainstNaive, DoesTheSame) {
  constexpr std::uint32_t kSize = 4;
  constexpr std::uint32_t kModels = 2;
  std::mt19937 random(GetParam());
  // A hash that is the same for all would be right too, only slow.
  PrefixIndex index({.block_tokens = kSize, .seed = GetParam()});
  Naive naive(kSize);
  std::vector<Request> requests;
  std::set<BlockId> taken;  // by requests or by the index
  BlockId next_block = 0;
  const auto fresh = [&] {
    while (taken.contains(next_block)) next_block = (next_block + 1) % 1000;
    taken.insert(next_block);
    return next_block;
  };
  const auto give_back = [&](const Blocks& freed) {
    for (const BlockId block : freed) {
      ASSERT_EQ(taken.erase(block), 1u) << "freed twice";
      for (const Request& request : requests) {
        ASSERT_EQ(std::ranges::find(request.blocks, block), request.blocks.end()) << "freed while in use";
      }
    }
  };
  for (int round = 0; round < 4000; ++round) {
    const std::uint32_t action = random() % 100;
    if (action < 35 && requests.size() < 12) {
      // Few different tokens, so that beginnings are often shared.
      Request request{.model = static_cast<std::uint32_t>(random() % kModels)};
      const std::uint32_t length = 1 + random() % 30;
      for (std::uint32_t i = 0; i < length; ++i) {
        request.tokens.push_back(random() % 8 == 0 ? static_cast<std::int32_t>(random() % 2) : 0);
      }
      index.match(request.model, request.tokens, request.blocks);
      ASSERT_EQ(request.blocks, naive.match(request.model, request.tokens));
      ASSERT_LT(request.blocks.size() * kSize, request.tokens.size());
      while (request.blocks.size() * kSize < length) request.blocks.push_back(fresh());
      requests.push_back(std::move(request));
    } else if (action < 65 && !requests.empty()) {
      Request& request = requests[random() % requests.size()];
      if (random() % 2 == 0) {
        for (std::uint32_t i = random() % 6; i > 0; --i) request.tokens.push_back(random() % 2);
        while (request.blocks.size() * kSize < request.tokens.size()) request.blocks.push_back(fresh());
      }
      const auto done = std::span(request.tokens).first(random() % (request.tokens.size() + 1));
      index.insert(request.model, done, request.blocks);
      naive.insert(request.model, done, request.blocks);
    } else if (action < 90 && !requests.empty()) {
      std::swap(requests[random() % requests.size()], requests.back());
      const Request request = std::move(requests.back());
      requests.pop_back();
      const Blocks freed = released(index, request.blocks);
      ASSERT_EQ(freed, naive.release(request.blocks));
      give_back(freed);
    } else if (action < 96) {
      const std::optional<std::uint32_t> model =
          random() % 2 == 0 ? std::optional(random() % kModels) : std::nullopt;
      for (std::uint32_t count = random() % 5; count > 0; --count) {
        std::vector<Evicted> evicted;
        const std::uint64_t first = naive.first_to_leave(model);
        ASSERT_EQ(model ? index.evict(*model, 1, evicted) : index.evict(1, evicted), first == 0 ? 0u : 1u);
        if (first == 0) break;
        const auto left = naive.blocks.find(evicted.front().block);
        ASSERT_NE(left, naive.blocks.end());
        ASSERT_TRUE(naive.can_leave(left->second));
        ASSERT_EQ(left->second.last_used, first);
        ASSERT_EQ(left->second.model, evicted.front().model);
        naive.blocks.erase(left);
        give_back({evicted.front().block});
      }
    } else if (action < 99 && !taken.empty()) {
      const BlockId from = *std::next(taken.begin(), static_cast<std::ptrdiff_t>(random() % taken.size()));
      const BlockId to = fresh();
      ASSERT_EQ(index.moved(from, to), naive.blocks.contains(from));
      if (auto node = naive.blocks.extract(from)) {
        node.key() = to;
        naive.blocks.insert(std::move(node));
      }
      for (Request& request : requests) std::ranges::replace(request.blocks, from, to);
      taken.erase(from);
    } else if (action == 99 && random() % 5 == 0) {
      const std::uint32_t model = random() % kModels;
      std::vector<Evicted> evicted;
      index.evict_all(model, evicted);
      std::set<BlockId> expected;
      for (auto& [id, block] : naive.blocks) {
        if (block.model != model || block.forgotten) continue;
        block.forgotten = true;
        if (block.references == 0) expected.insert(id);
      }
      std::set<BlockId> got;
      for (const Evicted& each : evicted) got.insert(each.block);
      ASSERT_EQ(got, expected);
      for (const BlockId id : expected) naive.blocks.erase(id);
      give_back({expected.begin(), expected.end()});
    }
    if (HasFatalFailure()) return;
    ASSERT_EQ(index.stats().blocks, naive.blocks.size());
    ASSERT_EQ(index.stats().referenced_blocks,
              static_cast<std::size_t>(std::ranges::count_if(
                  naive.blocks, [](const auto& entry) { return entry.second.references != 0; })));
    for (std::uint32_t model = 0; model < kModels; ++model) {
      ASSERT_EQ(index.unused(model), naive.unused(model));
    }
    for (const auto& [id, block] : naive.blocks) ASSERT_TRUE(index.knows(id));
  }
  // Nothing is lost: when all requests have ended, everything comes back.
  for (const Request& request : std::exchange(requests, {})) give_back(released(index, request.blocks));
  std::vector<Evicted> evicted;
  index.evict(UINT32_MAX, evicted);
  for (const Evicted& each : evicted) give_back({each.block});
  EXPECT_TRUE(taken.empty());
  EXPECT_EQ(index.stats().blocks, 0u);
}

INSTANTIATE_TEST_SUITE_P(Seeds, PrefixIndexAgainstNaive, testing::Range(1u, 9u));

}  // namespace
}  // namespace switchyard::kv
