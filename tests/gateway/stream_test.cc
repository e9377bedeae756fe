// Clients that leave, clients that do not read, and the server's end.
#include <thread>

#include "gateway/fixture.h"

namespace switchyard::gateway::testing {
namespace {

class StreamTest : public GatewayTest {
 protected:
  static FakePlan endless(const pool::GenerationRequest&) {
    FakePlan plan;
    plan.tokens = byte_tokens("0123456789abcdef");
    plan.endless = true;
    return plan;
  }
  static FakePlan held(const pool::GenerationRequest&) {
    FakePlan plan;
    plan.tokens = byte_tokens("ab");
    plan.hold_after = 1;
    return plan;
  }
};

TEST_F(StreamTest, DisconnectCancelsWhileNothingIsWritten) {
  start({}, held);
  for (const char* more : {"", R"(, "stream": true)"}) {
    const auto before = generator->cancelled();
    HttpClient client(port);
    client.request("POST", "/v1/chat/completions", chat_body("x", more));
    ASSERT_TRUE(generator->wait_until([](const auto& fake) { return fake.active() == 1; }));
    client.close();
    EXPECT_TRUE(generator->wait_until(
        [&](const auto& fake) { return fake.cancelled() == before + 1 && fake.active() == 0; }));
  }
  EXPECT_TRUE(wait_for_metric("switchyard_client_disconnects_total", 2));
  EXPECT_TRUE(wait_for_metric("switchyard_http_requests_in_flight", 0));
}

TEST_F(StreamTest, ResetCancelsEveryChoice) {
  start({}, held);
  HttpClient client(port);
  client.request("POST", "/v1/chat/completions", chat_body("x", R"(, "n": 5, "stream": true)"));
  ASSERT_TRUE(generator->wait_until([](const auto& fake) { return fake.active() == 5; }));
  client.close(true);
  EXPECT_TRUE(
      generator->wait_until([](const auto& fake) { return fake.cancelled() == 5 && fake.active() == 0; }));
}

TEST_F(StreamTest, TwoHundredVanishingClients) {
  start({}, held);
  for (int round = 0; round < 2; ++round) {
    std::vector<std::unique_ptr<HttpClient>> clients;
    const std::size_t before = generator->submitted();
    for (int i = 0; i < 100; ++i) {
      clients.push_back(std::make_unique<HttpClient>(port));
      clients.back()->request("POST", "/v1/chat/completions",
                              chat_body("x", i % 2 == 0 ? R"(, "stream": true)" : ""));
    }
    ASSERT_TRUE(generator->wait_until([&](const auto& fake) { return fake.submitted() == before + 100; }));
    for (int i = 0; i < 100; ++i) clients[static_cast<std::size_t>(i)]->close(i % 3 == 0);
    EXPECT_TRUE(generator->wait_until([](const auto& fake) { return fake.active() == 0; }));
  }
  EXPECT_EQ(generator->cancelled(), 200u);
  EXPECT_TRUE(wait_for_metric("switchyard_http_connections", 1));
  EXPECT_TRUE(wait_for_metric("switchyard_http_requests_in_flight", 0));
  EXPECT_TRUE(wait_for_metric("switchyard_http_streams", 0));
}

TEST_F(StreamTest, AClientThatDoesNotReadIsDropped) {
  GatewayOptions options;
  options.max_output_bytes = 4096;
  options.max_queued_tokens = 64;
  options.send_buffer_bytes = 4096;
  start(options, endless);
  HttpClient slow(port, 2048);
  slow.request("POST", "/v1/completions",
               completion_body("x", R"(, "stream": true, "max_tokens": 2000, "logprobs": 20)"));
  EXPECT_TRUE(wait_for_metric("switchyard_slow_clients_dropped_total", 1));
  EXPECT_TRUE(generator->wait_until([](const auto& fake) { return fake.active() == 0; }));
  EXPECT_TRUE(wait_for_metric("switchyard_http_connections", 1));
}

TEST_F(StreamTest, AClientThatStopsReadingAtTheEndIsDroppedByTheWriteTimeout) {
  GatewayOptions options;
  options.max_output_bytes = 4096;
  options.send_buffer_bytes = 4096;
  options.write_timeout = std::chrono::milliseconds(100);
  start(options, endless);
  HttpClient slow(port, 2048);
  slow.request("POST", "/v1/completions",
               completion_body("x", R"(, "stream": true, "max_tokens": 1500, "logprobs": 20)"));
  EXPECT_TRUE(wait_for_metric("switchyard_slow_clients_dropped_total", 1));
}

TEST_F(StreamTest, ASlowClientLosesNothingAndHoldsUpNobody) {
  GatewayOptions options;
  options.max_output_bytes = 4096;
  options.send_buffer_bytes = 4096;
  start(options, endless);
  HttpClient slow(port, 2048);
  slow.request("POST", "/v1/completions", completion_body("x", R"(, "stream": true, "max_tokens": 1600)"));
  // All of it is made while the slow client has read nothing, and another client is served meanwhile.
  EXPECT_TRUE(generator->wait_until([](const auto& fake) { return fake.tokens_made() == 1600; }));
  EXPECT_EQ(complete("x", R"(, "max_tokens": 3)").json()["choices"][0]["text"], "012");
  std::string text;
  const auto response = slow.read_response();
  EXPECT_TRUE(response.complete);
  for (const auto& event : response.events()) {
    if (event != "[DONE]") text += nlohmann::json::parse(event)["choices"][0]["text"].get<std::string>();
  }
  ASSERT_EQ(text.size(), 1600u);
  for (std::size_t i = 0; i < text.size(); ++i) ASSERT_EQ(text[i], "0123456789abcdef"[i % 16]);
}

TEST_F(StreamTest, RequestsHaveADeadline) {
  GatewayOptions options;
  options.request_timeout = std::chrono::milliseconds(50);
  start(options, held);
  EXPECT_EQ(chat("x").status, 504);
  const auto stream = chat("x", R"(, "stream": true)");
  EXPECT_TRUE(stream.status == 200 || stream.status == 504);
  EXPECT_NE(stream.body.find("took too long"), std::string::npos);
  EXPECT_TRUE(
      generator->wait_until([](const auto& fake) { return fake.cancelled() == 2 && fake.active() == 0; }));
}

TEST_F(StreamTest, StopLetsRequestsEnd) {
  start({}, held);
  HttpClient stream(port);
  stream.request("POST", "/v1/completions", completion_body("x", R"(, "stream": true)"));
  HttpClient whole(port);
  whole.request("POST", "/v1/completions", completion_body("x"));
  HttpClient idle(port);
  EXPECT_EQ(idle.roundtrip("GET", "/").status, 200);
  ASSERT_TRUE(generator->wait_until([](const auto& fake) { return fake.active() == 2; }));
  std::thread stopping([&] { gateway->stop(monotonic_now() + std::chrono::seconds(60)); });
  EXPECT_TRUE(idle.wait_for_close());  // the stop has begun
  EXPECT_FALSE(HttpClient(port).connected());
  generator->release();
  EXPECT_EQ(stream.read_response().events().back(), "[DONE]");
  const auto response = whole.read_response();
  EXPECT_EQ(response.json()["choices"][0]["text"], "ab");
  EXPECT_EQ(response.headers.at("connection"), "close");
  stopping.join();
}

TEST_F(StreamTest, StopEndsWhatDoesNotEnd) {
  start({}, held);
  HttpClient stream(port);
  stream.request("POST", "/v1/completions", completion_body("x", R"(, "stream": true)"));
  ASSERT_EQ(stream.read_head().status, 200);
  HttpClient whole(port);
  whole.request("POST", "/v1/completions", completion_body("x"));
  HttpClient half(port);
  half.send("POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{");
  ASSERT_TRUE(generator->wait_until([](const auto& fake) { return fake.active() == 2; }));
  gateway->stop(monotonic_now() + std::chrono::milliseconds(20));
  std::string bytes;
  EXPECT_TRUE(stream.read_until("shutting down", bytes));
  EXPECT_EQ(whole.read_response().status, 503);
  EXPECT_TRUE(half.wait_for_close());
  EXPECT_TRUE(
      generator->wait_until([](const auto& fake) { return fake.cancelled() == 2 && fake.active() == 0; }));
}

TEST_F(StreamTest, TokensThatComeAfterTheEndAreHarmless) {
  start({}, endless);
  std::vector<std::unique_ptr<HttpClient>> clients;
  for (int i = 0; i < 20; ++i) {
    clients.push_back(std::make_unique<HttpClient>(port));
    clients.back()->request("POST", "/v1/completions",
                            completion_body("x", R"(, "stream": true, "n": 4, "max_tokens": 2000)"));
  }
  ASSERT_TRUE(generator->wait_until([](const auto& fake) { return fake.submitted() > 40; }));
  gateway.reset();
  EXPECT_TRUE(generator->wait_until([](const auto& fake) { return fake.active() == 0; }));
}

}  // namespace
}  // namespace switchyard::gateway::testing
