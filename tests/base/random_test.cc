#include "base/random.h"

#include <gtest/gtest.h>

#include <array>

namespace switchyard {
namespace {

TEST(Random, TwoDrawsDiffer) {
  std::array<std::byte, 32> one{}, two{};
  ASSERT_TRUE(fill_random(one));
  ASSERT_TRUE(fill_random(two));
  EXPECT_NE(one, two);
  EXPECT_NE(one, (std::array<std::byte, 32>{}));
  EXPECT_TRUE(fill_random({}));
}

}  // namespace
}  // namespace switchyard
