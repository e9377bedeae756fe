// Streams of events however they are cut, and with whatever is in them.
#include "event_stream.h"

#include <gtest/gtest.h>

#include "simulate/random.h"

namespace switchyard::bench {
namespace {

using namespace std::chrono_literals;

std::vector<std::string> events_of(std::string_view bytes, std::size_t cut) {
  EventStream stream;
  std::vector<std::string> events;
  for (std::size_t at = 0; at < bytes.size(); at += cut) {
    EXPECT_TRUE(
        stream.feed(bytes.substr(at, cut), [&](std::string_view data) { events.emplace_back(data); }));
  }
  return events;
}

TEST(EventStream, CutsMeanNothing) {
  const std::string bytes =
      ": a comment\n\ndata: one\n\ndata:two\r\n\r\nevent: x\nid: 7\ndata: a\ndata: b\n\n\n\nretry: 5\n\n"
      "data:\n\ndata: never ended";
  const std::vector<std::string> expected = {"one", "two", "a\nb", ""};
  for (std::size_t cut = 1; cut <= bytes.size(); ++cut) EXPECT_EQ(events_of(bytes, cut), expected) << cut;
}

TEST(EventStream, RefusesAnEventWithoutEnd) {
  EventStream stream;
  const std::string piece(100'000, 'x');
  Status fed = stream.feed("data: ", [](std::string_view) {});
  for (int i = 0; i < 11 && fed; ++i) fed = stream.feed(piece, [](std::string_view) {});
  ASSERT_FALSE(fed);
  EXPECT_EQ(fed.error().code, ErrorCode::corrupt);
  EventStream lines;
  fed = Status{};
  for (int i = 0; i < 11 && fed; ++i) {
    fed = lines.feed("data: " + piece + "\n", [](std::string_view) {});  // one event of many lines
  }
  EXPECT_FALSE(fed);
}

TEST(EventStream, TakesAnyBytes) {
  simulate::Random random(3);
  for (int round = 0; round < 200; ++round) {
    EventStream stream;
    TokenTimes tokens(16);
    std::string bytes;
    for (int i = 0; i < 400; ++i) {
      constexpr std::string_view kLikely = "data: {}[]\",:\n\r1choices";
      bytes +=
          random.below(3) == 0 ? static_cast<char>(random.bits()) : kLikely[random.below(kLikely.size())];
    }
    (void)stream.feed(bytes, [&](std::string_view data) { tokens.take(data, 1s); });
    EXPECT_LE(tokens.times().size(), 16u);
  }
}

TEST(TokenTimes, CountsIdsOrElseTexts) {
  TokenTimes tokens(100);
  tokens.take(R"({"choices":[{"text":"ab","token_ids":[5,6,7],"finish_reason":null}]})", 1s);
  tokens.take(R"({"choices":[{"text":"","token_ids":[],"finish_reason":null}]})", 2s);
  tokens.take(R"({"choices":[{"text":"c","finish_reason":null}]})", 3s);
  tokens.take(R"({"choices":[{"text":""}]})", 4s);
  tokens.take(R"({"choices":[{"delta":{"role":"assistant"}}]})", 4s);
  tokens.take(R"({"choices":[{"delta":{"content":"d"}}]})", 5s);
  EXPECT_EQ(tokens.times(), (std::vector<Nanos>{1s, 1s, 1s, 3s, 5s}));
  EXPECT_FALSE(tokens.finished());
  tokens.take(R"({"choices":[{"text":"","token_ids":[9],"finish_reason":"length"}]})", 6s);
  EXPECT_TRUE(tokens.finished());
  tokens.take(R"({"choices":[],"usage":{"completion_tokens":6}})", 7s);
  EXPECT_EQ(tokens.usage(), 6u);
  EXPECT_TRUE(tokens.error().empty());
}

TEST(TokenTimes, NoMoreThanWereAskedFor) {
  TokenTimes tokens(2);
  for (int i = 0; i < 3; ++i) tokens.take(R"({"choices":[{"token_ids":[1,2,3]}]})", 1s);
  EXPECT_EQ(tokens.times().size(), 2u);
}

TEST(TokenTimes, KeepsComplaints) {
  TokenTimes failed(2);
  failed.take(R"({"error":{"message":"an instance\ndied","type":"server_error"}})", 1s);
  EXPECT_EQ(failed.error(), "an instance died");
  TokenTimes junk(2);
  for (const char* text : {"[1]", "{", "\xff\xfe", "null", "{\"choices\":[3]}", "{\"choices\":{}}"})
    junk.take(text, 1s);
  EXPECT_NE(junk.error().find("no JSON object: [1]"), std::string::npos);
  EXPECT_TRUE(junk.times().empty());
  TokenTimes done(2);
  done.take("[DONE]", 1s);
  EXPECT_TRUE(done.finished());
}

TEST(ErrorMessage, IsTheServersOrTheText) {
  EXPECT_EQ(error_message(R"({"error":{"message":"too many"}})"), "too many");
  EXPECT_EQ(error_message("Bad\r\nGateway"), "Bad  Gateway");
  EXPECT_EQ(error_message(std::string(1000, 'x')).size(), 200u);
  EXPECT_EQ(error_message(R"({"error":"x"})"), R"({"error":"x"})");
}

}  // namespace
}  // namespace switchyard::bench
