#include "gateway/choice_text.h"

#include <gtest/gtest.h>

#include "gateway/toy_text.h"

namespace switchyard::gateway::testing {
namespace {

ChoiceText make(const std::vector<std::string>& stops) {
  return ChoiceText((*toy_text({}))->decoder(), stops, true);
}

void push(ChoiceText& text, std::int32_t token) { text.push({token, 0, {}}); }

TEST(ChoiceText, TokensComeWithTheTextTheyComplete) {
  auto text = make({"xyz"});
  push(text, kToyEuroHead);
  EXPECT_FALSE(text.has_text());
  push(text, 0xAC);
  auto delta = text.take();
  EXPECT_EQ(delta.text, "\xE2\x82\xAC");
  ASSERT_EQ(delta.tokens.size(), 2u);
  EXPECT_EQ(delta.tokens[1].text_offset, 0u);
  push(text, 'x');
  push(text, 'y');
  EXPECT_TRUE(text.take().tokens.empty());  // held back with their text
  push(text, '!');
  delta = text.take();
  EXPECT_EQ(delta.text, "xy!");
  ASSERT_EQ(delta.tokens.size(), 3u);
  EXPECT_EQ(delta.tokens[0].text_offset, 1u);
}

TEST(ChoiceText, ATokenThatBeginsBeforeTheStopIsNotCut) {
  auto text = make({"o wor"});
  push(text, kToyHello);
  push(text, kToyWorld);
  EXPECT_TRUE(text.stopped());
  const auto delta = text.take();
  EXPECT_EQ(delta.text, "Hell");
  ASSERT_EQ(delta.tokens.size(), 2u);
  EXPECT_FALSE(delta.tokens[0].cut);
  EXPECT_TRUE(delta.tokens[1].cut);
}

TEST(ChoiceText, TheEndGivesOutEverything) {
  auto text = make({"worlds"});
  push(text, kToyHello);
  push(text, kToyWorld);
  EXPECT_EQ(text.take().text, "Hello ");
  push(text, kToyEuroHead);
  text.finish();
  const auto delta = text.take();
  EXPECT_EQ(delta.text, "world\xEF\xBF\xBD");
  EXPECT_EQ(text.token_count(), 3u);
}

}  // namespace
}  // namespace switchyard::gateway::testing
