// /v1/chat/completions over a real socket.
#include "gateway/fixture.h"

namespace switchyard::gateway::testing {
namespace {

class ChatTest : public GatewayTest {};

// Text of one choice over all chunks of a stream.
std::string streamed_text(const ClientResponse& response, int index = 0) {
  std::string text;
  for (const auto& event : response.events()) {
    if (event == "[DONE]") continue;
    const auto chunk = nlohmann::json::parse(event);
    for (const auto& choice : chunk["choices"]) {
      if (choice["index"] == index) text += choice["delta"].value("content", "");
    }
  }
  return text;
}

TEST_F(ChatTest, AnswersWhole) {
  start();
  const auto response = chat("hi");
  ASSERT_EQ(response.status, 200) << response.body;
  const auto json = response.json();
  EXPECT_EQ(json["object"], "chat.completion");
  EXPECT_EQ(json["model"], "toy");
  EXPECT_TRUE(json["id"].get<std::string>().starts_with("chatcmpl-"));
  const auto& choice = json["choices"][0];
  EXPECT_EQ(choice["message"]["role"], "assistant");
  EXPECT_EQ(choice["message"]["content"], "Hello world");
  EXPECT_EQ(choice["finish_reason"], "stop");
  EXPECT_TRUE(choice["logprobs"].is_null());
  EXPECT_EQ(json["usage"]["prompt_tokens"], 4);  // <|user|>, h, i, <|assistant|>
  EXPECT_EQ(json["usage"]["completion_tokens"], 2);
  EXPECT_EQ(json["usage"]["total_tokens"], 6);
}

TEST_F(ChatTest, StreamsWithRoleFirstAndDoneLast) {
  start();
  const auto response = chat("say abc", R"(, "stream": true)");
  ASSERT_EQ(response.status, 200);
  EXPECT_TRUE(response.complete);
  EXPECT_TRUE(response.headers.at("content-type").starts_with("text/event-stream"));
  const auto events = response.events();
  ASSERT_GE(events.size(), 4u);
  EXPECT_EQ(events.back(), "[DONE]");
  const auto first = nlohmann::json::parse(events.front());
  EXPECT_EQ(first["object"], "chat.completion.chunk");
  EXPECT_EQ(first["choices"][0]["delta"]["role"], "assistant");
  const auto last = nlohmann::json::parse(events[events.size() - 2]);
  EXPECT_EQ(last["choices"][0]["finish_reason"], "stop");
  EXPECT_TRUE(last["choices"][0]["delta"].empty());
  EXPECT_FALSE(last.contains("usage"));
  EXPECT_EQ(streamed_text(response), "abc");
}

TEST_F(ChatTest, StreamsUsageWhenAsked) {
  start();
  const auto response = chat("say abc", R"(, "stream": true, "stream_options": {"include_usage": true})");
  const auto events = response.events();
  const auto usage = nlohmann::json::parse(events[events.size() - 2]);
  EXPECT_TRUE(usage["choices"].empty());
  EXPECT_EQ(usage["usage"]["completion_tokens"], 3);
  EXPECT_TRUE(nlohmann::json::parse(events[0])["usage"].is_null());
}

TEST_F(ChatTest, EndsAtMaxTokens) {
  start();
  const auto json = chat("say abcdef", R"(, "max_tokens": 3)").json();
  EXPECT_EQ(json["choices"][0]["message"]["content"], "abc");
  EXPECT_EQ(json["choices"][0]["finish_reason"], "length");
  const auto newer = chat("say abcdef", R"(, "max_tokens": 3, "max_completion_tokens": 2)").json();
  EXPECT_EQ(newer["choices"][0]["message"]["content"], "ab");
}

TEST_F(ChatTest, FillsTheContextByDefault) {
  start({}, [](const auto&) {
    FakePlan plan;
    plan.tokens = byte_tokens("x");
    plan.endless = true;
    return plan;
  });
  const auto json = chat("hi").json();
  EXPECT_EQ(json["usage"]["total_tokens"], 2048);
  EXPECT_EQ(json["choices"][0]["finish_reason"], "length");
}

TEST_F(ChatTest, StopsAcrossTokensWithoutLeaking) {
  start();
  for (const std::string stream : {"", R"(, "stream": true)"}) {
    const auto response = chat("say one two three", R"(, "stop": ["two t", "zzz"])" + stream);
    const std::string text = stream.empty()
                                 ? response.json()["choices"][0]["message"]["content"].get<std::string>()
                                 : streamed_text(response);
    EXPECT_EQ(text, "one ");
    EXPECT_NE(response.body.find(R"("finish_reason":"stop")"), std::string::npos);
  }
  EXPECT_TRUE(generator->wait_until([](const auto& fake) { return fake.active() == 0; }));
}

TEST_F(ChatTest, GivesBackWhatOnlyLookedLikeAStop) {
  start();
  const auto response = chat("say abcab", R"(, "stop": "abcabc", "stream": true)");
  EXPECT_EQ(streamed_text(response), "abcab");
}

TEST_F(ChatTest, AStopStringEndsAnEndlessGeneration) {
  start({}, [](const auto&) {
    FakePlan plan;
    plan.tokens = byte_tokens("lalala stop it ");
    plan.hold_after = 15;
    return plan;
  });
  const auto response = chat("sing", R"(, "stop": "stop")");
  EXPECT_EQ(response.json()["choices"][0]["message"]["content"], "lalala ");
  EXPECT_TRUE(
      generator->wait_until([](const auto& fake) { return fake.cancelled() == 1 && fake.active() == 0; }));
}

TEST_F(ChatTest, EveryChoiceHasItsOwnSeed) {
  start();
  const auto json = chat("seed", R"(, "n": 3, "seed": 77)").json();
  ASSERT_EQ(json["choices"].size(), 3u);
  EXPECT_EQ(json["choices"][0]["message"]["content"], "77");
  EXPECT_NE(json["choices"][1]["message"]["content"], "77");
  EXPECT_NE(json["choices"][1]["message"]["content"], json["choices"][2]["message"]["content"]);
  EXPECT_EQ(chat("seed", R"(, "n": 3, "seed": 77)").json()["choices"], json["choices"]);
  EXPECT_EQ(chat("seed", R"(, "n": 2, "seed": -1)").json()["choices"][0]["message"]["content"],
            "18446744073709551615");
}

TEST_F(ChatTest, WithoutASeedItIsRandom) {
  start();
  EXPECT_NE(chat("seed").json()["choices"][0]["message"], chat("seed").json()["choices"][0]["message"]);
}

TEST_F(ChatTest, StreamsSeveralChoices) {
  start();
  const auto response =
      chat("say abc", R"(, "n": 4, "stream": true, "stream_options": {"include_usage": true})");
  for (int index = 0; index < 4; ++index) EXPECT_EQ(streamed_text(response, index), "abc");
  const auto events = response.events();
  EXPECT_EQ(nlohmann::json::parse(events[events.size() - 2])["usage"]["completion_tokens"], 12);
  int finished = 0;
  for (const auto& event : events) finished += event.find(R"("finish_reason":"stop")") != std::string::npos;
  EXPECT_EQ(finished, 4);
}

TEST_F(ChatTest, GivesLogprobs) {
  start();
  const auto json = chat("say ab", R"(, "logprobs": true, "top_logprobs": 2)").json();
  const auto& content = json["choices"][0]["logprobs"]["content"];
  ASSERT_EQ(content.size(), 2u);
  EXPECT_EQ(content[0]["token"], "a");
  EXPECT_EQ(content[0]["bytes"], nlohmann::json::array({97}));
  EXPECT_FLOAT_EQ(content[0]["logprob"].get<float>(), -0.5f);
  ASSERT_EQ(content[0]["top_logprobs"].size(), 2u);
  EXPECT_EQ(content[0]["top_logprobs"][1]["token"], "b");
  EXPECT_FLOAT_EQ(content[1]["logprob"].get<float>(), -1.0f);
}

TEST_F(ChatTest, StreamsCarryEveryTokenOnce) {
  start();
  const auto response =
      chat("say a\xE2\x82\xAC.", R"(, "stream": true, "logprobs": true, "return_token_ids": true)");
  std::vector<int> ids;
  std::size_t logprobs = 0;
  for (const auto& event : response.events()) {
    if (event == "[DONE]") continue;
    const auto chunk = nlohmann::json::parse(event);
    const auto& choice = chunk["choices"][0];
    for (const auto& id : choice["token_ids"]) ids.push_back(id);
    if (!choice["logprobs"].is_null()) logprobs += choice["logprobs"]["content"].size();
  }
  EXPECT_EQ(ids, (std::vector<int>{97, 0xE2, 0x82, 0xAC, 46}));
  EXPECT_EQ(logprobs, 5u);
  EXPECT_EQ(streamed_text(response), "a\xE2\x82\xAC.");
}

TEST_F(ChatTest, PassesSamplingOn) {
  start();
  const auto response = chat("hi", R"(, "temperature": 0.5, "top_p": 0.25, "top_k": 7, "min_p": 0.125,
      "repetition_penalty": 1.5, "presence_penalty": 1, "frequency_penalty": -1, "logit_bias": {"65": -100, "66": 3})");
  ASSERT_EQ(response.status, 200) << response.body;
  const auto sampling = generator->requests().at(0).sampling;
  EXPECT_EQ(sampling.temperature, 0.5f);
  EXPECT_EQ(sampling.top_p, 0.25f);
  EXPECT_EQ(sampling.top_k, 7u);
  EXPECT_EQ(sampling.min_p, 0.125f);
  EXPECT_EQ(sampling.repetition_penalty, 1.5f);
  EXPECT_EQ(sampling.presence_penalty, 1.0f);
  EXPECT_EQ(sampling.frequency_penalty, -1.0f);
  ASSERT_EQ(sampling.logit_bias.size(), 2u);
  EXPECT_EQ(sampling.logit_bias[0].token, 65);
  EXPECT_EQ(sampling.logit_bias[0].bias, -100.0f);
}

TEST_F(ChatTest, HasOpenAiDefaults) {
  start();
  chat("hi", R"(, "temperature": null, "stop": null, "n": null, "user": "me", "unheard_of": {"a": 1})");
  const auto request = generator->requests().at(0);
  EXPECT_EQ(request.sampling.temperature, 1.0f);
  EXPECT_EQ(request.sampling.top_p, 1.0f);
  EXPECT_FALSE(request.sampling.logprobs);
  EXPECT_EQ(request.end_tokens, std::vector<std::int32_t>{kToyEnd});
}

TEST_F(ChatTest, TakesTextPartsToolsAndAllRoles) {
  start();
  const auto response = http(port, "POST", "/v1/chat/completions", R"({"model": "toy", "messages": [
      {"role": "developer", "content": "be brief"},
      {"role": "user", "content": [{"type": "text", "text": "x"}, {"type": "text", "text": "y"}]},
      {"role": "assistant", "content": null, "tool_calls": [{"id": "1", "type": "function",
        "function": {"name": "f", "arguments": "{\"a\": 1}"}}]},
      {"role": "tool", "tool_call_id": "1", "content": "7"}],
      "tools": [{"type": "function", "function": {"name": "f"}}]})");
  ASSERT_EQ(response.status, 200) << response.body;
  std::string prompt;
  const auto requests = generator->requests();
  for (const auto token : requests.at(0).prompt) prompt += toy_bytes(token);
  EXPECT_EQ(prompt, R"(tools:[{"type":"function","function":{"name":"f"}}]<|user|>be brief<|user|>x)"
                    "\ny<|assistant|><|user|>7<|assistant|>");
}

