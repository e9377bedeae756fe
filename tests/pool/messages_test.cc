#include "pool/messages.h"

#include <gtest/gtest.h>

namespace switchyard::pool {
namespace {

PrefillOrder order() {
  RegionKey key{.engine_id = {1, 2}, .epoch = 3, .bytes = 4096, .rails = {{5, 6}}};
  return {.job = 9,
          .tokens = {1, 2, 3},
          .destination = {.pool = key,
                          .blocks = {4, 5},
                          .tails = key,
                          .tail_offset = 64,
                          .counter = {7, 8, 9},
                          .tokens = 3,
                          .chunk_tokens = 64},
          .limit_ms = 1000};
}

TokenBatch batch() {
  TokenBatch result;
  result.entries.push_back({.id = 1,
                            .attempt = 2,
                            .tokens = {{.token = 3, .logprob = -1, .top = {{3, -1}, {4, -2}}}},
                            .outcome = Outcome::retry,
                            .error = {ErrorCode::peer_lost, "gone"}});
  return result;
}

TEST(Messages, RoundTrip) {
  const auto read_order = parse<PrefillOrder>(serialize(order()));
  ASSERT_TRUE(read_order);
  EXPECT_EQ(read_order->destination.blocks, order().destination.blocks);
  EXPECT_EQ(read_order->destination.pool, order().destination.pool);
  EXPECT_EQ(read_order->limit_ms, 1000u);
  const auto read_batch = parse<TokenBatch>(serialize(batch()));
  ASSERT_TRUE(read_batch);
  EXPECT_EQ(read_batch->entries[0].tokens[0].top[1].token, 4);
  EXPECT_EQ(read_batch->entries[0].error.message, "gone");
  Generate generate{.id = 1, .prompt = {5}, .sampling = {.seed = 77, .logprobs = true}, .max_tokens = 3};
  EXPECT_EQ(parse<Generate>(serialize(generate))->sampling.seed, 77u);
}

TEST(Messages, EveryTruncationIsAnError) {
  const auto check = [](auto message) {
    using M = decltype(message);
    const auto bytes = serialize(message);
    for (std::size_t size = 0; size < bytes.size(); ++size) {
      EXPECT_FALSE(parse<M>(std::span(bytes).first(size))) << size;
    }
    auto longer = bytes;
    longer.push_back(std::byte{0});
    EXPECT_FALSE(parse<M>(longer));
  };
  check(order());
  check(batch());
  check(Hello{.name = "decode-0"});
  check(Stats{.samples = {{.name = "a", .value = 1, .labels = {{"rail", "net"}, {"path", "0"}}}}});
  check(PrefillEnded{.job = 1});
  check(Generate{.prompt = {1}});
}

TEST(Messages, AbsurdCountsAllocateNothing) {
  ByteWriter writer;
  writer.write<std::uint32_t>(0xffffffff);
  EXPECT_FALSE(parse<TokenBatch>(writer.bytes()));
  EXPECT_FALSE(parse<Stats>(writer.bytes()));
}

}  // namespace
}  // namespace switchyard::pool
