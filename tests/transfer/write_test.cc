// Writes: bytes, counters, cancel, deadlines, limits; two engines in one process.
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <numeric>
#include <random>

#include "transfer/support.h"

namespace switchyard::testing {
namespace {

class Writes : public OnFabric {};
INSTANTIATE_TEST_SUITE_P(All, Writes, all_fabrics(), fabric_name);

TEST_P(Writes, BytesArriveAndAreCounted) {
  Side a = side(1 << 20), b = side(1 << 20);
  fill(a.bytes(), 7);
  auto counter = b.engine->make_counter();
  ASSERT_TRUE(counter);
  Outcome sent, counted;
  ASSERT_TRUE(counter->expect(1, soon(), counted.done()));
  Write write = whole(a, b);
  write.options.counter = counter->id();
  ASSERT_TRUE(a.engine->write(write, sent.done()));
  EXPECT_EQ(sent.word(), "ok");
  EXPECT_EQ(counted.word(), "ok");
  EXPECT_TRUE(filled(b.bytes(), 7));
  EXPECT_EQ(counter->arrived(), 1u);
}

TEST_P(Writes, OddSizesAtOddPlaces) {
  Side a = side(200'000), b = side(200'000);
  fill(a.bytes(), 1);
  std::uint64_t offset = 1;
  for (std::uint64_t bytes :
       {1, 2, 3, 7, 8, 63, 64, 65, 127, 128, 129, 1000, 4095, 4096, 4097, 16384, 65537}) {
    Write write = whole(a, b);
    write.source_offset = offset + 1;
    write.target_offset = offset;
    write.bytes = bytes;
    Outcome sent;
    ASSERT_TRUE(a.engine->write(write, sent.done()));
    ASSERT_EQ(sent.word(), "ok");
    for (std::uint64_t i = 0; i < bytes; ++i)
      ASSERT_EQ(b.memory[offset + i], pattern(1, offset + 1 + i)) << bytes;
    EXPECT_EQ(b.memory[offset + bytes], std::byte{0});
    offset += bytes + 3;
  }
}

TEST_P(Writes, LongWritesAreSplitAndCountOnce) {
  Side a = side(40 << 20), b = side(40 << 20);
  fill(a.bytes(), 3);
  auto counter = b.engine->make_counter();
  Outcome counted;
  ASSERT_TRUE(counter->expect(1, soon(), counted.done()));
  Write write = whole(a, b);
  write.options.counter = counter->id();
  ASSERT_TRUE(a.engine->write(write, {}));
  EXPECT_EQ(counted.word(), "ok");
  EXPECT_TRUE(filled(b.bytes(), 3));
  EXPECT_EQ(counter->arrived(), 1u);
  EXPECT_GT(a.engine->metrics().rails[0].work_requests, 1u);
}

TEST_P(Writes, EmptyWriteIsASignal) {
  Side a = side(64), b = side(64);
  auto counter = b.engine->make_counter();
  Outcome sent, counted;
  Write write = whole(a, b);
  write.source = {};
  write.bytes = 0;
  write.options.counter = counter->id();
  ASSERT_TRUE(a.engine->write(write, sent.done()));
  ASSERT_TRUE(counter->expect(1, soon(), counted.done()));
  EXPECT_EQ(sent.word(), "ok");
  EXPECT_EQ(counted.word(), "ok");
  write.options.counter.reset();
  Outcome nothing;
  ASSERT_TRUE(a.engine->write(write, nothing.done()));
  EXPECT_EQ(nothing.word(), "ok");
}

TEST_P(Writes, TenThousandPagesInRandomOrder) {
  constexpr std::uint64_t kPages = 10'000, kPage = 768, kStride = 1024;
  Side a = side(kPages * kPage), b = side(kPages * kStride + 100);
  fill(a.bytes(), 11);
  std::vector<std::uint32_t> from(kPages), to(kPages);
  std::iota(from.begin(), from.end(), 0);
  std::iota(to.begin(), to.end(), 0);
  std::mt19937 random(5);
  std::shuffle(from.begin(), from.end(), random);
  std::shuffle(to.begin(), to.end(), random);
  auto counter = b.engine->make_counter();
  Outcome sent, counted;
  PagedWrite write;
  write.source = a.region;
  write.source_stride = kPage;
  write.source_pages = from;
  write.peer = b.address();
  write.target = b.key();
  write.target_offset = 100;
  write.target_stride = kStride;
  write.target_pages = to;
  write.page_bytes = kPage;
  write.options.counter = counter->id();
  ASSERT_TRUE(counter->expect(1, soon(), counted.done()));
  ASSERT_TRUE(a.engine->write_pages(write, sent.done()));
  ASSERT_EQ(counted.word(), "ok");
  ASSERT_EQ(sent.word(), "ok");
  for (std::uint64_t i = 0; i < kPages; ++i) {
    const std::byte* target = b.memory.data() + 100 + to[i] * kStride;
    ASSERT_TRUE(std::equal(target, target + kPage, a.memory.data() + from[i] * kPage)) << i;
    ASSERT_EQ(target[kPage % kStride], std::byte{0});
  }
}

TEST_P(Writes, NeighbouringPagesAreJoined) {
  constexpr std::uint64_t kPages = 64, kPage = 1024;
  Side a = side(kPages * kPage), b = side(kPages * kPage);
  fill(a.bytes(), 2);
  PagedWrite write;
  write.source = a.region;
  write.source_stride = write.target_stride = write.page_bytes = kPage;
  write.peer = b.address();
  write.target = b.key();
  write.source_pages.resize(kPages);
  std::iota(write.source_pages.begin(), write.source_pages.end(), 0);
  write.target_pages = write.source_pages;
  Outcome sent;
  ASSERT_TRUE(a.engine->write_pages(write, sent.done()));
  ASSERT_EQ(sent.word(), "ok");
  EXPECT_TRUE(filled(b.bytes(), 2));
  EXPECT_EQ(a.engine->metrics().rails[0].work_requests, 1u);
}

TEST_P(Writes, CountersMayBeArmedBeforeBetweenAndAfter) {
  Side a = side(4096), b = side(4096);
  auto counter = b.engine->make_counter();
  Write write = whole(a, b);
  write.options.counter = counter->id();
  auto send_one = [&] {
    Outcome sent;
    ASSERT_TRUE(a.engine->write(write, sent.done()));
    ASSERT_EQ(sent.word(), "ok");
  };
  Outcome before, between, after;
  ASSERT_TRUE(counter->expect(1, soon(), before.done()));
  send_one();
  EXPECT_EQ(before.word(), "ok");
  send_one();
  ASSERT_TRUE(eventually([&] { return counter->arrived() == 2; }));
  ASSERT_TRUE(counter->expect(3, soon(), between.done()));
  EXPECT_FALSE(between.ready());
  send_one();
  EXPECT_EQ(between.word(), "ok");
  send_one();
  send_one();
  ASSERT_TRUE(eventually([&] { return counter->arrived() == 5; }));
  ASSERT_TRUE(counter->expect(4, soon(), after.done()));
  EXPECT_EQ(after.word(), "ok");
  EXPECT_EQ(counter->arrived(), 5u);
  EXPECT_EQ(before.calls() + between.calls() + after.calls(), 3);
}

TEST_P(Writes, AFreedCounterIsNotCountedForTheNext) {
  EngineOptions one;
  one.max_counters = 1;
  Side a = side(64), b = side(64, one);
  std::optional<Counter> counter = *b.engine->make_counter();
  EXPECT_EQ(b.engine->make_counter().error().code, ErrorCode::exhausted);
  const CounterId old = counter->id();
  counter.reset();
  auto next = b.engine->make_counter();
  ASSERT_TRUE(next);
  EXPECT_EQ(next->id().slot, old.slot);
  EXPECT_NE(next->id(), old);
  Write write = whole(a, b);
  write.options.counter = old;
  Outcome sent;
  ASSERT_TRUE(a.engine->write(write, sent.done()));
  EXPECT_EQ(sent.word(), "ok");
  EXPECT_TRUE(eventually([&] { return b.engine->metrics().stray_arrivals == 1; }));
  EXPECT_EQ(next->arrived(), 0u);
}

TEST_P(Writes, ExpectationsEndOnceWhateverHappens) {
  Side b = side(64);
  auto counter = b.engine->make_counter();
  Outcome late, withdrawn, freed;
  ASSERT_TRUE(counter->expect(1, monotonic_now() + std::chrono::milliseconds(5), late.done()));
  EXPECT_EQ(late.word(), "timed_out");
  ASSERT_TRUE(counter->expect(1, soon(), withdrawn.done()));
  EXPECT_EQ(counter->expect(1, soon(), [](const Status&) {}).error().code, ErrorCode::invalid);
  counter->cancel();
  EXPECT_EQ(withdrawn.word(), "cancelled");
  ASSERT_TRUE(counter->expect(1, soon(), freed.done()));
  *counter = Counter();
  EXPECT_EQ(freed.word(), "cancelled");
  EXPECT_EQ(late.calls() + withdrawn.calls() + freed.calls(), 3);
}

TEST_P(Writes, OutsideOfARegionFailsBeforeAnythingIsSent) {
  Side a = side(4096), b = side(4096);
  Write write = whole(a, b);
  write.target_offset = 1;
  EXPECT_EQ(a.engine->write(write, {}).error().code, ErrorCode::out_of_range);
  write.target_offset = ~std::uint64_t{0};
  EXPECT_EQ(a.engine->write(write, {}).error().code, ErrorCode::out_of_range);
  write.target_offset = 0;
  write.source_offset = 1;
  EXPECT_EQ(a.engine->write(write, {}).error().code, ErrorCode::out_of_range);
  PagedWrite pages;
  pages.source = a.region;
  pages.peer = b.address();
  pages.target = b.key();
  pages.source_stride = pages.target_stride = pages.page_bytes = 1024;
  pages.source_pages = {0, 1};
  pages.target_pages = {0, 4};
  EXPECT_EQ(a.engine->write_pages(pages, {}).error().code, ErrorCode::out_of_range);
  pages.target_stride = ~std::uint64_t{0} / 2;
  EXPECT_EQ(a.engine->write_pages(pages, {}).error().code, ErrorCode::out_of_range);
  pages.target_stride = 1024;
  pages.target_pages = {0};
  EXPECT_EQ(a.engine->write_pages(pages, {}).error().code, ErrorCode::invalid);
  EXPECT_EQ(a.engine->metrics().rails[0].work_requests, 0u);
  EXPECT_EQ(a.engine->metrics().transfers_submitted, 0u);
}

TEST_P(Writes, KeysAndCountersOfAnotherEpochAreDenied) {
  Side a = side(64), b = side(64), c = side(64);
  Write write = whole(a, b);
  write.target = c.key();
  EXPECT_EQ(a.engine->write(write, {}).error().code, ErrorCode::denied);
  write = whole(a, b);
  write.options.counter = CounterId{0, 0, 12345};
  EXPECT_EQ(a.engine->write(write, {}).error().code, ErrorCode::denied);
  write = whole(c, b);
  EXPECT_EQ(a.engine->write(write, {}).error().code, ErrorCode::invalid) << "a source of another engine";
}

TEST_P(Writes, AnUnregisteredTargetIsAnErrorAndTheEngineGoesOn) {
  Side a = side(4096), b = side(4096);
  std::vector<std::byte> more(4096);
  std::optional<Region> gone = *b.engine->register_region(more.data(), more.size());
  Write write = whole(a, b);
  write.target = gone->key();
  gone.reset();
  Outcome refused;
  ASSERT_TRUE(a.engine->write(write, refused.done()));
  EXPECT_EQ(refused.word(), "io");
  EXPECT_EQ(more, std::vector<std::byte>(4096));
  fill(a.bytes(), 9);
  // A fabric may have dropped its connection over the refusal; it comes back.
  EXPECT_TRUE(eventually([&] {
    Outcome fine;
    return a.engine->write(whole(a, b), fine.done()) && fine.word() == "ok";
  }));
  EXPECT_TRUE(filled(b.bytes(), 9));
}

// The receiver never hears of a counted transfer whose write was refused, and so confirms no number for it.
TEST_P(Writes, ARefusedCountedWriteHoldsUpNoOthers) {
  Side a = side(64), b = side(64);
  std::vector<std::byte> more(64);
  std::optional<Region> gone = *b.engine->register_region(more.data(), more.size());
  const auto counter = b.engine->make_counter();
  Write write = whole(a, b);
  write.options.counter = counter->id();
  Write to_gone = write;
  to_gone.target = gone->key();
  gone.reset();
  Outcome refused;
  ASSERT_TRUE(a.engine->write(to_gone, refused.done()));
  EXPECT_EQ(refused.word(), "io");
  // More than there are numbers at a time.
  for (int i = 0; i < 600; ++i) {
    Outcome fine;
    ASSERT_TRUE(a.engine->write(write, fine.done()));
    ASSERT_EQ(fine.word(), "ok") << i;
  }
  EXPECT_TRUE(eventually([&] { return counter->arrived() == 600; }));
}

// Each of its writes is refused; none of them is the path's fault.
TEST_P(Writes, ARefusedTransferOfManyWritesLeavesOthersAlone) {
  constexpr std::uint64_t kPages = 200, kPage = 512;
  Side a = side(kPages * kPage), b = side(kPages * kPage);
  std::vector<std::byte> more(kPages * kPage);
  std::optional<Region> gone = *b.engine->register_region(more.data(), more.size());
  PagedWrite pages;
  pages.source = a.region;
  pages.peer = b.address();
  pages.target = gone->key();
  pages.source_stride = pages.target_stride = pages.page_bytes = kPage;
  // Every other page, so that nothing is joined.
  for (std::uint32_t i = 0; i < kPages; i += 2) pages.source_pages.push_back(i);
  pages.target_pages = pages.source_pages;
  gone.reset();
  fill(a.bytes(), 5);
  std::vector<Outcome> refused(4), fine(4);
  for (std::size_t i = 0; i < fine.size(); ++i) {
    pages.options.priority = i % 2 == 0 ? Priority::bulk : Priority::latency;
    ASSERT_TRUE(a.engine->write_pages(pages, refused[i].done()));
    ASSERT_TRUE(a.engine->write(whole(a, b), fine[i].done()));
  }
  for (auto& each : refused) EXPECT_EQ(each.word(), "io");
  for (auto& each : fine) EXPECT_EQ(each.word(), "ok");
  EXPECT_TRUE(filled(b.bytes(), 5));
  EXPECT_EQ(more, std::vector<std::byte>(kPages * kPage));
  EXPECT_TRUE(eventually([&] { return a.engine->metrics().transfers_pending == 0; }));
  // Other rails end a connection over a refusal.
  if (const std::string rail = plain_fabric(GetParam()); rail == "shm" || rail == "sim") {
    EXPECT_EQ(a.engine->metrics().failovers, 0u);
  }
}

// The first pages of the target are gone, those that carry the announcement are there.
TEST_P(Writes, ATransferWithAHoleIsNotCounted) {
  if (plain_fabric(GetParam()) != "shm") GTEST_SKIP() << "other rails write through their own mapping";
  constexpr std::uint64_t kHole = 64 << 10, kPages = 60, kPage = 512;
  Side a = side(2 * kHole), b = side(64);
  void* const memory = mmap(nullptr, 2 * kHole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(memory, MAP_FAILED);
  const auto region = b.engine->register_region(memory, 2 * kHole);
  ASSERT_TRUE(region);
  ASSERT_EQ(mprotect(memory, kHole, PROT_NONE), 0);
  auto counter = b.engine->make_counter(), other = b.engine->make_counter();
  PagedWrite pages;
  pages.source = a.region;
  pages.peer = b.address();
  pages.target = region->key();
  pages.source_stride = pages.target_stride = 2048;
  pages.page_bytes = kPage;
  for (std::uint32_t i = 0; i < kPages; ++i) pages.source_pages.push_back(i);
  pages.target_pages = pages.source_pages;
  // Urgent: posted in several turns at once.
  pages.options = {.counter = counter->id(), .priority = Priority::latency};
  Outcome holed, fine, counted;
  ASSERT_TRUE(a.engine->write_pages(pages, holed.done()));
  EXPECT_EQ(holed.word(), "io");
  Write last = whole(a, b);
  last.bytes = 64;
  last.options.counter = other->id();
  ASSERT_TRUE(a.engine->write(last, fine.done()));
  EXPECT_EQ(fine.word(), "ok");
  ASSERT_TRUE(other->expect(1, soon(), counted.done()));
  EXPECT_EQ(counted.word(), "ok");
  EXPECT_EQ(counter->arrived(), 0u);
  EXPECT_EQ(a.engine->metrics().failovers, 0u);
  munmap(memory, 2 * kHole);
}

TEST_P(Writes, ToItself) {
  Side a = side(1 << 16);
  std::vector<std::byte> other(1 << 16);
  auto region = a.engine->register_region(other.data(), other.size());
  fill(a.bytes(), 4);
  auto counter = a.engine->make_counter();
  Outcome counted;
  Write write = whole(a, a);
  write.target = region->key();
  write.options.counter = counter->id();
  ASSERT_TRUE(a.engine->write(write, {}));
  ASSERT_TRUE(counter->expect(1, soon(), counted.done()));
  EXPECT_EQ(counted.word(), "ok");
  EXPECT_TRUE(filled(other, 4));
}

TEST_P(Writes, CancelInTheMiddleThenTheMemoryIsFree) {
  constexpr std::uint64_t kPages = 8'000, kPage = 2048;
  Side a = side(kPages * kPage), b = side(kPages * kPage);
  for (int round = 0; round < 6; ++round) {
    fill(a.bytes(), 100 + round);
    PagedWrite write;
    write.source = a.region;
    write.peer = b.address();
    write.target = b.key();
    write.source_stride = write.target_stride = write.page_bytes = kPage;
    // Every other page, so that nothing is joined.
    for (std::uint32_t i = 0; i < kPages; i += 2) write.source_pages.push_back(i);
    write.target_pages = write.source_pages;
    Outcome ended, drained;
    const std::uint64_t before = a.engine->metrics().rails[0].work_requests;
    auto transfer = a.engine->write_pages(write, ended.done());
    ASSERT_TRUE(transfer);
    ASSERT_TRUE(eventually([&] { return a.engine->metrics().rails[0].work_requests > before; }));
    transfer->cancel(drained.plain());
    ASSERT_EQ(drained.word(), "ok");
    ASSERT_TRUE(ended.ready()) << "Done comes before drained";
    // The memory on both sides has a new use at once.
    fill(b.bytes(), 200 + round);
    fill(a.bytes(), 0);
    Outcome flushed;
    Write last = whole(a, b);
    last.bytes = 1;
    last.target_offset = kPage;  // a page that the transfer did not touch
    ASSERT_TRUE(a.engine->write(last, flushed.done()));
    ASSERT_EQ(flushed.word(), "ok");
    b.memory[kPage] = pattern(200 + round, kPage);
    ASSERT_TRUE(filled(b.bytes(), 200 + round)) << "a byte landed after drained";
  }
}

TEST_P(Writes, CancelOfWhatHasEndedDrainsAtOnce) {
  Side a = side(64), b = side(64);
  Outcome sent, drained;
  auto transfer = a.engine->write(whole(a, b), sent.done());
  ASSERT_TRUE(transfer);
  EXPECT_EQ(sent.word(), "ok");
  transfer->cancel(drained.plain());
  EXPECT_EQ(drained.word(), "ok");
  EXPECT_EQ(sent.calls(), 1);
}

TEST_P(Writes, AFullQueueAnswersExhaustedAndRecovers) {
  EngineOptions small;
  small.max_transfers = 16;
  Side a = side(1 << 20, small), b = side(1 << 20);
  std::vector<Outcome> outcomes;
  bool refused = false;
  for (int i = 0; i < 10'000 && !refused; ++i) {
    Outcome outcome;
    auto transfer = a.engine->write(whole(a, b), outcome.done());
    if (transfer) {
      outcomes.push_back(outcome);
    } else {
      refused = true;
      EXPECT_EQ(transfer.error().code, ErrorCode::exhausted);
    }
  }
  EXPECT_TRUE(refused);
  for (auto& outcome : outcomes) EXPECT_EQ(outcome.word(), "ok");
  EXPECT_TRUE(eventually([&] { return a.engine->metrics().transfers_pending == 0; }));
  Outcome again;
  ASSERT_TRUE(a.engine->write(whole(a, b), again.done()));
  EXPECT_EQ(again.word(), "ok");
}

TEST_P(Writes, FromManyThreadsAtOnce) {
  constexpr int kThreads = 8, kEach = 200;
  Side a = side(kThreads * 1024), b = side(kThreads * 1024);
  fill(a.bytes(), 21);
  auto counter = b.engine->make_counter();
  Outcome counted;
  ASSERT_TRUE(counter->expect(kThreads * kEach, soon(), counted.done()));
  std::atomic<int> done{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      Write write = whole(a, b);
      write.source_offset = write.target_offset = t * 1024;
      write.bytes = 1024;
      write.options.counter = counter->id();
      for (int i = 0; i < kEach; ++i) {
        while (!a.engine->write(write, [&](const Status& status) { done += status ? 1 : 0; }))
          std::this_thread::yield();
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(counted.word(), "ok");
  EXPECT_TRUE(eventually([&] { return done == kThreads * kEach; }));
  EXPECT_TRUE(filled(b.bytes(), 21));
  EXPECT_EQ(counter->arrived(), kThreads * kEach);
}

TEST_P(Writes, BothWaysAtOnceFromTheStart) {
  for (int round = 0; round < 10; ++round) {
    Side a = side(1 << 16), b = side(1 << 16);
    std::vector<std::byte> in_a(1 << 16), in_b(1 << 16);
    auto region_a = a.engine->register_region(in_a.data(), in_a.size());
    auto region_b = b.engine->register_region(in_b.data(), in_b.size());
    fill(a.bytes(), 31);
    fill(b.bytes(), 32);
    Write there = whole(a, b), back = whole(b, a);
    there.target = region_b->key();
    back.target = region_a->key();
    Outcome one, two;
    ASSERT_TRUE(a.engine->write(there, one.done()));
    ASSERT_TRUE(b.engine->write(back, two.done()));
    EXPECT_EQ(one.word(), "ok");
    EXPECT_EQ(two.word(), "ok");
    EXPECT_TRUE(filled(in_b, 31));
    EXPECT_TRUE(filled(in_a, 32));
    EXPECT_EQ(a.engine->metrics().peers_connected, 1u);
    EXPECT_EQ(b.engine->metrics().peers_connected, 1u);
  }
}

TEST_P(Writes, DestroyedWithOperationsInFlight) {
  for (int round = 0; round < 5; ++round) {
    Side b = side(8 << 20);
    std::vector<Outcome> outcomes(20);
    {
      Side a = side(8 << 20);
      for (auto& outcome : outcomes) ASSERT_TRUE(a.engine->write(whole(a, b), outcome.done()));
    }
    for (auto& outcome : outcomes) {
      EXPECT_TRUE(outcome.ready()) << "every operation has ended when the engine is gone";
      EXPECT_EQ(outcome.calls(), 1);
    }
  }
}

TEST_P(Writes, FiftyEnginesComeAndGo) {
  Side hub = side(50 * 4096);
  for (int i = 0; i < 50; ++i) {
    Side leaf = side(4096);
    fill(leaf.bytes(), i);
    Write write = whole(leaf, hub);
    write.target_offset = i * 4096;
    Outcome sent, back;
    ASSERT_TRUE(leaf.engine->write(write, sent.done()));
    ASSERT_EQ(sent.word(), "ok") << i;
    Write answer;
    answer.source = hub.region;
    answer.peer = leaf.address();
    answer.target = leaf.key();
    answer.bytes = 64;
    ASSERT_TRUE(hub.engine->write(answer, back.done()));
    ASSERT_EQ(back.word(), "ok") << i;
  }
  for (int i = 0; i < 50; ++i) EXPECT_TRUE(filled(hub.bytes().subspan(i * 4096, 4096), i)) << i;
  EXPECT_TRUE(eventually([&] { return hub.engine->metrics().peers_lost == 50; }));
  EXPECT_EQ(hub.engine->metrics().peers_connected, 0u);
}

TEST_P(Writes, ToNobodyEndsSoonAndSaysWhy) {
  Side a = side(64);
  Write write;
  {
    Side b = side(64);
    write = whole(a, b);
  }
  Outcome sent;
  ASSERT_TRUE(a.engine->write(write, sent.done()));
  EXPECT_EQ(sent.word(), "peer_lost");
}

}  // namespace
}  // namespace switchyard::testing