TEST_F(ChatTest, AFailureBeforeTheFirstTokenIsAnError) {
  start({}, [](const auto&) {
    FakePlan plan;
    plan.fail_after = 0;
    return plan;
  });
  for (const char* more : {"", R"(, "stream": true)"}) {
    const auto response = chat("hi", more);
    EXPECT_EQ(response.status, 503);
    EXPECT_EQ(response.json()["error"]["message"], "decode-0 died");
  }
}

TEST_F(ChatTest, AFailureMidStreamIsAnErrorEvent) {
  start({}, [](const auto&) {
    FakePlan plan;
    plan.tokens = byte_tokens("abcd");
    plan.hold_after = 2;
    plan.fail_after = 3;
    plan.failure = {ErrorCode::io, "the disk burned"};
    return plan;
  });
  HttpClient client(port);
  client.request("POST", "/v1/chat/completions", chat_body("hi", R"(, "stream": true)"));
  ASSERT_EQ(client.read_head().status, 200);
  std::string bytes;
  ASSERT_TRUE(client.read_until("b\"", bytes));
  generator->release();
  ASSERT_TRUE(client.read_until("the disk burned", bytes));
  EXPECT_TRUE(client.wait_for_close());
  EXPECT_EQ(bytes.find("[DONE]"), std::string::npos);
}

