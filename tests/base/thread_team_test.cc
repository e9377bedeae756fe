#include "base/thread_team.h"

#include <gtest/gtest.h>

#include <vector>

namespace switchyard {
namespace {

TEST(ThreadTeam, EveryMemberRunsAndBarriersOrderPhases) {
  for (const std::uint32_t size : {1u, 2u, 5u}) {
    ThreadTeam team(size);
    EXPECT_EQ(team.size(), size);
    std::vector<std::uint32_t> first(size);
    std::vector<std::uint32_t> second(size);
    for (std::uint32_t round = 1; round <= 200; ++round) {
      team.run([&](std::uint32_t member) {
        first[member] = round;
        team.barrier();
        for (const std::uint32_t value : first) second[member] += value;
        team.barrier();
        first[member] = 0;
      });
    }
    for (const std::uint32_t total : second) EXPECT_EQ(total, size * 200 * 201 / 2);
  }
}

TEST(ThreadTeam, SharesCoverEverythingOnce) {
  for (std::uint32_t count = 0; count < 40; ++count) {
    for (std::uint32_t members = 1; members < 9; ++members) {
      std::uint32_t next = 0;
      for (std::uint32_t member = 0; member < members; ++member) {
        const Share part = share(count, member, members);
        EXPECT_EQ(part.first, next);
        EXPECT_LE(part.last - part.first, count / members + 1);
        next = part.last;
      }
      EXPECT_EQ(next, count);
    }
  }
}

}  // namespace
}  // namespace switchyard
