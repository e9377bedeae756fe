// The client against a server that answers well, badly, late and not at all.
#include "replay.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <nlohmann/json.hpp>
#include <set>

#include "bench/fake_server.h"

namespace switchyard::bench {
namespace {

using namespace std::chrono_literals;
using testing::FakeServer;

simulate::Workload requests(std::size_t count, std::uint32_t tokens = 3) {
  simulate::Workload workload;
  workload.models = {"m"};
  for (std::size_t i = 0; i < count; ++i) {
    workload.requests.push_back({Nanos(1ms) * i, 0, static_cast<std::uint32_t>(5 + i), tokens});
  }
  return workload;
}

ReplayOptions options_for(const FakeServer& server) {
  return {.server = {"127.0.0.1", std::to_string(server.port())}, .drain = 20s, .silence_limit = 20s};
}

Replay run(const simulate::Workload& workload, const ReplayOptions& options) {
  auto result = replay(workload, options);
  EXPECT_TRUE(result) << result.error().message;
  return result ? *std::move(result) : Replay{};
}

// One request, answered like this.
ReplayRecord answered(FakeServer::Answer answer, Nanos silence = 20s) {
  FakeServer server([&](const std::string&, const std::string&) { return answer; });
  ReplayOptions options = options_for(server);
  options.silence_limit = silence;
  return run(requests(1), options).records.at(0);
}

TEST(Replay, AsksAsTheWorkloadSays) {
  std::mutex mutex;
  std::vector<nlohmann::json> bodies;
  FakeServer server([&](const std::string& target, const std::string& body) {
    const std::lock_guard lock(mutex);
    EXPECT_EQ(target, "/v1/completions");
    bodies.push_back(nlohmann::json::parse(body));
    return FakeServer::Answer{testing::good_stream(3)};
  });
  const Replay result = run(requests(20), options_for(server));
  ASSERT_EQ(bodies.size(), 20u);
  std::set<std::size_t> lengths;
  for (const auto& body : bodies) {
    EXPECT_EQ(body["model"], "m");
    EXPECT_EQ(body["max_tokens"], 3);
    EXPECT_EQ(body["stream"], true);
    EXPECT_EQ(body["ignore_eos"], true);
    lengths.insert(body["prompt"].size());
    for (const auto& token : body["prompt"]) EXPECT_TRUE(token.get<int>() >= 34 && token.get<int>() < 94);
  }
  EXPECT_EQ(lengths.size(), 20u);
  for (std::size_t i = 0; i < 20; ++i) {
    const ReplayRecord& record = result.records[i];
    EXPECT_EQ(record.end, ReplayEnd::ended) << record.error;
    EXPECT_EQ(record.status, 200);
    EXPECT_EQ(record.tokens.size(), 3u);
    EXPECT_GE(record.sent, Nanos(1ms) * i);
    EXPECT_TRUE(std::is_sorted(record.tokens.begin(), record.tokens.end()));
    EXPECT_GE(record.tokens.front(), record.sent);
    EXPECT_GE(record.over, record.tokens.back());
  }
  EXPECT_FALSE(result.interrupted);
}

TEST(Replay, TakesAnyCut) {
  FakeServer::Answer answer;
  for (const std::string& piece : testing::good_stream(3)) {
    for (const char byte : piece) answer.pieces.emplace_back(1, byte);
  }
  const ReplayRecord record = answered(answer);
  EXPECT_EQ(record.end, ReplayEnd::ended) << record.error;
  EXPECT_EQ(record.tokens.size(), 3u);
}

TEST(Replay, ABodyWithoutLengthEndsWithTheConnection) {
  const ReplayRecord record =
      answered({{"HTTP/1.1 200 OK\r\n\r\n", testing::token_event(2), testing::token_event(1, true)}});
  EXPECT_EQ(record.end, ReplayEnd::ended) << record.error;
  EXPECT_EQ(record.tokens.size(), 3u);
}

TEST(Replay, ShedIsNoFailure) {
  const ReplayRecord record =
      answered({{testing::whole(429, R"({"error":{"message":"the queue is full"}})", "Retry-After: 7\r\n")}});
  EXPECT_EQ(record.end, ReplayEnd::shed);
  EXPECT_EQ(record.status, 429);
  EXPECT_EQ(record.retry_after, 7);
  EXPECT_EQ(record.error, "the queue is full");
  EXPECT_EQ(answered({{testing::whole(503, R"({"error":{"message":"none","code":"no_place"}})")}}).end,
            ReplayEnd::shed);
}

TEST(Replay, FailuresSayWhy) {
  const auto expect = [](FakeServer::Answer answer, std::string_view why, int status) {
    const ReplayRecord record = answered(std::move(answer));
    EXPECT_EQ(record.end, ReplayEnd::failed);
    EXPECT_EQ(record.status, status) << record.error;
    EXPECT_NE(record.error.find(why), std::string::npos) << record.error;
  };
  expect({{testing::whole(404, R"({"error":{"message":"no such model"}})")}}, "404: no such model", 404);
  expect({{testing::whole(500, "oops")}}, "500: oops", 500);
  expect({{testing::whole(200, "no events")}}, "without its end", 200);
  expect({{"\x16\x03garbage\r\n\r\n"}}, "no answer", 0);
  expect({{}}, "closed the connection", 0);
  expect({{}, false, true}, "no answer", 0);
  expect({{testing::stream_head(), testing::chunk(testing::token_event(1))}}, "closed the connection", 200);
  expect({{testing::stream_head(), testing::chunk(testing::token_event(1)), "zz\r\n"}}, "broke off", 200);
  expect({{testing::stream_head(), testing::chunk("data: {\n\n"), testing::stream_end()}}, "no JSON", 200);
  expect({{testing::stream_head(),
           testing::chunk(testing::token_event(1) + "data: {\"error\":{\"message\":\"it died\"}}\n\n"),
           "0\r\n\r\n"}},
         "it died", 200);
}

TEST(Replay, AnEventWithoutEndIsCutOff) {
  FakeServer::Answer answer{{testing::stream_head(), testing::chunk("data: ")}};
  for (int i = 0; i < 40; ++i) answer.pieces.push_back(testing::chunk(std::string(65536, 'x')));
  answer.stall = true;
  const ReplayRecord record = answered(answer);
  EXPECT_EQ(record.end, ReplayEnd::failed);
  EXPECT_NE(record.error.find("larger than"), std::string::npos) << record.error;
}

TEST(Replay, TokensBeforeABreakAreKept) {
  const ReplayRecord record = answered({{testing::stream_head(), testing::chunk(testing::token_event(2))}});
  EXPECT_EQ(record.end, ReplayEnd::failed);
  EXPECT_EQ(record.tokens.size(), 2u);
}

TEST(Replay, SilenceHasALimit) {
  for (const bool head : {false, true}) {
    FakeServer::Answer answer{.stall = true};
    if (head) answer.pieces = {testing::stream_head(), testing::chunk(testing::token_event(1))};
    const ReplayRecord record = answered(answer, 50ms);
    EXPECT_EQ(record.end, ReplayEnd::failed);
    EXPECT_NE(record.error.find("nothing came in time"), std::string::npos) << record.error;
  }
}

TEST(Replay, WhatIsOpenWhenTheTimeIsUpHasFailed) {
  FakeServer server([](const std::string&, const std::string&) { return FakeServer::Answer{.stall = true}; });
  ReplayOptions options = options_for(server);
  options.drain = 50ms;
  const Replay result = run(requests(3), options);
  for (const ReplayRecord& record : result.records) {
    EXPECT_EQ(record.end, ReplayEnd::failed);
    EXPECT_EQ(record.error, "not done when the time was up");
  }
}

TEST(Replay, InterruptionKeepsWhatWasMeasured) {
  std::atomic<int> answers = 0;
  FakeServer server([&](const std::string&, const std::string&) {
    const bool first = answers++ == 0;
    return first ? FakeServer::Answer{testing::good_stream(3)} : FakeServer::Answer{.stall = true};
  });
  simulate::Workload workload = requests(3);
  workload.requests[2].time = 1h;
  ReplayOptions options = options_for(server);
  options.stop = [&] { return answers == 2; };
  const Replay result = run(workload, options);
  EXPECT_TRUE(result.interrupted);
  std::multiset<ReplayEnd> ends;
  for (const ReplayRecord& record : result.records) ends.insert(record.end);
  EXPECT_EQ(ends.count(ReplayEnd::unsent), 1u);
  EXPECT_GE(ends.count(ReplayEnd::open), 1u);  // the first may not have ended yet
  EXPECT_EQ(ends.count(ReplayEnd::failed), 0u);
}

TEST(Replay, NobodyListens) {
  std::uint16_t port = 0;
  {
    FakeServer server([](const std::string&, const std::string&) { return FakeServer::Answer{}; });
    port = server.port();
  }
  const Replay result = run(requests(2), {.server = {"127.0.0.1", std::to_string(port)}});
  for (const ReplayRecord& record : result.records) {
    EXPECT_EQ(record.end, ReplayEnd::failed);
    EXPECT_EQ(record.status, 0);
    EXPECT_NE(record.error.find("cannot connect"), std::string::npos) << record.error;
  }
}

TEST(ServerAddress, IsReadOrExplained) {
  EXPECT_EQ(ServerAddress::parse("http://127.0.0.1:8000/")->port, "8000");
  EXPECT_EQ(ServerAddress::parse("localhost")->port, "80");
  EXPECT_EQ(ServerAddress::parse("http://[::1]:9")->host, "::1");
  EXPECT_EQ(ServerAddress::parse("https://x").error().code, ErrorCode::unsupported);
  for (const char* text : {"", "http://", "http://x:0", "http://x:99999", "http://x:1/v1", "http://a b",
                           "[::1", "http://me@x:1", "http://x:"}) {
    EXPECT_FALSE(ServerAddress::parse(text)) << text;
  }
}

TEST(HttpGet, GivesTheBodyOrTheReason) {
  FakeServer server([](const std::string& target, const std::string&) {
    return FakeServer::Answer{
        {target == "/good" ? testing::whole(200, "fine") : testing::whole(503, "not yet")}};
  });
  const auto address = *ServerAddress::parse(server.url());
  const auto endpoints = *resolve(address);
  EXPECT_EQ(*http_get(endpoints, address, "/good", "", 10s), "fine");
  EXPECT_NE(http_get(endpoints, address, "/bad", "", 10s).error().message.find("503: not yet"),
            std::string::npos);
}

TEST(Fit, NamesBecomeIds) {
  simulate::Workload workload;
  workload.models = {"a", "x", "b", "y", "z"};
  for (std::uint32_t i = 0; i < 5; ++i) workload.requests.push_back({Nanos(1s) * i, i, 10, 10});
  const std::vector<ServedModel> models = {{"b"}, {"c"}, {"a"}};
  const auto fitted = fit(workload, models, {.speed = 2, .seconds = 1.6});
  ASSERT_TRUE(fitted);
  EXPECT_EQ(fitted->workload.models, (std::vector<std::string>{"a", "b", "c"}));
  ASSERT_EQ(fitted->workload.requests.size(), 4u);
  const auto id = [&](std::size_t i) { return fitted->workload.models[fitted->workload.requests[i].model]; };
  EXPECT_EQ(id(0), "a");
  EXPECT_EQ(id(1), "b");  // x, in turn
  EXPECT_EQ(id(2), "b");
  EXPECT_EQ(id(3), "c");  // y
  EXPECT_EQ(fitted->workload.requests[3].time, Nanos(1500ms));
  EXPECT_FALSE(fit(workload, {}, {}));
  EXPECT_FALSE(fit(workload, models, {.speed = 0}));
  workload.requests.erase(workload.requests.begin());
  EXPECT_FALSE(fit(workload, models, {.seconds = 0.5}));
}

TEST(Fit, LengthsAreCut) {
  simulate::Workload workload;
  workload.models = {"a"};
  workload.requests = {{0ns, 0, 1000, 500}, {0ns, 0, 10, 5000}, {0ns, 0, 20, 20}, {0ns, 0, 0, 0}};
  const auto fitted = fit(workload, std::vector<ServedModel>{{"a", 100}}, {.max_tokens = 300});
  ASSERT_TRUE(fitted);
  EXPECT_EQ(fitted->shortened, 2u);
  for (const auto& request : fitted->workload.requests) {
    EXPECT_LE(request.input_tokens + request.output_tokens, 100u);
    EXPECT_GE(request.input_tokens, 1u);
    EXPECT_GE(request.output_tokens, 1u);
  }
  const auto tiny = fit(workload, std::vector<ServedModel>{{"a", 2}}, {.max_prompt = 1});
  EXPECT_EQ(tiny->workload.requests[0].input_tokens, 1u);
}

TEST(Models, AreReadFromTheList) {
  const auto models = parse_models(R"({"data":[{"id":"a","max_model_len":8192},{"id":"b"},{"x":1},3]})");
  ASSERT_TRUE(models);
  ASSERT_EQ(models->size(), 2u);
  EXPECT_EQ((*models)[0].max_tokens, 8192u);
  for (const char* text : {"", "[]", "{\"data\":{}}", "{\"data\":[]}"})
    EXPECT_FALSE(parse_models(text)) << text;
}

TEST(CompletionBody, EscapesNames) {
  const std::string body = completion_body({0ns, 0, 3, 2}, "a\"b\\c\n", 1);
  EXPECT_EQ(nlohmann::json::parse(body)["model"], "a\"b\\c\n");
  EXPECT_NE(body, completion_body({0ns, 0, 3, 2}, "a\"b\\c\n", 2));
}

}  // namespace
}  // namespace switchyard::bench
