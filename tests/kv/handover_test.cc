#include "kv/handover.h"

#include <gtest/gtest.h>

#include <cstring>
#include <future>
#include <random>
#include <vector>

#include "memory/arena.h"

namespace switchyard::kv {
namespace {

constexpr auto kLimit = std::chrono::seconds(30);

// An engine with a KV memory and tails of its own.
struct Side {
  explicit Side(const char* name)
      : engine(*TransferEngine::open({.name = name, .fabric = "net"})),
        pool(*Arena::create(256 << 10)),
        pool_region(*engine->register_region(pool.base(), pool.bytes())) {}

  std::unique_ptr<TransferEngine> engine;
  Arena pool;
  Region pool_region;
};

class HandOver : public testing::Test {
 protected:
  // A block is not a whole number of units.
  const Shape shape_{.layers = 3, .block_tokens = 16, .layer_bytes = 2500};
  Side from_{"from"};
  Side to_{"to"};
  PushSource source_{.pool = from_.pool_region, .blocks = {0, 17, 90}};
  Destination destination_{
      .pool = to_.pool_region.key(), .blocks = {200, 8, 101}, .tokens = 40, .chunk_tokens = 16};

  Result<std::shared_ptr<Push>> push(Push::Finished finished = [](const Status&, const PushReport&) {}) {
    return Push::create(*from_.engine, shape_, source_, to_.engine->address(), destination_,
                        monotonic_now() + kLimit, std::move(finished));
  }
};

TEST_F(HandOver, BytesLandInTheBlocksThatWereNamed) {
  std::mt19937 random(1);
  for (std::byte& byte : from_.pool.span()) byte = static_cast<std::byte>(random());
  auto counter = *to_.engine->make_counter();
  std::promise<bool> landed;
  ASSERT_TRUE(counter.expect(transfer_count(shape_, 40, 16), monotonic_now() + kLimit,
                             [&](const Status& status) { landed.set_value(status.has_value()); }));
  destination_.counter = counter.id();
  std::promise<bool> finished;
  auto pushed =
      push([&](const Status& status, const PushReport&) { finished.set_value(status.has_value()); });
  ASSERT_TRUE(pushed) << pushed.error().message;
  for (std::uint32_t chunk = 0; chunk < 3; ++chunk) {
    for (std::uint32_t layer = 0; layer < 3; ++layer) (*pushed)->layer_done(layer, chunk);
  }
  auto has_landed = landed.get_future();
  ASSERT_EQ(has_landed.wait_for(kLimit), std::future_status::ready);
  EXPECT_TRUE(has_landed.get());
  std::vector<std::byte> expected(to_.pool.bytes());
  for (std::size_t i = 0; i < 3; ++i) {
    std::memcpy(expected.data() + block_offset(destination_.blocks[i]),
                from_.pool.base() + block_offset(source_.blocks[i]), shape_.block_bytes());
  }
  EXPECT_EQ(0, std::memcmp(expected.data(), to_.pool.base(), expected.size()));
  auto has_finished = finished.get_future();
  ASSERT_EQ(has_finished.wait_for(kLimit), std::future_status::ready);
  EXPECT_TRUE(has_finished.get());
}

TEST_F(HandOver, DestinationsOutsideOfTheirRegionsAreRefused) {
  ASSERT_TRUE(push());
  const Destination good = destination_;
  const auto refused = [this, &good](auto&& change) {
    destination_ = good;
    change(destination_);
    const auto pushed = push();
    EXPECT_FALSE(pushed);
    return pushed ? ErrorCode::io : pushed.error().code;
  };
  // 256 units, of which a block takes 7.3: the last that fits is 248.
  EXPECT_EQ(refused([](Destination& d) { d.blocks[2] = 249; }), ErrorCode::out_of_range);
  EXPECT_EQ(refused([](Destination& d) { d.blocks[0] = UINT32_MAX; }), ErrorCode::out_of_range);
  EXPECT_EQ(refused([](Destination& d) { d.pool.bytes = 100; }), ErrorCode::out_of_range);
  EXPECT_EQ(refused([](Destination& d) { d.blocks.pop_back(); }), ErrorCode::invalid);
  EXPECT_EQ(refused([](Destination& d) { d.chunk_tokens = 20; }), ErrorCode::invalid);
  EXPECT_EQ(refused([](Destination& d) { d.tokens = 0; }), ErrorCode::invalid);
  destination_ = good;
  destination_.blocks[2] = 248;
  EXPECT_TRUE(push());
  source_.blocks[1] = 249;
  EXPECT_EQ(push().error().code, ErrorCode::out_of_range);
}

TEST_F(HandOver, DestinationsAreReadAsTheyWereWritten) {
  ByteWriter writer;
  destination_.write_to(writer);
  ByteReader reader(writer.bytes());
  const auto read = Destination::read_from(reader);
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_EQ(read->pool, destination_.pool);
  EXPECT_EQ(read->blocks, destination_.blocks);
  EXPECT_EQ(read->tokens, destination_.tokens);
  for (std::size_t size = 0; size < writer.bytes().size(); ++size) {
    ByteReader shorter(writer.bytes().first(size));
    EXPECT_FALSE(Destination::read_from(shorter));
  }
}

}  // namespace
}  // namespace switchyard::kv