TEST_F(ChatTest, AFullQueueIs429) {
  start();
  generator->refuse_with(pool::Refusal{{ErrorCode::exhausted, "the queue of 'toy' is full"}, {}, {}});
  const auto response = chat("hi");
  EXPECT_EQ(response.status, 429);
  EXPECT_EQ(response.headers.at("retry-after"), "1");
  EXPECT_EQ(response.json()["error"]["code"], "server_overloaded");
  EXPECT_EQ(metric("switchyard_queue_rejects_total"), 1);
}

TEST_F(ChatTest, RefusalsSayWhenToComeAgain) {
  start();
  using std::chrono::milliseconds;
  generator->refuse_with(
      pool::Refusal{{ErrorCode::exhausted, "too fast"}, milliseconds(2100), schedule::ShedReason::rate});
  auto response = chat("hi", R"(, "stream": true)");
  EXPECT_EQ(response.status, 429);
  EXPECT_EQ(response.headers.at("retry-after"), "3");
  EXPECT_EQ(response.json()["error"]["code"], "rate_limit_exceeded");
  EXPECT_EQ(
      response.json()["error"]["message"],
      "Requests came faster than the rate of the API key or of the model 'toy' allows. Try again in 3 s.");
  generator->refuse_with(
      pool::Refusal{{ErrorCode::unsupported, "its file is broken"}, milliseconds(100), {}});
  response = chat("hi");
  EXPECT_EQ(response.status, 503);
  EXPECT_EQ(response.headers.at("retry-after"), "1");
  EXPECT_EQ(response.json()["error"]["code"], "model_not_ready");
  generator->refuse_with(pool::Refusal{{ErrorCode::unsupported, "its file is broken"}, {}, {}});
  EXPECT_EQ(chat("hi").headers.count("retry-after"), 0u);
  generator->refuse_with(std::nullopt);
  EXPECT_EQ(chat("hi").status, 200);
}

