#include "pool/orders.h"

#include <gtest/gtest.h>

#include "pool/stats.h"

namespace switchyard::pool {
namespace {

RunPrefill prefill() {
  const RegionKey key{.engine_id = {1, 2}, .epoch = 3, .bytes = 4096, .rails = {{5, 6}}};
  return {
      .job = 9,
      .model = 4,
      .prompts = {{.ticket = {1, 2},
                   .target = KvTarget::peer,
                   .peer = {std::byte{1}},
                   .destination =
                       {.pool = key, .blocks = {4, 5}, .counter = {7, 8, 9}, .tokens = 3, .chunk_tokens = 64},
                   .host_blocks = {1, 2, 3}}}};
}

Tokens tokens() {
  Tokens result{.job = 3};
  result.entries.push_back({.ticket = {1, 2},
                            .tokens = {{.token = 3, .logprob = -1, .top = {{3, -1}, {4, -2}}}},
                            .outcome = RowOutcome::failed,
                            .error = {ErrorCode::peer_lost, "gone"}});
  return result;
}

TEST(Orders, RoundTrip) {
  const auto order = parse<RunPrefill>(serialize(prefill()));
  ASSERT_TRUE(order);
  EXPECT_EQ(order->prompts[0].destination.blocks, (std::vector<BlockId>{4, 5}));
  EXPECT_EQ(order->prompts[0].destination.pool, prefill().prompts[0].destination.pool);
  EXPECT_EQ(order->prompts[0].target, KvTarget::peer);
  const auto news = parse<Tokens>(serialize(tokens()));
  ASSERT_TRUE(news);
  EXPECT_EQ(news->entries[0].tokens[0].top[1].token, 4);
  EXPECT_EQ(news->entries[0].error.message, "gone");
  const Introduce what{
      .ticket = {1, 1}, .shape = {3, 16, 512}, .prompt = {5}, .sampling = {.seed = 77}, .max_tokens = 3};
  EXPECT_EQ(parse<Introduce>(serialize(what))->sampling.seed, 77u);
  EXPECT_EQ(parse<Introduce>(serialize(what))->shape, what.shape);
  const Stats stats{.samples = {{.name = "a", .value = 1, .labels = {{"rail", "net"}, {"path", "0"}}}}};
  EXPECT_EQ(parse<Stats>(serialize(stats))->samples[0].labels, stats.samples[0].labels);
}

TEST(Orders, EveryTruncationIsAnError) {
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
  check(prefill());
  check(tokens());
  check(InstanceHello{.name = "decode-0"});
  check(Stats{.samples = {{.name = "a", .value = 1, .labels = {{"rail", "net"}, {"path", "0"}}}}});
  check(Introduce{.prompt = {1}});
  check(RunDecode{.rows = {{.ticket = {1, 1}, .news = {4}}}});
}

TEST(Orders, AbsurdCountsAllocateNothing) {
  ByteWriter writer;
  writer.write<std::uint64_t>(1);
  writer.write<std::uint32_t>(0xffffffff);
  EXPECT_FALSE(parse<Tokens>(writer.bytes()));
  EXPECT_FALSE(parse<Stats>(std::span(writer.bytes()).subspan(8)));
}

}  // namespace
}  // namespace switchyard::pool
