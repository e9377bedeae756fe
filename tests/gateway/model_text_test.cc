// The tokenizer and the chat template of the real default model, as the gateway uses them.
#include <gtest/gtest.h>

#include <cstdlib>

#include "gateway/served_text.h"

namespace switchyard::gateway {
namespace {

TEST(ModelText, SpeaksTheDefaultModel) {
  const char* path = std::getenv("SWITCHYARD_TEST_MODEL");
  if (path == nullptr || *path == '\0')
    GTEST_SKIP() << "SWITCHYARD_TEST_MODEL does not name the default model";
  auto image = model::ModelImage::open(path);
  ASSERT_TRUE(image) << image.error().message;
  const auto text = served_text_from_image({"smollm2", *image, 2048, 0});
  ASSERT_TRUE(text) << text.error().message;

  const nlohmann::ordered_json messages = {{{"role", "user"}, {"content", "What is 2+2?"}}};
  const auto prompt = (*text)->render_chat(messages, nullptr);
  ASSERT_TRUE(prompt) << prompt.error().message;
  EXPECT_EQ(
      *prompt,
      "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
      "<|im_start|>user\nWhat is 2+2?<|im_end|>\n<|im_start|>assistant\n");
  const auto tokens = (*text)->encode(*prompt, false, 1000);
  EXPECT_EQ(tokens.size(), 37u);
  EXPECT_EQ((*text)->token_bytes(tokens.front()), "<|im_start|>");

  // Character by character, whatever the tokens' borders.
  const std::string words = "Paris \xE2\x80\x94 caf\xC3\xA9 \xF0\x9F\x9A\x80 \xE6\x9D\xB1\xE4\xBA\xAC!";
  const auto decoder = (*text)->decoder();
  std::string decoded;
  for (const auto token : (*text)->encode(words, false, 1000)) decoded += decoder->push(token);
  EXPECT_EQ(decoded + decoder->finish(), words);
  EXPECT_FALSE((*text)->end_tokens().empty());
}

TEST(ModelText, NeedsAnImage) {
  EXPECT_EQ(served_text_from_image({"none", nullptr, 10, 0}).error().code, ErrorCode::invalid);
}

}  // namespace
}  // namespace switchyard::gateway
