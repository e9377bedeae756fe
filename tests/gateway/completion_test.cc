// /v1/completions over a real socket.
#include "gateway/fixture.h"

namespace switchyard::gateway::testing {
namespace {

class CompletionTest : public GatewayTest {
 protected:
  ClientResponse post(std::string_view body) { return http(port, "POST", "/v1/completions", body); }
};

TEST_F(CompletionTest, AnswersWhole) {
  start();
  const auto response = complete("hi");
  ASSERT_EQ(response.status, 200) << response.body;
  const auto json = response.json();
  EXPECT_EQ(json["object"], "text_completion");
  EXPECT_TRUE(json["id"].get<std::string>().starts_with("cmpl-"));
  EXPECT_EQ(json["choices"][0]["text"], "Hello world");
  EXPECT_EQ(json["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(json["usage"]["prompt_tokens"], 3);  // <|begin|>, h, i
}

TEST_F(CompletionTest, MakesSixteenTokensByDefault) {
  start();
  const auto json = post(R"({"model": "toy", "prompt": "say 0123456789abcdefXYZ"})").json();
  EXPECT_EQ(json["choices"][0]["text"], "0123456789abcdef");
  EXPECT_EQ(json["choices"][0]["finish_reason"], "length");
}

TEST_F(CompletionTest, TakesAllFormsOfPrompts) {
  start();
  const auto strings = post(R"({"model": "toy", "prompt": ["say a", "say b"], "n": 2})").json();
  ASSERT_EQ(strings["choices"].size(), 4u);
  EXPECT_EQ(strings["choices"][1]["text"], "a");
  EXPECT_EQ(strings["choices"][2]["text"], "b");
  EXPECT_EQ(strings["choices"][2]["index"], 2);
  EXPECT_EQ(strings["usage"]["prompt_tokens"], 12);

  const auto ids = post(R"({"model": "toy", "prompt": [115, 97, 121, 32, 99]})").json();
  EXPECT_EQ(ids["choices"][0]["text"], "c");
  EXPECT_EQ(ids["usage"]["prompt_tokens"], 5);  // nothing is put before ids

  const auto lists = post(R"({"model": "toy", "prompt": [[115, 97, 121, 32, 99], [104]]})").json();
  ASSERT_EQ(lists["choices"].size(), 2u);
  EXPECT_EQ(lists["choices"][1]["text"], "Hello world");
}

TEST_F(CompletionTest, ThePlaceInABatchDoesNotChangeTheSeed) {
  start();
  const auto json =
      post(R"({"model": "toy", "prompt": ["seed", "seed"], "n": 2, "seed": 5, "max_tokens": 30})").json();
  EXPECT_EQ(json["choices"][0]["text"], "5");
  EXPECT_EQ(json["choices"][2]["text"], "5");
  EXPECT_EQ(json["choices"][1]["text"], json["choices"][3]["text"]);
}

TEST_F(CompletionTest, RefusesBadPrompts) {
  start();
  for (const char* prompt :
       {"7", "{}", "[]", "[1, \"a\"]", "[\"a\", 1]", "[[1], \"a\"]", "[[]]", "[-1]", "[1.5]", "[99999999999]",
        "[263]", "[[1], [300]]", "null", "[null]", "[[[1]]]"}) {
    const auto response = post(fmt::format(R"({{"model": "toy", "prompt": {}}})", prompt));
    EXPECT_EQ(response.status, 400) << prompt;
    EXPECT_EQ(response.json()["error"]["param"], "prompt") << prompt << response.body;
  }
}

TEST_F(CompletionTest, Echoes) {
  start();
  EXPECT_EQ(complete("say x", R"(, "echo": true)").json()["choices"][0]["text"], "say xx");
  EXPECT_EQ(post(R"({"model": "toy", "prompt": [72, 105], "echo": true, "max_tokens": 0})")
                .json()["choices"][0]["text"],
            "Hi");
  EXPECT_EQ(generator->submitted(), 1u);
  const auto response = complete("say x", R"(, "echo": true, "stream": true)");
  std::string text;
  for (const auto& event : response.events()) {
    if (event != "[DONE]") text += nlohmann::json::parse(event)["choices"][0]["text"].get<std::string>();
  }
  EXPECT_EQ(text, "say xx");
  EXPECT_EQ(complete("say x", R"(, "echo": true, "max_tokens": 0, "stream": true)").events().back(),
            "[DONE]");
}

TEST_F(CompletionTest, EchoesEachChoiceWithinABound) {
  GatewayOptions options;
  options.limits.max_echo_bytes = 8;
  start(options);
  for (const bool stream : {false, true}) {
    const auto response =
        complete("ab", fmt::format(R"(, "echo": true, "max_tokens": 0, "n": 3, "stream": {})", stream));
    ASSERT_EQ(response.status, 200) << response.body;
    std::map<int, std::string> texts;
    const auto take = [&](const nlohmann::json& reply) {
      for (const auto& choice : reply["choices"]) texts[choice["index"]] += choice["text"].get<std::string>();
    };
    if (stream) {
      for (const auto& event : response.events()) {
        if (event != "[DONE]") take(nlohmann::json::parse(event));
      }
    } else {
      take(response.json());
    }
    EXPECT_EQ(texts, (std::map<int, std::string>{{0, "ab"}, {1, "ab"}, {2, "ab"}})) << stream;
  }
  EXPECT_EQ(complete("abcd", R"(, "echo": true, "max_tokens": 0, "n": 2)").status, 200);
  const auto refused = complete("abcd", R"(, "echo": true, "max_tokens": 0, "n": 3)");
  EXPECT_EQ(refused.status, 400);
  EXPECT_EQ(refused.json()["error"]["param"], "echo");
}

TEST_F(CompletionTest, GivesLogprobs) {
  start();
  const auto json = complete(
                        "say a\xE2\x82\xAC"
                        "b",
                        R"(, "logprobs": 2)")
                        .json();
  const auto& logprobs = json["choices"][0]["logprobs"];
  EXPECT_EQ(logprobs["tokens"],
            nlohmann::json::array({"a", "bytes:\\xe2", "bytes:\\x82", "bytes:\\xac", "b"}));
  EXPECT_EQ(logprobs["text_offset"], nlohmann::json::array({0, 1, 1, 1, 2}));
  EXPECT_EQ(logprobs["token_logprobs"].size(), 5u);
  EXPECT_EQ(logprobs["top_logprobs"].size(), 5u);
  EXPECT_FLOAT_EQ(logprobs["top_logprobs"][0]["b"].get<float>(), -1.5f);
  EXPECT_TRUE(
      complete("say a", R"(, "logprobs": 0)").json()["choices"][0]["logprobs"]["top_logprobs"].is_null());
}

TEST_F(CompletionTest, LogprobsLeaveOutTheStopString) {
  start();
  const auto json =
      complete("say abSTOP", R"(, "logprobs": 1, "stop": "STOP", "return_token_ids": true)").json();
  EXPECT_EQ(json["choices"][0]["text"], "ab");
  EXPECT_EQ(json["choices"][0]["logprobs"]["tokens"], nlohmann::json::array({"a", "b"}));
  EXPECT_EQ(json["choices"][0]["token_ids"].size(), 6u);
  EXPECT_EQ(json["usage"]["completion_tokens"], 6);
}

TEST_F(CompletionTest, StreamsUsage) {
  start();
  const auto response =
      complete("say abc", R"(, "stream": true, "stream_options": {"include_usage": true}, "n": 2)");
  const auto events = response.events();
  ASSERT_GE(events.size(), 3u);
  EXPECT_EQ(events.back(), "[DONE]");
  const auto usage = nlohmann::json::parse(events[events.size() - 2]);
  EXPECT_TRUE(usage["choices"].empty());
  EXPECT_EQ(usage["usage"]["completion_tokens"], 6);
}

TEST_F(CompletionTest, RefusesWhatIsNotServed) {
  start();
  const auto refused = [&](const char* more, const char* param) {
    const auto response = complete("x", more);
    EXPECT_EQ(response.status, 400) << more;
    EXPECT_EQ(response.json()["error"]["param"], param) << more << response.body;
  };
  refused(R"(, "suffix": "end")", "suffix");
  refused(R"(, "best_of": 3)", "best_of");
  refused(R"(, "echo": true, "logprobs": 1)", "echo");
  refused(R"(, "logprobs": 21)", "logprobs");
  refused(R"(, "logprobs": true)", "logprobs");
  EXPECT_EQ(complete("x", R"(, "best_of": 2, "n": 2, "suffix": null, "logprobs": null)").status, 200);
}

TEST_F(CompletionTest, PromptsThatDoNotFitNameBothNumbers) {
  start();
  const auto response = complete(std::string(3000, 'x'));
  EXPECT_EQ(response.status, 400);
  const auto error = response.json()["error"];
  EXPECT_EQ(error["code"], "context_length_exceeded");
  EXPECT_EQ(error["param"], "prompt");
  EXPECT_NE(error["message"].get<std::string>().find("2048"), std::string::npos);
  EXPECT_NE(error["message"].get<std::string>().find("3001"), std::string::npos);
  EXPECT_EQ(complete("x", R"(, "max_tokens": 2047)").status, 400);  // the later field counts: 2 + 2047
  EXPECT_EQ(complete("x", R"(, "max_tokens": 2046)").status, 200);
}

TEST_F(CompletionTest, LongPromptsArePreparedInTheBackground) {
  start({}, [](const auto&) {
    FakePlan plan;
    plan.tokens = {kToyHello};
    return plan;
  });
  // Over the size that the io thread takes on, but small enough in tokens once the spaces of the JSON are
  // gone.
  const auto response =
      post(R"({"model": "toy", "prompt": "hi", )" + std::string(100000, ' ') + R"("max_tokens": 5})");
  EXPECT_EQ(response.json()["choices"][0]["text"], "Hello");
  const auto failed = post(R"({"model": "toy", "prompt": ")" + std::string(100000, 'x') + R"("})");
  EXPECT_EQ(failed.json()["error"]["code"], "context_length_exceeded");
}

}  // namespace
}  // namespace switchyard::gateway::testing