TEST_F(ChatTest, RefusalsAreSentences) {
  start();
  using schedule::ShedReason;
  const auto refused = [this](ShedReason reason, Nanos retry) {
    generator->refuse_with(
        pool::Refusal{.error = {ErrorCode::exhausted, "model 'toy'"}, .retry_after = retry, .shed = reason});
    return chat("hi");
  };
  struct Case {
    ShedReason reason;
    std::string code, words;
    int status;
  };
  using std::chrono::seconds;
  for (const Case& each :
       std::vector<Case>{{ShedReason::rate, "rate_limit_exceeded", "faster than the rate", 429},
                         {ShedReason::queue, "server_overloaded", "are waiting already", 429},
                         {ShedReason::overload, "server_overloaded", "would come too late", 429},
                         {ShedReason::no_instance, "no_instance", "No instance can serve", 503}}) {
    const auto response = refused(each.reason, seconds(4));
    const auto error = response.json()["error"];
    EXPECT_EQ(response.status, each.status) << each.code;
    EXPECT_EQ(error["code"], each.code);
    EXPECT_EQ(response.headers.at("retry-after"), "4");
    const auto message = error["message"].get<std::string>();
    EXPECT_NE(message.find(each.words), std::string::npos) << message;
    EXPECT_NE(message.find("Try again in 4 s."), std::string::npos) << message;
  }
  EXPECT_EQ(refused(ShedReason::no_instance, {}).headers.count("retry-after"), 0u);
}

