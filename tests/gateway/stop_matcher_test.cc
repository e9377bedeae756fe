#include "gateway/stop_matcher.h"

#include <gtest/gtest.h>

#include <random>

namespace switchyard::gateway {
namespace {

// What comes out when the text is pushed in the given pieces.
std::string run(const std::vector<std::string>& stops, const std::vector<std::string>& pieces,
                bool* matched = nullptr) {
  StopMatcher matcher(stops);
  std::string out;
  for (const auto& piece : pieces) out += matcher.push(piece);
  if (matched != nullptr) *matched = matcher.matched();
  if (!matcher.matched()) out += matcher.finish();
  return out;
}

TEST(StopMatcher, PassesTextThroughWithoutStops) { EXPECT_EQ(run({}, {"a", "", "b"}), "ab"); }

TEST(StopMatcher, HoldsBackOnlyWhatMayMatch) {
  StopMatcher matcher({"stop"});
  EXPECT_EQ(matcher.push("one st"), "one ");
  EXPECT_EQ(matcher.push("a"), "sta");
  EXPECT_EQ(matcher.push("sto"), "");
  EXPECT_EQ(matcher.push(""), "");
  EXPECT_EQ(matcher.push("sto"), "sto");
  EXPECT_EQ(matcher.push("p!"), "");
  EXPECT_TRUE(matcher.matched());
  EXPECT_EQ(matcher.push("more"), "");
}

TEST(StopMatcher, FindsAMatchThatBeginsInsideAFailedOne) {
  bool matched = false;
  EXPECT_EQ(run({"aab"}, {"a", "a", "a", "b", "c"}, &matched), "a");
  EXPECT_TRUE(matched);
}

TEST(StopMatcher, TheFirstToBeCompleteWins) {
  EXPECT_EQ(run({"abcd", "bc"}, {"xabcd"}), "xa");
  EXPECT_EQ(run({"bc", "abc"}, {"xabcd"}), "x");
}

// Cutting the text elsewhere changes nothing, and the result is what a plain search over the whole text
// gives.
TEST(StopMatcher, AgreesWithASearchOverTheWholeText) {
  std::mt19937 random(7);
  const auto word = [&](std::size_t most) {
    std::string text(1 + random() % most, 'a');
    for (char& c : text) c = static_cast<char>('a' + random() % 2);
    return text;
  };
  for (int round = 0; round < 20000; ++round) {
    std::vector<std::string> stops;
    for (std::size_t i = 0; i < 1 + random() % 3; ++i) stops.push_back(word(6));
    const std::string text = word(24);
    std::vector<std::string> pieces;
    for (std::size_t i = 0; i < text.size();) {
      const std::size_t count = 1 + random() % 5;
      pieces.push_back(text.substr(i, count));
      i += count;
    }
    std::string expected = text;
    for (std::size_t end = 1, done = 0; end <= text.size() && !done; ++end) {
      std::size_t longest = 0;
      for (const auto& stop : stops) {
        if (text.substr(0, end).ends_with(stop)) longest = std::max(longest, stop.size());
      }
      if (longest > 0) {
        expected = text.substr(0, end - longest);
        done = 1;
      }
    }
    ASSERT_EQ(run(stops, pieces), expected) << "text " << text;
  }
}

}  // namespace
}  // namespace switchyard::gateway
