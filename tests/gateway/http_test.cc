// HTTP itself: routes, keys, framing, limits, and clients that do not behave.
#include "gateway/fixture.h"

namespace switchyard::gateway::testing {
namespace {

class HttpTest : public GatewayTest {
 protected:
  // Sends bytes as they are; the answer, if any.
  ClientResponse raw(std::string_view bytes) {
    HttpClient client(port);
    client.send(bytes);
    return client.read_response();
  }
};

TEST_F(HttpTest, AnswersOnEveryRoute) {
  start();
  EXPECT_EQ(http(port, "GET", "/").json()["name"], "Switchyard");
  const auto models = http(port, "GET", "/v1/models").json();
  ASSERT_EQ(models["data"].size(), 2u);
  EXPECT_EQ(models["data"][0]["id"], "toy");
  EXPECT_EQ(models["data"][0]["created"], 1700000000);
  EXPECT_EQ(http(port, "GET", "/v1/models/toy").json()["id"], "toy");
  EXPECT_EQ(http(port, "GET", "/v1/models/org/other").json()["id"], "org/other");
  EXPECT_EQ(http(port, "GET", "/v1/models/org%2Fother?x=1").json()["id"], "org/other");
  const auto missing = http(port, "GET", "/v1/models/nothing");
  EXPECT_EQ(missing.status, 404);
  EXPECT_EQ(missing.json()["error"]["code"], "model_not_found");
  EXPECT_NE(missing.json()["error"]["message"].get<std::string>().find("'toy'"), std::string::npos);
}

TEST_F(HttpTest, UnknownModelsAndRoutesAre404) {
  start();
  const auto model = http(port, "POST", "/v1/completions", R"({"model": "gpt-9", "prompt": "x"})");
  EXPECT_EQ(model.status, 404);
  EXPECT_EQ(model.json()["error"]["param"], "model");
  EXPECT_EQ(http(port, "POST", "/v1/completions", R"({"prompt": "x"})").json()["error"]["param"], "model");
  for (const char* path : {"/v1", "/v1/", "/v1/models/", "/nothing", "/v1/chat", "/v1/chat/completions/"}) {
    const auto response = http(port, "GET", path);
    EXPECT_EQ(response.status, 404) << path;
    EXPECT_EQ(response.json()["error"]["type"], "invalid_request_error");
  }
}

TEST_F(HttpTest, MethodsAreChecked) {
  start();
  const auto response = http(port, "GET", "/v1/chat/completions");
  EXPECT_EQ(response.status, 405);
  EXPECT_EQ(response.headers.at("allow"), "POST, OPTIONS");
  EXPECT_EQ(http(port, "DELETE", "/v1/models").status, 405);
  EXPECT_EQ(http(port, "OPTIONS", "/v1/models").status, 204);
  EXPECT_EQ(http(port, "OPTIONS", "*").status, 204);
  const auto head = http(port, "HEAD", "/v1/models");
  EXPECT_EQ(head.status, 200);
  EXPECT_GT(std::stoi(head.headers.at("content-length")), 10);
  EXPECT_EQ(http(port, "BREW", "/").status, 405);
}

TEST_F(HttpTest, KeysGuardTheApiAlone) {
  GatewayOptions options;
  options.api_keys = {"first", "second"};
  start(options);
  EXPECT_EQ(http(port, "GET", "/v1/models").status, 401);
  const auto wrong = http(port, "GET", "/v1/models", "", "Authorization: Bearer firs\r\n");
  EXPECT_EQ(wrong.status, 401);
  EXPECT_EQ(wrong.json()["error"]["code"], "invalid_api_key");
  EXPECT_EQ(wrong.headers.at("www-authenticate"), "Bearer");
  EXPECT_EQ(http(port, "GET", "/v1/models", "", "Authorization: Basic first\r\n").status, 401);
  EXPECT_EQ(http(port, "GET", "/v1/models", "", "Authorization: Bearer \r\n").status, 401);
  EXPECT_EQ(http(port, "GET", "/v1/models", "", "Authorization: Bearer second\r\n").status, 200);
  EXPECT_EQ(http(port, "GET", "/v1/models", "", "authorization: bearer first\r\n").status, 200);
  EXPECT_EQ(http(port, "GET", "/health").status, 200);
  EXPECT_EQ(http(port, "GET", "/metrics").status, 200);
}

TEST_F(HttpTest, HealthIsDeep) {
  start();
  auto health = http(port, "GET", "/health");
  EXPECT_EQ(health.status, 200);
  EXPECT_EQ(health.json()["status"], "ok");
  EXPECT_EQ(health.json()["instances"][0]["restarts"], 2);
  generator->set_state("restarting");
  health = http(port, "GET", "/health");
  EXPECT_EQ(health.status, 503);
  EXPECT_EQ(health.json()["models"][0]["ready"], false);
  EXPECT_EQ(health.json()["instances"][0]["detail"], "being restarted");
  EXPECT_EQ(health.json()["status"], "unavailable");
}

TEST_F(HttpTest, HealthIsGoodAsLongAsAModelCanBeServed) {
  start();
  generator->set_model("toy", pool::ModelState::failed, "no such file");
  auto health = http(port, "GET", "/health");
  EXPECT_EQ(health.status, 200);
  EXPECT_EQ(health.json()["status"], "degraded");
  EXPECT_EQ(health.json()["models"][0]["state"], "failed");
  EXPECT_EQ(health.json()["models"][0]["detail"], "no such file");
  EXPECT_EQ(health.json()["models"][1]["ready"], true);
  generator->set_model("org/other", pool::ModelState::preparing);
  health = http(port, "GET", "/health");
  EXPECT_EQ(health.status, 503);
  EXPECT_EQ(health.json()["status"], "unavailable");
  generator->change_models([](auto& models) { models.clear(); });
  EXPECT_EQ(http(port, "GET", "/health").status, 503);
}

TEST_F(HttpTest, MetricsCountRequestsAndTokens) {
  start();
  chat("say abc");
  chat("say abc", R"(, "stream": true)");
  http(port, "GET", "/nothing/with/a/long/name");
  const std::string text = http(port, "GET", "/metrics").body;
  for (const char* line :
       {R"(switchyard_http_requests_total{code="200",route="chat_completions"} 2)",
        R"(switchyard_http_requests_total{code="404",route="none"} 1)",
        R"(switchyard_completion_tokens_total{model="toy"} 6)",
        R"(switchyard_time_to_first_token_seconds_count{model="toy"} 2)",
        "switchyard_http_requests_in_flight 0", "switchyard_http_streams 0", "switchyard_pool_fake 42"}) {
    EXPECT_NE(text.find(line), std::string::npos) << line << "\n" << text;
  }
  EXPECT_EQ(text.find("long"), std::string::npos);  // clients do not make labels
}

TEST_F(HttpTest, KeepsConnectionsAlive) {
  start();
  HttpClient client(port);
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(client.roundtrip("POST", "/v1/completions", completion_body("say a")).status, 200);
    EXPECT_TRUE(client.roundtrip("POST", "/v1/completions", completion_body("say a", R"(, "stream": true)"))
                    .complete);
    EXPECT_EQ(client.roundtrip("GET", "/nothing").status, 404);
    EXPECT_EQ(client.roundtrip("GET", "/health").status, 200);
  }
  EXPECT_EQ(metric("switchyard_http_connections_total"), 2);
}

TEST_F(HttpTest, PipelinedRequestsAreAnsweredInOrder) {
  start();
  HttpClient client(port);
  std::string all;
  for (const char* text : {"one", "two", "three"}) {
    const std::string body = completion_body(std::string("say ") + text, R"(, "stream": true)");
    all += fmt::format("POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{}",
                       body.size(), body);
    all += "GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n";
  }
  client.send(all);
  for (const char* text : {"one", "two", "three"}) {
    std::string got;
    for (const auto& event : client.read_response().events()) {
      if (event != "[DONE]") got += nlohmann::json::parse(event)["choices"][0]["text"].get<std::string>();
    }
    EXPECT_EQ(got, text);
    EXPECT_EQ(client.read_response().json()["object"], "list");
  }
}

TEST_F(HttpTest, PipelinedGarbageEndsTheConnectionAfterTheAnswer) {
  start();
  HttpClient client(port);
  client.send("GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n\x01\x02 garbage\r\n\r\n");
  EXPECT_EQ(client.read_response().status, 200);
  EXPECT_EQ(client.read_response().status, 400);
  EXPECT_TRUE(client.wait_for_close());
}

TEST_F(HttpTest, PipelinedRequestsDuringAGenerationWait) {
  start({}, [](const auto&) {
    FakePlan plan;
    plan.tokens = byte_tokens("ab");
    plan.hold_after = 1;
    return plan;
  });
  HttpClient client(port);
  client.request("POST", "/v1/completions", completion_body("x"));
  ASSERT_TRUE(generator->wait_until([](const auto& fake) { return fake.tokens_made() == 1; }));
  client.send("GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n");
  generator->release();
  EXPECT_EQ(client.read_response().json()["choices"][0]["text"], "ab");
  EXPECT_EQ(client.read_response().json()["object"], "list");
}

TEST_F(HttpTest, ReadsChunkedBodies) {
  start();
  const std::string body = completion_body("say chunk");
  std::string message = "POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
  for (const char c : body) message += fmt::format("1;ext=1\r\n{}\r\n", c);
  EXPECT_EQ(raw(message + "0\r\nTrailer: x\r\n\r\n").json()["choices"][0]["text"], "chunk");
  EXPECT_EQ(
      raw("POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n").status,
      400);
}

TEST_F(HttpTest, SaysContinue) {
  start();
  HttpClient client(port);
  const std::string body = completion_body("say ok");
  client.send(fmt::format(
      "POST /v1/completions HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n",
      body.size()));
  EXPECT_EQ(client.read_response().status, 100);
  client.send(body);
  EXPECT_EQ(client.read_response().json()["choices"][0]["text"], "ok");
}

TEST_F(HttpTest, SpeaksHttp10) {
  start();
  EXPECT_EQ(raw("GET /v1/models HTTP/1.0\r\n\r\n").status, 200);
  const std::string body = completion_body("say old", R"(, "stream": true)");
  const auto response =
      raw(fmt::format("POST /v1/completions HTTP/1.0\r\nContent-Length: {}\r\n\r\n{}", body.size(), body));
  EXPECT_EQ(response.headers.count("transfer-encoding"), 0u);
  EXPECT_EQ(response.events().back(), "[DONE]");
}

TEST_F(HttpTest, RefusesBrokenRequests) {
  start();
  EXPECT_EQ(raw("GET /v1/models HTTP/1.1\r\n\r\n").status, 400);  // no Host
  EXPECT_EQ(raw("nonsense\r\n\r\n").status, 400);
  EXPECT_EQ(raw("GET / HTTP/3.0\r\nHost: x\r\n\r\n").status, 505);
  EXPECT_EQ(raw("POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n").status, 400);
  EXPECT_EQ(raw("POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nTransfer-Encoding: "
                "chunked\r\n\r\n{}")
                .status,
            400);
  EXPECT_EQ(
      raw("POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}")
          .status,
      415);
  EXPECT_EQ(raw("GET / HTTP/1.1\r\nHost: x\r\nBroken header\r\n\r\n").status, 400);
}

TEST_F(HttpTest, BodiesThatAreNotJsonAre400) {
  start();
  const auto error = http(port, "POST", "/v1/chat/completions", "{\"model\": toy}");
  EXPECT_EQ(error.status, 400);
  EXPECT_NE(error.json()["error"]["message"].get<std::string>().find("column 12"), std::string::npos)
      << error.body;
  EXPECT_EQ(http(port, "POST", "/v1/chat/completions", "").status, 400);
  EXPECT_EQ(http(port, "POST", "/v1/chat/completions", "{\"model\": \"\xFF\xFE\"}").status, 400);
  EXPECT_EQ(http(port, "POST", "/v1/chat/completions", std::string(4'000'000, '[')).status, 400);
  EXPECT_EQ(http(port, "POST", "/v1/chat/completions", std::string(3'000'000, '{')).status, 400);
}

TEST_F(HttpTest, TheTemplatesRefusalIs400) {
  start();
  const auto response = chat("refuse");
  EXPECT_EQ(response.status, 400);
  EXPECT_NE(response.json()["error"]["message"].get<std::string>().find("roles must alternate"),
            std::string::npos);
}

TEST_F(HttpTest, LargeBodiesAreRefusedAtOnce) {
  start();
  HttpClient announced(port);
  announced.send(
      "POST /v1/completions HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: "
      "104857600\r\n\r\n");
  EXPECT_EQ(announced.read_response().status, 413);

  // A client that sends all the same, and one that does not say how much, get their answer too.
  HttpClient sending(port);
  sending.send("POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 104857600\r\n\r\n");
  sending.send(std::string(104857600, 'x'));
  EXPECT_EQ(sending.read_response().status, 413);

  HttpClient chunked(port);
  chunked.send("POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
  const std::string chunk = "100000\r\n" + std::string(0x100000, 'x') + "\r\n";
  for (int i = 0; i < 12; ++i) chunked.send(chunk);
  EXPECT_EQ(chunked.read_response().status, 413);
}

TEST_F(HttpTest, HeaderBombsAreRefused) {
  start();
  EXPECT_EQ(raw("GET / HTTP/1.1\r\nHost: x\r\nX: " + std::string(100'000, 'x') + "\r\n\r\n").status, 431);
  std::string many = "GET / HTTP/1.1\r\nHost: x\r\n";
  for (int i = 0; i < 20'000; ++i) many += "A: b\r\n";
  EXPECT_EQ(raw(many + "\r\n").status, 431);
  EXPECT_EQ(raw("GET /" + std::string(100'000, 'a') + " HTTP/1.1\r\nHost: x\r\n\r\n").status, 431);
}

TEST_F(HttpTest, BodiesTogetherAreBounded) {
  GatewayOptions options;
  options.max_body_bytes = 1'000'000;
  options.max_total_body_bytes = 1'500'000;
  start(options);
  HttpClient first(port);
  first.send("POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 900000\r\n\r\n" +
             std::string(899'999, ' '));
  HttpClient second(port);
  second.send("POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 900000\r\n\r\n" +
              std::string(899'999, ' '));
  // Whichever was read first keeps its place; the other is asked to come again.
  EXPECT_EQ(second.read_response().status == 503 || first.read_response().status == 503, true);
}

TEST_F(HttpTest, SlowSendersAreCutOff) {
  GatewayOptions options;
  options.header_timeout = std::chrono::milliseconds(50);
  options.body_timeout = std::chrono::milliseconds(50);
  options.idle_timeout = std::chrono::milliseconds(50);
  start(options);
  HttpClient idle(port);
  EXPECT_TRUE(idle.wait_for_close());
  HttpClient headers(port);
  headers.send("GET / HT");
  EXPECT_TRUE(headers.wait_for_close());
  HttpClient body(port);
  body.send("POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{");
  EXPECT_TRUE(body.wait_for_close());
  EXPECT_GE(metric("switchyard_http_timeouts_total"), 3);
}

TEST_F(HttpTest, TooManyConnectionsAreToldSo) {
  GatewayOptions options;
  options.max_connections = 2;
  start(options);
  HttpClient first(port);
  HttpClient second(port);
  EXPECT_EQ(first.roundtrip("GET", "/").status, 200);
  EXPECT_EQ(second.roundtrip("GET", "/").status, 200);
  const auto refused = http(port, "GET", "/");
  EXPECT_EQ(refused.status, 503);
  EXPECT_EQ(refused.headers.at("retry-after"), "1");
  first.close();
  EXPECT_EQ(second.roundtrip("GET", "/").status, 200);
}

TEST_F(HttpTest, APortInUseSaysWhatToDo) {
  start();
  GatewayOptions options;
  options.port = port;
  const auto second = Gateway::start(options, *generator, {}, toy_text);
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, ErrorCode::exhausted);
  EXPECT_NE(second.error().message.find("choose another port"), std::string::npos);
  options.host = "no-such-host.invalid";
  EXPECT_EQ(Gateway::start(options, *generator, {}, toy_text).error().code, ErrorCode::invalid);
  options.host = "203.0.113.7";  // a documentation address: of no machine
  options.port = 0;
  EXPECT_EQ(Gateway::start(options, *generator, {}, toy_text).error().code, ErrorCode::invalid);
}

}  // namespace
}  // namespace switchyard::gateway::testing
