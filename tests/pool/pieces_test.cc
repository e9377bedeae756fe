// Pieces of an instance by themselves.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <condition_variable>
#include <cstring>
#include <mutex>

#include "base/files.h"
#include "pool/fake_model.h"
#include "pool/image_mappings.h"
#include "pool/instance.h"
#include "pool/instance_memory.h"
#include "pool/kv_mover.h"
#include "pool/outbox.h"
#include "pool/trace.h"

namespace switchyard::pool {
namespace {

constexpr auto kLimit = std::chrono::seconds(60);

TEST(Trace, IsWrittenToFilesOnly) {
  const auto directory = temporary_beside(std::filesystem::temp_directory_path() / "switchyard-trace");
  std::filesystem::create_directories(directory);
  EXPECT_EQ(Trace::open(directory).error().code, ErrorCode::io);
  const auto pipe = directory / "pipe";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_EQ(Trace::open(pipe).error().code, ErrorCode::invalid);
  EXPECT_TRUE(Trace::open(directory / "trace.jsonl"));
  for (const char* mine : {"models:\n", "GGUF", "{"}) {
    ASSERT_TRUE(replace_file(directory / "mine", mine));
    EXPECT_EQ(Trace::open(directory / "mine").error().code, ErrorCode::invalid);
    EXPECT_EQ(read_file(directory / "mine", 100).value(), mine);
  }
  ASSERT_TRUE(replace_file(directory / "older", "{\"t\":0.1,\"event\":\"turn\"}\n"));
  EXPECT_TRUE(Trace::open(directory / "older"));
  std::filesystem::remove_all(directory);
}

TEST(ImageMappings, AreKeptWhileTheirImagesAreThere) {
  ImageMappings mappings(open_fake_image);
  auto memory = fake_shared_image({.salt = 5});
  const auto name = memory.name();
  const auto first = mappings.open(name);
  ASSERT_TRUE(first) << first.error().message;
  EXPECT_EQ(*mappings.open(name), *first) << "mapped again";
  EXPECT_TRUE(mappings.still_there(name));
  memory.discard();
  EXPECT_FALSE(mappings.still_there(name));
  SharedMemoryName unknown = name;
  ++unknown.inode;
  EXPECT_EQ(mappings.open(unknown).error().code, ErrorCode::not_found);
  EXPECT_FALSE(mappings.still_there(unknown));
}

TEST(ImageMappings, AreBounded) {
  ImageMappings mappings(open_fake_image);
  std::vector<SharedMemory> memories;
  for (std::size_t i = 0; i <= ImageMappings::kMost; ++i) {
    memories.push_back(fake_shared_image({.salt = i + 1}));
    ASSERT_TRUE(mappings.open(memories.back().name()));
    ASSERT_TRUE(mappings.open(memories.front().name())) << "used all the time";
  }
  EXPECT_TRUE(mappings.still_there(memories.front().name()));
  EXPECT_FALSE(mappings.still_there(memories[1].name())) << "the one that was used least lately";
  EXPECT_TRUE(mappings.still_there(memories[2].name()));
}

TEST(Outbox, PutsTokensTogetherWhileTheChannelIsFullAndKeepsTheOrder) {
  bool full = true;
  std::vector<std::pair<OrderType, std::vector<std::byte>>> sent;
  Outbox outbox([&](OrderType type, std::span<const std::byte> payload) -> Status {
    if (full) return fail(ErrorCode::exhausted, "full");
    sent.emplace_back(type, std::vector(payload.begin(), payload.end()));
    return {};
  });
  const auto tokens = [](std::uint64_t job, std::uint64_t id, std::int32_t token, RowOutcome outcome) {
    Tokens message{.job = job};
    message.entries.push_back({.ticket = {id, 1}, .tokens = {{.token = token}}, .outcome = outcome});
    return message;
  };
  outbox.report(Released{{5, 1}});
  for (int i = 0; i < 10; ++i) {
    outbox.report(tokens(1, 7, i, RowOutcome::running));
    outbox.report(tokens(1, 8, i, i == 9 ? RowOutcome::length : RowOutcome::running));
  }
  EXPECT_EQ(outbox.unreported_tokens(), 10u);
  outbox.report(JobEnded{.job = 1});
  outbox.report(tokens(2, 7, 10, RowOutcome::running));
  EXPECT_TRUE(outbox.flush());
  full = false;
  EXPECT_FALSE(outbox.flush());
  EXPECT_EQ(outbox.unreported_tokens(), 0u);
  ASSERT_EQ(sent.size(), 4u);
  EXPECT_EQ(sent[0].first, OrderType::released);
  EXPECT_EQ(sent[2].first, OrderType::job_ended);
  EXPECT_EQ(sent[3].first, OrderType::tokens);
  const auto together = parse<Tokens>(sent[1].second);
  ASSERT_TRUE(together);
  ASSERT_EQ(together->entries.size(), 2u);
  ASSERT_EQ(together->entries[0].tokens.size(), 10u);
  EXPECT_EQ(together->entries[0].tokens[9].token, 9);
  EXPECT_EQ(together->entries[1].outcome, RowOutcome::length);
}

class Memory : public testing::Test, public InstanceMemory::Users {
 protected:
  void SetUp() override {
    auto engine = TransferEngine::open({.fabric = "shm"});
    ASSERT_TRUE(engine) << engine.error().message;
    engine_ = *std::move(engine);
    auto memory = InstanceMemory::create(*engine_, 64 << 10, 16 << 10);  // four slabs
    ASSERT_TRUE(memory) << memory.error().message;
    memory_ = *std::move(memory);
  }
  void TearDown() override {
    memory_.reset();
    engine_.reset();
  }
  bool may_move(std::size_t) const override { return movable_; }
  void moved(std::size_t block_bytes, const MovedBlocks& moved) override {
    EXPECT_EQ(block_bytes, 2048u);
    moved.apply(small_);
  }
  bool give_up(std::size_t block_bytes) override {
    if (kept_.empty() || (block_bytes != 0 && block_bytes != 2048)) return false;
    memory_->give_back(2048, std::span(&kept_.back(), 1));
    kept_.pop_back();
    return true;
  }
  void mark(BlockId block, int value) {
    std::memset(memory_->memory().data() + block_offset(block), value, 2048);
  }
  int marked(BlockId block) const {
    return std::to_integer<int>(memory_->memory()[block_offset(block) + 2047]);
  }

