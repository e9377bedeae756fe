// Parsing of requests, without a server.
#include <gtest/gtest.h>

#include "gateway/openai_request.h"

namespace switchyard::gateway {
namespace {

ApiError chat_error(const std::string& more) {
  const auto request =
      parse_chat_request(R"({"model": "m", "messages": [{"role": "user", "content": "x"}])" + more + "}", {});
  return request ? ApiError{200, "accepted"} : request.error();
}

ApiError messages_error(const std::string& messages) {
  const auto request = parse_chat_request(R"({"model": "m", "messages": )" + messages + "}", {});
  return request ? ApiError{200, "accepted"} : request.error();
}

TEST(ChatRequest, NamesTheFieldThatIsWrong) {
  const std::vector<std::pair<std::string, std::string>> wrong{
      {R"("temperature": "hot")", "temperature"},
      {R"("temperature": 2.1)", "temperature"},
      {R"("temperature": -0.1)", "temperature"},
      {R"("top_p": 1.5)", "top_p"},
      {R"("min_p": [])", "min_p"},
      {R"("top_k": 1.5)", "top_k"},
      {R"("top_k": -2)", "top_k"},
      {R"("repetition_penalty": 0)", "repetition_penalty"},
      {R"("repetition_penalty": 11)", "repetition_penalty"},
      {R"("presence_penalty": 3)", "presence_penalty"},
      {R"("frequency_penalty": -3)", "frequency_penalty"},
      {R"("n": 0)", "n"},
      {R"("n": 129)", "n"},
      {R"("n": 18446744073709551615)", "n"},
      {R"("n": true)", "n"},
      {R"("seed": 1.5)", "seed"},
      {R"("seed": "7")", "seed"},
      {R"("max_tokens": 0)", "max_tokens"},
      {R"("max_tokens": 99999999999)", "max_tokens"},
      {R"("max_completion_tokens": -5)", "max_completion_tokens"},
      {R"("stop": 7)", "stop"},
      {R"("stop": ["a", 7])", "stop"},
      {R"("stop": ["1","2","3","4","5","6","7","8","9","10","11","12","13","14","15","16","17"])", "stop"},
      {R"("stop": ")" + std::string(2000, 'x') + "\"", "stop"},
      {R"("stream": "yes")", "stream"},
      {R"("stream": true, "stream_options": 5)", "stream_options"},
      {R"("stream_options": {"include_usage": true})", "stream_options"},
      {R"("stream": true, "stream_options": {"include_usage": 1})", "stream_options.include_usage"},
      {R"("logprobs": 3)", "logprobs"},
      {R"("top_logprobs": 3)", "top_logprobs"},
      {R"("logprobs": true, "top_logprobs": 21)", "top_logprobs"},
      {R"("logit_bias": [])", "logit_bias"},
      {R"("logit_bias": {"x": 1})", "logit_bias"},
      {R"("logit_bias": {"-1": 1})", "logit_bias"},
      {R"("logit_bias": {"1": 101})", "logit_bias"},
      {R"("logit_bias": {"1": "a"})", "logit_bias"},
      {R"("logit_bias": {"99999999999": 1})", "logit_bias"},
      {R"("response_format": {"type": "json_object"})", "response_format"},
      {R"("tool_choice": "required")", "tool_choice"},
      {R"("tools": [{"type": "function"}])", "tools"},
      {R"("tools": {})", "tools"},
      {R"("functions": [])", "functions"},
      {R"("modalities": ["audio"])", "modalities"},
      {R"("best_of": 2)", "best_of"},
  };
  for (const auto& [json, param] : wrong) {
    const ApiError error = chat_error(", " + json);
    EXPECT_EQ(error.status, 400) << json;
    EXPECT_EQ(error.param, param) << json << ": " << error.message;
  }
}

TEST(ChatRequest, TakesWhatClientsSend) {
  for (const std::string json :
       {R"("temperature": 0)", R"("top_p": 0)", R"("top_k": -1)", R"("stop": [])", R"("stop": "")",
        R"("response_format": {"type": "text"})", R"("tool_choice": "auto", "tools": [])",
        R"("seed": -9223372036854775808)", R"("seed": 18446744073709551615)", R"("modalities": ["text"])",
        R"("stream": false, "stream_options": null)", R"("logprobs": false)",
        R"("metadata": {"a": [1, 2, {"b": null}]})", R"("logit_bias": {})"}) {
    EXPECT_EQ(chat_error(", " + json).status, 200) << json << ": " << chat_error(", " + json).message;
  }
}

TEST(ChatRequest, ChecksMessages) {
  const std::vector<std::pair<std::string, std::string>> wrong{
      {"[]", "messages"},
      {"null", "messages"},
      {"{}", "messages"},
      {"[7]", "messages[0]"},
      {R"([{"content": "x"}])", "messages[0].role"},
      {R"([{"role": "wizard", "content": "x"}])", "messages[0].role"},
      {R"([{"role": 7, "content": "x"}])", "messages[0].role"},
      {R"([{"role": "user", "content": "x"}, {"role": "user"}])", "messages[1].content"},
      {R"([{"role": "user", "content": 7}])", "messages[0].content"},
      {R"([{"role": "user", "content": [7]}])", "messages[0].content"},
      {R"([{"role": "user", "content": [{"text": "x"}]}])", "messages[0].content"},
      {R"([{"role": "user", "content": [{"type": "text"}]}])", "messages[0].content"},
      {R"([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}])",
       "messages[0].content"},
      {R"([{"role": "assistant", "tool_calls": 7}])", "messages[0].tool_calls"},
  };
  for (const auto& [json, param] : wrong) {
    const ApiError error = messages_error(json);
    EXPECT_EQ(error.status, 400) << json;
    EXPECT_EQ(error.param, param) << json << ": " << error.message;
  }
  EXPECT_NE(
      messages_error(R"([{"role": "user", "content": [{"type": "image_url"}]}])").message.find("image_url"),
      std::string::npos);
}

TEST(RequestBody, SaysWhereTheJsonIsBroken) {
  const auto error = parse_json_object("{\n\"a\": tru}").error();
  EXPECT_EQ(error.code, "invalid_json");
  EXPECT_NE(error.message.find("line 2"), std::string::npos) << error.message;
  for (const char* text :
       {"", "[]", "7", "{\"a\": 1,}", "{} {}", "{\"a\": 1e999}", "{\"\\ud800\": 1}", "{\"a\": \"\xFF\"}",
        "{\"a\": \"\xC0\x80\"}", "{\"a\": \"\xED\xA0\x80\"}", "{\"a\"", "\"", "{\"a\": \"\\"}) {
    EXPECT_FALSE(parse_json_object(text)) << text;
  }
}

TEST(RequestBody, LimitsTheDepth) {
  const auto nested = [](std::size_t depth) {
    return "{\"a\": " + std::string(depth - 1, '[') + std::string(depth - 1, ']') + "}";
  };
  EXPECT_TRUE(parse_json_object(nested(64)));
  EXPECT_FALSE(parse_json_object(nested(65)));
  const auto error = parse_json_object("{\"a\": " + std::string(5'000'000, '[')).error();
  EXPECT_NE(error.message.find("64 levels"), std::string::npos);
  // Brackets in strings do not count, whatever stands before them.
  EXPECT_TRUE(parse_json_object("{\"a\\\\\\\"" + std::string(100, '[') + "\": 1}"));
}

TEST(RequestBody, LimitsTheFieldsOfAnObject) {
  const auto fields = [](std::size_t count) {
    std::string text = "{";
    for (std::size_t i = 0; i < count; ++i)
      text += fmt::format("{}\"{}\": {{\"a\": 1}}", i == 0 ? "" : ", ", i);
    return text + "}";
  };
  EXPECT_TRUE(parse_json_object(fields(1024)));
  EXPECT_FALSE(parse_json_object(fields(1025)));
}

TEST(ChatRequest, KeepsTheOrderOfFields) {
  const auto request = parse_chat_request(R"({"model": "m", "messages": [{"role": "user", "content": "x"}],
      "tools": [{"type": "function", "function": {"name": "f", "description": "d", "arguments": {"z": 1, "a": 2}}}]})",
                                          {});
  ASSERT_TRUE(request);
  EXPECT_EQ(request->tools.dump(),
            R"([{"type":"function","function":{"name":"f","description":"d","arguments":{"z":1,"a":2}}}])");
}

TEST(CompletionRequest, CountsChoices) {
  EXPECT_TRUE(parse_completion_request(R"({"model": "m", "prompt": ["a", "b"], "n": 64})", {}));
  EXPECT_EQ(parse_completion_request(R"({"model": "m", "prompt": ["a", "b"], "n": 65})", {}).error().param,
            "n");
}

}  // namespace
}  // namespace switchyard::gateway