TEST_F(ChatTest, AModelWithoutAPlaceIsNotToBeAskedForAgain) {
  start();
  generator->refuse_with(pool::Refusal{.error = {ErrorCode::exhausted, "model 'toy'"},
                                       .retry_after = std::chrono::seconds(5),
                                       .shed = schedule::ShedReason::no_place});
  const auto response = chat("hi");
  EXPECT_EQ(response.status, 503);
  EXPECT_EQ(response.json()["error"]["code"], "no_place");
  EXPECT_EQ(response.headers.count("retry-after"), 0u);
  EXPECT_NE(response.json()["error"]["message"].get<std::string>().find("more berths"), std::string::npos);
}

TEST_F(ChatTest, MoreChoicesThanARateHoldsAreRefusedForGood) {
  GatewayOptions options;
  options.limits.admission = {.key_rate = {2, 4.5}, .max_waiting = 100};
  with_admin = true;
  start(options);
  auto response = chat("hi", R"(, "n": 5)");
  EXPECT_EQ(response.status, 400);
  EXPECT_EQ(response.json()["error"]["code"], "too_many_choices");
  EXPECT_EQ(response.json()["error"]["param"], "n");
  EXPECT_NE(response.json()["error"]["message"].get<std::string>().find("at most 4"), std::string::npos);
  EXPECT_EQ(response.headers.count("retry-after"), 0u);
  EXPECT_EQ(chat("hi", R"(, "n": 4)").status, 200);
  response = http(port, "POST", "/v1/completions", R"({"model": "toy", "prompt": ["a","b","c","d","e"]})");
  EXPECT_EQ(response.status, 400);
  EXPECT_EQ(response.json()["error"]["param"], "prompt");
  EXPECT_EQ(http(port, "POST", "/v1/completions",
                 R"({"model": "toy", "prompt": ["a","b","c","d","e"], "max_tokens": 0, "echo": true})")
                .status,
            200);
  EXPECT_EQ(generator->submitted(), 4u);

  // A model's own limits, which may change.
  auto models = catalogue->settings();
  models[0].rate = {1, 2};
  models[1].max_waiting = 3;
  ASSERT_TRUE(catalogue->replace(models));
  generator->change_models([](auto&) {});
  EXPECT_EQ(chat("hi", R"(, "n": 3)").status, 400);
  EXPECT_EQ(chat("hi", R"(, "n": 2)").status, 200);
  response = http(port, "POST", "/v1/completions", R"({"model": "org/other", "prompt": "x", "n": 4})");
  EXPECT_EQ(response.status, 400);
  EXPECT_NE(response.json()["error"]["message"].get<std::string>().find("may wait"), std::string::npos);

  // Choices that got in before one did not have used up what the others need.
  generator->refuse_with(pool::Refusal{
      {ErrorCode::exhausted, "rate"}, std::chrono::milliseconds(500), schedule::ShedReason::rate});
  EXPECT_EQ(chat("hi").headers.at("retry-after"), "1");
  EXPECT_EQ(chat("hi", R"(, "n": 2)").headers.at("retry-after"), "2");
}

TEST_F(ChatTest, IgnoreEosSendsNoEndTokens) {
  start();
  chat("hi");
  chat("hi", R"(, "ignore_eos": true)");
  const auto requests = generator->requests();
  EXPECT_EQ(requests.at(0).end_tokens, std::vector<std::int32_t>{kToyEnd});
  EXPECT_TRUE(requests.at(1).end_tokens.empty());
}

TEST_F(ChatTest, EveryKeyIsAClientOfItsOwn) {
  GatewayOptions options;
  options.api_keys = {"first", "second"};
  start(options);
  for (const char* key : {"first", "second", "first"}) {
    const auto header = "Authorization: Bearer " + std::string(key) + "\r\n";
    EXPECT_EQ(http(port, "POST", "/v1/chat/completions", chat_body("hi"), header).status, 200);
  }
  const auto requests = generator->requests();
  ASSERT_EQ(requests.size(), 3u);
  EXPECT_EQ(requests[0].client, 1u);
  EXPECT_EQ(requests[1].client, 2u);
  EXPECT_EQ(requests[2].client, 1u);
}

}  // namespace
}  // namespace switchyard::gateway::testing