  std::unique_ptr<TransferEngine> engine_;
  std::unique_ptr<InstanceMemory> memory_;
  bool movable_ = true;
  std::vector<BlockId> small_;
  std::vector<BlockId> kept_;
};

TEST_F(Memory, EmptiesSlabsForAnotherShape) {
  ASSERT_TRUE(memory_->take(1536, 32, small_, *this));
  // One in four stays, all over the slabs.
  std::vector<BlockId> stay;
  for (std::size_t i = 0; i < small_.size(); ++i) {
    if (i % 4 == 0) {
      stay.push_back(small_[i]);
    } else {
      memory_->give_back(1536, std::span(&small_[i], 1));
    }
  }
  small_ = stay;
  for (std::size_t i = 0; i < small_.size(); ++i) mark(small_[i], static_cast<int>(i + 1));
  std::vector<BlockId> large;
  movable_ = false;
  EXPECT_EQ(memory_->take(16 << 10, 1, large, *this).error().code, ErrorCode::exhausted);
  movable_ = true;
  ASSERT_TRUE(memory_->take(16 << 10, 3, large, *this));
  EXPECT_EQ(memory_->take(16 << 10, 1, large, *this).error().code, ErrorCode::exhausted);
  for (std::size_t i = 0; i < small_.size(); ++i) EXPECT_EQ(marked(small_[i]), static_cast<int>(i + 1));
  memory_->give_back(1536, small_);
  memory_->give_back(16 << 10, large);
  EXPECT_EQ(memory_->used_slabs(), 0u);
}

TEST_F(Memory, WhatIsKeptForLaterGoesFirst) {
  ASSERT_TRUE(memory_->take(2048, 32, kept_, *this));
  std::vector<BlockId> large;
  ASSERT_TRUE(memory_->take(2048, 1, small_, *this));
  EXPECT_EQ(kept_.size(), 31u);
  ASSERT_TRUE(memory_->take(16 << 10, 3, large, *this));
  EXPECT_EQ(memory_->take(16 << 10, 1, large, *this).error().code, ErrorCode::exhausted);
  EXPECT_TRUE(kept_.empty());
}

TEST_F(Memory, RefusesWhatNeverFits) {
  EXPECT_EQ(memory_->take(17 << 10, 1, small_, *this).error().code, ErrorCode::invalid);
  EXPECT_EQ(memory_->take(2048, 33, small_, *this).error().code, ErrorCode::invalid);
  EXPECT_FALSE(InstanceMemory::create(*engine_, 100, 1000));
  EXPECT_FALSE(InstanceMemory::create(*engine_, 1024, 2048));
}

TEST(KvMover, CopiesInOrderAndTellsOfEachCopy) {
  std::vector<std::byte> device(8 * kBlockUnit, std::byte{1});
  std::vector<std::byte> host(8 * kBlockUnit);
  const auto stop = std::make_shared<std::atomic<bool>>(false);
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<int> done;
  const auto tell = [&](int number) {
    return [&, number] {
      const std::lock_guard lock(mutex);
      done.push_back(number);
      changed.notify_all();
    };
  };
  {
    KvMover mover(device, host);
    mover.add({.block_bytes = 100, .device = {1, 2}, .host = {5, 3}, .stop = stop, .done = tell(1)});
    mover.add({.out = false, .block_bytes = 2048, .device = {6}, .host = {4}, .stop = stop, .done = tell(2)});
    std::unique_lock lock(mutex);
    ASSERT_TRUE(changed.wait_for(lock, kLimit, [&] { return done.size() == 2; }));
    EXPECT_EQ(host[5 * kBlockUnit + 99], std::byte{1});
    EXPECT_EQ(host[5 * kBlockUnit + 100], std::byte{0});
    EXPECT_EQ(host[3 * kBlockUnit], std::byte{1});
    EXPECT_EQ(device[6 * kBlockUnit], std::byte{0});
    EXPECT_EQ(device[7 * kBlockUnit], std::byte{1});
    stop->store(true);
    lock.unlock();
    mover.add({.block_bytes = 100, .device = {1}, .host = {0}, .stop = stop, .done = tell(3)});
  }
  EXPECT_EQ(done, (std::vector{1, 2, 3}));
  EXPECT_EQ(host[0], std::byte{0});
}

}  // namespace
}  // namespace switchyard::pool
