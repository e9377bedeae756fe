// Checkpoint::open: tensors and tokenizer together.
#include <gtest/gtest.h>

#include "model/checkpoint.h"
#include "model/temporary_directory.h"
#include "model/tiny_checkpoint.h"
#include "model/tokenizer.h"

namespace switchyard::model {
namespace {

class OpenForms : public testing::TestWithParam<bool> {
 protected:
  Result<std::unique_ptr<Checkpoint>> open(const TinyModel& model) {
    if (GetParam()) {
      write_tiny_gguf(directory_ / "tiny.gguf", model);
    } else {
      write_tiny_safetensors(directory_.path(), model);
    }
    return Checkpoint::open(directory_.path());
  }

  TemporaryDirectory directory_;
};

TEST_P(OpenForms, TensorsAndTokenizer) {
  const auto checkpoint = open({});
  ASSERT_TRUE(checkpoint) << checkpoint.error().message;
  EXPECT_EQ((*checkpoint)->config(), TinyModel().config);
  EXPECT_NE((*checkpoint)->find("layers.1.ffn.down"), nullptr);
  EXPECT_EQ((*checkpoint)->find("layers.2.ffn.down"), nullptr);
  const TokenizerSpec& spec = (*checkpoint)->tokenizer();
  EXPECT_EQ(spec.tokens.size(), kTinyTokens);
  EXPECT_EQ(spec.chat_template, kTinyChatTemplate);
  EXPECT_EQ(spec.eos, 258);
  auto tokenizer = Tokenizer::create(spec);
  ASSERT_TRUE(tokenizer) << tokenizer.error().message;
  const std::string text = "over the\n";
  EXPECT_EQ((*tokenizer)->encode(text, {}),
            (std::vector<std::int32_t>{'o', 'v', 262, 263, '\n'}));  // "o", "v", "er", " the", newline
  EXPECT_EQ((*tokenizer)->decode((*tokenizer)->encode(text, {})), text);
}

TEST_P(OpenForms, AnEndTokenOfTheTokenizerServesAConfigurationWithout) {
  TinyModel model;
  model.config.end_tokens = {};
  const auto checkpoint = open(model);
  ASSERT_TRUE(checkpoint) << checkpoint.error().message;
  EXPECT_EQ((*checkpoint)->config().end_tokens.front(), 258);
}

TEST_P(OpenForms, MoreTokensThanTheEmbeddingHasRows) {
  TinyModel model;
  model.config.vocab = 260;
  const auto checkpoint = open(model);
  ASSERT_FALSE(checkpoint);
  EXPECT_EQ(checkpoint.error().code, ErrorCode::corrupt);
  EXPECT_NE(checkpoint.error().message.find("260 rows"), std::string::npos) << checkpoint.error().message;
}

INSTANTIATE_TEST_SUITE_P(All, OpenForms, testing::Bool(),
                         [](const auto& test) { return test.param ? "gguf" : "safetensors"; });

}  // namespace
}  // namespace switchyard::model
