// The parts of the engine by themselves: records, addresses, plans, deadlines, counters.
#include <map>
#include <random>

#include "transfer/arrival_log.h"
#include "transfer/control_record.h"
#include "transfer/counter_table.h"
#include "transfer/deadline_heap.h"
#include "transfer/engine_core.h"
#include "transfer/support.h"
#include "transfer/write_plan.h"

namespace switchyard::testing {
namespace {

using namespace transfer;

PeerAddress sample_address() {
  PeerAddress address;
  address.engine_id = {1, 2};
  address.epoch = 3;
  address.control_host = "10.0.0.1";
  address.control_port = 4567;
  address.rails = {{"net", {std::byte{1}, std::byte{2}}}, {"shm", {}}};
  return address;
}

TEST(PeerAddress, SurvivesTheWireAndNothingElseDoes) {
  const PeerAddress address = sample_address();
  const auto bytes = address.serialize();
  auto parsed = PeerAddress::parse(bytes);
  ASSERT_TRUE(parsed);
  EXPECT_EQ(*parsed, address);
  for (std::size_t length = 0; length < bytes.size(); ++length) {
    auto cut = PeerAddress::parse(std::span(bytes).first(length));
    ASSERT_FALSE(cut);
    EXPECT_EQ(cut.error().code, ErrorCode::corrupt);
  }
  auto longer = bytes;
  longer.push_back(std::byte{0});
  EXPECT_FALSE(PeerAddress::parse(longer));
  EXPECT_FALSE(PeerAddress::parse(std::vector<std::byte>(PeerAddress::kMaxBytes + 1)));
}

TEST(RegionKey, SurvivesTheWireAndNothingElseDoes) {
  const RegionKey key{{1, 2}, 3, 4096, {{0x7f00'0000, 99}, {0, 100}}};
  const auto bytes = key.serialize();
  auto parsed = RegionKey::parse(bytes);
  ASSERT_TRUE(parsed);
  EXPECT_EQ(*parsed, key);
  for (std::size_t length = 0; length < bytes.size(); ++length) {
    EXPECT_FALSE(RegionKey::parse(std::span(bytes).first(length)));
  }
  // As many rails as an engine may have.
  RegionKey wide = key;
  wide.rails.resize(64);
  EXPECT_EQ(RegionKey::parse(wide.serialize()), wide);
  RegionKey wraps = key;
  wraps.rails[0].address = ~std::uint64_t{0};
  EXPECT_FALSE(RegionKey::parse(wraps.serialize())) << "it would run over the end of memory";
}

TEST(ControlRecord, EveryKindSurvivesTheWire) {
  const std::vector<std::byte> body(10, std::byte{7});
  for (const Record& record :
       {Record{Hello{sample_address(), {5, 6}, 7, 8, 9}}, Record{Welcome{1, 2}},
        Record{Reject{Reject::Why::exhausted, "full"}}, Record{Heartbeat{}}, Record{Message{11, body}},
        Record{Message{12, {}}}, Record{MessageAck{13}}, Record{Goodbye{"bye"}}}) {
    std::vector<std::byte> bytes;
    append_record(bytes, record);
    auto header = parse_header(bytes, kMaxHelloBytes);
    ASSERT_TRUE(header && *header);
    EXPECT_EQ((*header)->type, record.index());
    const auto payload = std::span<const std::byte>(bytes).subspan(kRecordHeaderBytes);
    ASSERT_EQ((*header)->payload_bytes, payload.size());
    auto parsed = parse_record((*header)->type, payload);
    ASSERT_TRUE(parsed);
    std::vector<std::byte> again;
    append_record(again, *parsed);
    EXPECT_EQ(again, bytes);
    if (!std::holds_alternative<Message>(record)) {
      for (std::size_t length = 0; length < payload.size(); ++length) {
        EXPECT_FALSE(parse_record((*header)->type, payload.first(length)));
      }
    }
    EXPECT_FALSE(*parse_header(std::span(bytes).first(kRecordHeaderBytes - 1), 0)) << "not whole yet";
  }
  EXPECT_FALSE(parse_record(200, {}));
}

// Replays a plan; what every byte of the target gets must be what the page lists say.
TEST(WritePlan, CutsAndJoinsWithoutLosingAByte) {
  std::mt19937 random(3);
  for (int round = 0; round < 200; ++round) {
    const std::uint64_t page = 1 + random() % 50, pages = 1 + random() % 40, limit = 1 + random() % 200;
    auto state = std::make_shared<Region::State>();
    state->bytes = 100 + 64 * 50;
    PagedWrite write;
    write.source = Region(state);
    write.target.bytes = 100 + 64 * 50;
    write.page_bytes = page;
    write.source_stride = page + random() % 3 / 2 * (50 - page);
    write.target_stride = page;
    write.source_offset = random() % 100;
    write.target_offset = random() % 100;
    std::vector<std::uint32_t> targets(64);
    for (std::uint32_t i = 0; i < 64; ++i) targets[i] = i;
    if (round % 3 == 0) std::shuffle(targets.begin(), targets.end(), random);
    std::map<std::uint64_t, std::uint64_t> expected;
    for (std::uint64_t i = 0; i < pages; ++i) {
      write.source_pages.push_back(round % 2 == 0 ? i : random() % 64);
      write.target_pages.push_back(targets[i]);
      for (std::uint64_t b = 0; b < page; ++b) {
        expected[write.target_offset + targets[i] * write.target_stride + b] =
            write.source_offset + write.source_pages[i] * write.source_stride + b;
      }
    }
    auto plan = WritePlan::of(write);
    ASSERT_TRUE(plan) << plan.error().message;
    std::map<std::uint64_t, std::uint64_t> seen;
    while (!plan->finished()) {
      const auto run = plan->peek(limit);
      ASSERT_GT(run.bytes, 0u);
      ASSERT_LE(run.bytes, limit);
      const auto before = plan->position();
      plan->take(run);
      if (random() % 4 == 0) {
        plan->seek(before);
        continue;
      }
      for (std::uint64_t b = 0; b < run.bytes; ++b) {
        ASSERT_TRUE(seen.emplace(run.target_offset + b, run.source_offset + b).second) << "written twice";
      }
    }
    ASSERT_EQ(seen, expected);
  }
}

TEST(WritePlan, LengthsBeyondFourGibibytesStayWhole) {
  constexpr std::uint64_t kBytes = (std::uint64_t{9} << 30) + 5;
  auto state = std::make_shared<Region::State>();
  state->bytes = kBytes + 3;
  Write write;
  write.source = Region(state);
  write.source_offset = 3;
  write.target.bytes = kBytes;
  write.bytes = kBytes;
  auto plan = WritePlan::of(write);
  ASSERT_TRUE(plan);
  EXPECT_EQ(plan->bytes(), kBytes);
  std::uint64_t total = 0;
  while (!plan->finished()) {
    const auto run = plan->peek(64 << 20);
    ASSERT_EQ(run.target_offset, total);
    ASSERT_EQ(run.source_offset, total + 3);
    total += run.bytes;
    plan->take(run);
  }
  EXPECT_EQ(total, kBytes);
}

TEST(DeadlineHeap, FiresInOrderWhateverIsChanged) {
  std::mt19937 random(9);
  DeadlineHeap heap(100);
  std::map<std::uint32_t, TimePoint> model;
  for (int i = 0; i < 10'000; ++i) {
    const std::uint32_t id = random() % 100;
    if (random() % 3 == 0) {
      heap.remove(id);
      model.erase(id);
    } else {
      const TimePoint when{Nanos(random() % 1000)};
      heap.set(id, when);
      model[id] = when;
    }
    TimePoint least = TimePoint::max();
    for (const auto& [key, when] : model) least = std::min(least, when);
    ASSERT_EQ(heap.next(), least);
    if (random() % 10 == 0 && !model.empty()) {
      const std::uint32_t due = heap.take_due(least);
      ASSERT_EQ(model.at(due), least);
      model.erase(due);
    }
  }
  EXPECT_EQ(heap.take_due(TimePoint{Nanos(-1)}), kNoIndex);
}

// A receiver may have counted all that a sender can have under way: then it confirms the oldest, however few
// it has not confirmed.
TEST(ArrivalLog, NeverKeepsBackWhatItsSenderWaitsFor) {
  std::mt19937 random(7);
  for (int round = 0; round < 200; ++round) {
    std::vector<ArrivalRecord> records(kArrivalWindow);
    CounterTable counters(1);
    const auto counter = *counters.make();
    ArrivalLog log;
    log.open(records.data(), 1);
    ArrivalNumbers numbers;
    std::vector<std::uint32_t> under_way;
    for (int arrivals = 0; arrivals < 3000; ++arrivals) {
      while (numbers.has_room()) {
        under_way.push_back(numbers.take());
        numbers.end(under_way.back(), true);
      }
      ASSERT_FALSE(under_way.empty()) << round << ": all " << arrivals << " have arrived";
      // Mostly among the last few: the first ones fall far behind.
      const std::size_t last = under_way.size() - 1;
      const std::size_t at =
          random() % 16 == 0 ? random() % (last + 1) : last - random() % std::min<std::size_t>(last + 1, 4);
      const std::uint32_t number = under_way[at];
      under_way.erase(under_way.begin() + static_cast<std::ptrdiff_t>(at));
      records[number % kArrivalWindow] = {
          .session = 1, .number = 2u << 30 | number, .slot = counter.slot, .generation = counter.generation};
      ASSERT_EQ(log.arrival(arrival_immediate(0, ArrivalKind::record, number), counters),
                ArrivalLog::Outcome::counted);
      if (!log.confirms_now()) continue;
      for (const std::uint16_t each : log.unconfirmed()) numbers.confirm(each);
      log.confirmed();
    }
    EXPECT_EQ(counters.arrived(counter), 3000u);
  }
}

TEST(CounterTable, ArrivalsRaceWithArmingAndNothingIsLost) {
  CounterTable table(4);
  for (int round = 0; round < 300; ++round) {
    auto name = table.make();
    ASSERT_TRUE(name);
    constexpr int kArrivals = 50;
    std::thread worker([&] {
      for (int i = 0; i < kArrivals; ++i) {
        EXPECT_TRUE(table.arrival(*name));
      }
    });
    ASSERT_TRUE(table.expect(*name, kArrivals, TimePoint::max(), [](const Status&) {}));
    worker.join();
    std::vector<CounterTable::Fired> fired;
    table.take_fired(fired);
    ASSERT_EQ(fired.size(), 1u);
    EXPECT_TRUE(fired[0].second);
    EXPECT_EQ(table.arrived(*name), kArrivals);
    table.free(*name);
    EXPECT_FALSE(table.arrival(*name));
  }
  EXPECT_EQ(table.used(), 0u);
}

}  // namespace
}  // namespace switchyard::testing
