// What many transfers leave behind: nothing.
#include <atomic>
#include <fstream>

#include "transfer/support.h"

namespace switchyard::testing {
namespace {

std::size_t resident_bytes() {
  std::ifstream file("/proc/self/statm");
  std::size_t whole = 0, resident = 0;
  file >> whole >> resident;
  return resident * 4096;
}

// Sanitizers keep what is freed for a while, and are slow.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr std::uint64_t kTransfers = 20'000;
constexpr std::size_t kGrowth = 256 << 20;
#else
constexpr std::uint64_t kTransfers = 1'000'000;
constexpr std::size_t kGrowth = 4 << 20;
#endif

TEST(Soak, AMillionSmallTransfersLeaveMemoryAsItWas) {
  spdlog::set_level(spdlog::level::off);
  Side a = make_side("shm", 4096), b = make_side("shm", 4096);
  auto counter = b.engine->make_counter();
  ASSERT_TRUE(counter);
  std::atomic<std::uint64_t> done{0}, failed{0};
  const auto run = [&](std::uint64_t until) {
    for (std::uint64_t submitted = done; submitted < until;) {
      Write write{.source = a.region,
                  .source_offset = submitted % 4000,
                  .peer = b.address(),
                  .target = b.key(),
                  .target_offset = submitted % 4000,
                  .bytes = 8,
                  .options = {.counter = counter->id()}};
      auto sent = a.engine->write(std::move(write), [&](const Status& status) {
        if (!status) ++failed;
        ++done;
      });
      if (sent) {
        ++submitted;
      } else {
        ASSERT_EQ(sent.error().code, ErrorCode::exhausted);
        std::this_thread::yield();
      }
    }
    ASSERT_TRUE(eventually([&] { return done == until; }));
  };
  // The first ones bring everything to its size.
  run(kTransfers / 10);
  const std::size_t before = resident_bytes();
  run(kTransfers);
  EXPECT_LT(resident_bytes(), before + kGrowth);
  EXPECT_EQ(failed, 0u);
  EXPECT_TRUE(eventually([&] { return counter->arrived() == kTransfers; }));
  EXPECT_EQ(b.engine->metrics().repeated_arrivals, 0u);
  EXPECT_EQ(a.engine->metrics().transfers_pending, 0u);
}

}  // namespace
}  // namespace switchyard::testing
